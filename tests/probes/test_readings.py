"""Ranking readings on train, each by a probe."""

import numpy as np
import pytest
from randfeat.probes import KNN, LinearProbe, bootstrap, folds, rank_readings
from sklearn.base import clone


def data(n=120, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    good = rng.standard_normal((n, 6)).astype(np.float32)
    good[:, :3] += 2 * np.eye(3, dtype=np.float32)[labels]
    return {"weak": good + 2 * rng.standard_normal((n, 6)).astype(np.float32), "good": good}, labels


def test_every_image_is_scored_once_by_a_probe_that_has_not_seen_its_fold():
    readings, labels = data()
    groups = np.arange(len(labels)) // 10
    ranking = rank_readings(readings.items(), labels, [KNN(3)], groups, count=4, seed=1)
    fold = folds(labels, groups, 4, 1)
    for name, x in readings.items():
        for image in range(len(labels)):
            others = fold != fold[image]
            guess = clone(KNN(3)).fit(x[others], labels[others]).predict(x[image : image + 1])
            assert ranking.right[name][image] == (guess[0] == labels[image])
    assert ranking.best == "good"
    assert ranking.scores["good"] == ranking.right["good"].mean() > ranking.scores["weak"]
    assert ranking.intervals(groups, 200, 3)["weak"] == bootstrap(ranking.right["weak"], groups, 200, 3)


def test_of_several_probes_each_reading_has_its_best():
    readings, labels = data()
    probes = [LinearProbe(1e-6), LinearProbe(1.0)]
    one_by_one = [rank_readings(readings.items(), labels, [probe]).scores for probe in probes]
    both = rank_readings(readings.items(), labels, probes).scores
    assert both == {name: max(scores[name] for scores in one_by_one) for name in readings}


def test_readings_are_taken_one_after_the_other():
    readings, labels = data()
    log = []

    def each():
        for name, x in readings.items():
            log.append(name)
            yield name, x

    rank_readings(each(), labels, [KNN(1)], tick=lambda: log.append("done"))
    assert log == ["weak", "done", "good", "done"]


def test_equal_readings_the_first_is_best_and_odd_ones_are_refused():
    readings, labels = data()
    same = [("b", readings["good"]), ("a", readings["good"])]
    assert rank_readings(same, labels, [KNN(1)]).best == "b"
    with pytest.raises(ValueError, match="readings are empty"):
        rank_readings([], labels, [KNN(1)])
    broken = readings["good"].copy()
    broken[7, 0] = np.nan
    with pytest.raises(ValueError, match="broken hold NaN or infinity in 1 of 120 rows"):
        rank_readings([("broken", broken)], labels, [KNN(1)])
