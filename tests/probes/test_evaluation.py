"""Evaluations: what is chosen where, what odd data do, and that test is scored once."""

import warnings

import numpy as np
import pytest
from keypoints import right_and_wrong_pairs
from randfeat.probes import KNN, FeatureSet, Labelled, LinearProbe, Protocol, evaluate, evaluate_pairs, noise, pck
from randfeat.probes.tasks.classification import MEASURES
from sklearn.base import BaseEstimator, ClassifierMixin

QUICK = Protocol(draws=100, pcas=(None,), shots=2, shot_draws=4, runs=2)
TASKS = [task for task in MEASURES if task != "attentive"]


def blobs(n, seed, classes=3, spread=0.4, names=("ant", "bee", "cat"), dense=False):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = np.eye(8, dtype=np.float32)[labels] + spread * rng.standard_normal((n, 8)).astype(np.float32)
    x = np.repeat(x[:, :, None, None], 2, axis=2) if dense else x
    paths = np.array([f"{seed}/{i}.png" for i in range(n)])
    return Labelled({"good": x}, np.array(names)[labels], paths)


def both(train=None, test=None, name="ours"):
    return FeatureSet(name, train or blobs(60, 0), test or blobs(45, 1))


def with_groups(part, count):
    return Labelled(part.features, part.labels, part.paths, np.arange(len(part)) // 3 % count)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_leaves_a_whole_record(task, tmp_path):
    from randfeat.probes import Record

    data = both()
    record = evaluate(data, task, QUICK)
    assert Record.load(record.save(tmp_path)) == record
    assert (record.name, record.task) == ("ours", task)
    score = record.scores[record.headline]
    assert 0.5 < score.low <= score.value <= score.high <= 1
    assert score.value == pytest.approx(record.arrays["right"].mean())
    assert score.n == len(record.arrays["paths"]) == len(record.arrays["right"]) == 45
    assert set(record.per_class) == {"ant", "bee", "cat"}
    assert record.settings["test images"] == 45
    assert record.chosen.startswith("good/")
    assert record.seconds > 0
    same = evaluate(data, task, QUICK)
    assert (same.scores, same.search, same.chosen) == (record.scores, record.search, record.chosen)


def test_attentive_reads_maps_and_others_vectors():
    train, test = blobs(360, 0, spread=0.1, dense=True), blobs(45, 1, spread=0.1, dense=True)
    found = evaluate(both(train, test), "attentive", Protocol(draws=100, search=False))
    assert found.scores["accuracy"].value > 0.8
    with pytest.raises(ValueError, match=r"\(good\) has shape \(360, 8, 2, 1\); knn reads vectors"):
        evaluate(both(train, test), "knn", QUICK)
    with pytest.raises(ValueError, match="attentive reads dense maps"):
        evaluate(both(), "attentive", QUICK)


def test_k_20_is_what_knn_says_and_the_choice_is_reported_beside_it():
    data = both()
    record = evaluate(data, "knn", QUICK)
    expected = KNN(20).fit(data.train.features["good"], data.train.labels).predict(data.test.features["good"])
    assert list(record.scores) == ["k=20", "k=10", "chosen"]
    np.testing.assert_array_equal(record.arrays["predicted"], expected)
    assert "good/k=20" in record.search
    assert len(record.search) == 25
    fixed = evaluate(data, "knn", Protocol(draws=100, search=False))
    assert list(fixed.scores) == ["k=20", "k=10"]
    assert fixed.scores["k=20"].value == record.scores["k=20"].value


@pytest.mark.parametrize(
    ("images", "ks", "searched"),
    [
        (600, ["k=20", "k=10", "k=100", "k=200"], {1, 5, 10, 20, 50}),
        (597, ["k=20", "k=10", "k=100"], {1, 5, 10, 20, 50}),
        (57, ["k=10"], {1, 5, 10}),
        (24, ["k=5"], {1, 5}),
        (9, ["k=1"], {1}),
    ],
)
def test_no_k_is_above_the_size_of_the_largest_class(images, ks, searched):
    found = evaluate(both(blobs(images, 0)), "knn", QUICK)
    assert list(found.scores) == [*ks, "chosen"]
    tried = {int(name.split("k=")[1].split("/")[0]) for name in found.search if "/knn " in name}
    assert tried == searched
    assert list(evaluate(both(blobs(images, 0)), "knn", Protocol(draws=100, search=False)).scores) == ks


def test_the_spec_is_chosen_on_train_and_never_on_test():
    """Train says that `a` is better, test the contrary."""
    train, test = blobs(60, 0), blobs(45, 1)
    swapped = [np.random.default_rng(i).standard_normal((n, 8)).astype(np.float32) for i, n in ((2, 60), (3, 45))]
    data = FeatureSet(
        "two",
        Labelled({"b": swapped[0], "a": train.features["good"]}, train.labels, train.paths),
        Labelled({"b": test.features["good"], "a": swapped[1]}, test.labels, test.paths),
    )
    for task in TASKS:
        record = evaluate(data, task, QUICK)
        assert record.chosen.startswith("a/"), task
        assert record.scores[record.headline].value < 0.6, task


class Counting(ClassifierMixin, BaseEstimator):
    """Counts how often it sees test images."""

    seen = 0

    def __init__(self, test_row=None):
        self.test_row = test_row

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        assert not any((row == self.test_row).all() for row in x)
        return self

    def predict(self, x):
        Counting.seen += any((row == self.test_row).all() for row in x)
        return np.repeat(self.classes_[:1], len(x))


def test_test_is_scored_once_and_never_fitted():
    data = both()
    space = {f"{i}": Counting(data.test.features["good"][7]) for i in range(5)}
    Counting.seen = 0
    assert len(evaluate(data, "linear", QUICK, space).search) == 5
    assert Counting.seen == 1


def test_groups_stay_together_and_widen_intervals():
    plain, grouped = both(), both(with_groups(blobs(60, 0), 5), with_groups(blobs(45, 1), 4))
    with pytest.warns(UserWarning, match=r"4 groups are in train and in test \(first: 0\)"):
        record = evaluate(grouped, "linear", QUICK)
    assert record.settings["groups"] == {"train": 5, "test": 4}
    assert record.arrays["groups"].tolist() == grouped.test.groups.tolist()
    assert record.fingerprints["labels"] != evaluate(plain, "linear", QUICK).fingerprints["labels"]
    alone = both(test=with_groups(blobs(45, 1), 1))
    with pytest.warns(UserWarning, match="test has one group"):
        assert "groups" not in evaluate(alone, "knn", QUICK).arrays


def test_not_finite_features_name_their_images():
    data = both()
    data.test.features["good"][[3, 8], 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"\(good, test\) hold NaN.*in 2 of 45 rows.*These are 1/3\.png, 1/8\.png\."):
        evaluate(data, "knn", QUICK)


def test_a_class_only_in_test_counts_as_wrong():
    train = blobs(60, 0)
    rows = train.labels != "bee"
    data = both(Labelled({"good": train.features["good"][rows]}, train.labels[rows], train.paths[rows]))
    for task in ("knn", "linear"):
        with pytest.warns(UserWarning, match=r"15 test images are of classes that train lacks \(first: bee\)"):
            record = evaluate(data, task, QUICK)
        assert record.per_class["bee"] == 0
        assert record.settings["test images of unseen classes"] == 15
    grouped = FeatureSet("ours", with_groups(data.train, 3), with_groups(data.test, 4))
    with (
        pytest.warns(UserWarning, match="groups are in train and in test"),
        pytest.warns(UserWarning, match="split without groups, or by smaller ones"),
    ):
        evaluate(grouped, "knn", QUICK)
    with (
        pytest.warns(UserWarning, match="train lacks"),
        pytest.raises(ValueError, match="classes that train lacks, such as bee"),
    ):
        evaluate(data, "fewshot", QUICK)


def test_copies_across_train_and_test_are_counted():
    test = blobs(45, 1)
    test.features["good"][5] = blobs(60, 0).features["good"][9]
    with pytest.warns(UserWarning, match="1 of 45 test images have exactly the ours features of a train image"):
        assert evaluate(both(test=test), "knn", QUICK).settings["copies of train"] == 1


@pytest.mark.parametrize("task", ["knn", "linear"])
@pytest.mark.parametrize("images", [2, 3])
def test_one_image_of_each_class_is_enough(task, images):
    train = blobs(images, 0, classes=images)
    with pytest.warns(UserWarning, match="nothing is chosen, the first candidate is taken"):
        record = evaluate(both(train, blobs(30, 1, classes=images)), task, QUICK)
    assert record.search == {}
    assert record.scores[record.headline].value > 0.4


@pytest.mark.parametrize("task", TASKS)
def test_one_class_is_an_error(task):
    with pytest.raises(ValueError, match=r"labels hold one class \(ant\)"):
        evaluate(both(blobs(10, 0, classes=1), blobs(10, 1, classes=1)), task, QUICK)


@pytest.mark.parametrize("task", TASKS)
def test_constant_features_are_chance(task):
    constant = [Labelled({"x": np.ones((n, 4), np.float32)}, *_names(n, seed)) for n, seed in ((60, 0), (45, 1))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "45 of 45 test images have exactly")
        record = evaluate(FeatureSet("constant", *constant), task, QUICK)
    assert record.scores[record.headline].value < 0.4


def _names(n, seed):
    part = blobs(n, seed)
    return part.labels, part.paths


@pytest.mark.parametrize("task", TASKS)
def test_chance_is_a_baseline_with_the_same_metrics(task):
    data = both(test=blobs(300, 1))
    chance = evaluate(noise(data), task, QUICK)
    assert chance.is_baseline
    assert chance.scores.keys() == evaluate(data, task, QUICK).scores.keys()
    assert chance.scores[chance.headline].value < 0.45


@pytest.mark.parametrize("recipe", ["mae", "dinov2", "capi"])
def test_published_recipes_train_linear_probes(recipe, monkeypatch):
    from dataclasses import replace

    from randfeat.probes import HeadRecipe, TrainedHead

    short = replace(getattr(HeadRecipe, recipe)(), batch=32, epochs=None, iterations=60, warmup=0.1)
    monkeypatch.setattr(HeadRecipe, recipe, classmethod(lambda cls: short))
    record = evaluate(both(), "linear", Protocol(draws=100, recipe=recipe))
    assert len(record.search) == len(short.pairs)
    assert record.chosen in record.search
    assert record.search[record.chosen] == max(record.search.values())
    rate, decay = (float(word.partition("=")[2]) for word in record.chosen.removeprefix("good/").split())
    data = both()
    alone = TrainedHead(short.only(rate, decay)).fit(data.train.features["good"], data.train.labels)
    np.testing.assert_array_equal(record.arrays["predicted"], alone.predict(data.test.features["good"]))


def test_linear_is_the_best_candidate_fitted_on_all_of_train():
    data = both()
    record = evaluate(data, "linear", QUICK, {"C": LinearProbe(1.0)})
    expected = LinearProbe(1.0).fit(data.train.features["good"], data.train.labels).predict(data.test.features["good"])
    np.testing.assert_array_equal(record.arrays["predicted"], expected)
    np.testing.assert_array_equal(record.arrays["right"], expected == data.test.labels)
    with pytest.raises(ValueError, match="task 'nonsense' is unknown"):
        evaluate(data, "nonsense", QUICK)


def test_pairs_count_alike():
    maps, pairs = right_and_wrong_pairs()
    found = pck(pairs, maps.__getitem__, alphas=(0.1, 0.05))
    record = evaluate_pairs("ours", found, ["1", "2", "3", "4"], 0.1, QUICK)
    assert record.scores["pck@0.1"].value == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert record.per_class == pytest.approx({"cat": 2 / 3, "dog": 0})
    assert record.arrays["paths"].tolist() == ["1", "2", "3"]  # the owls have no points
    assert record.settings["pck@0.1 per point"] == pytest.approx(2 / 6)


def test_retrieval_leaves_out_queries_without_a_match_and_shows_the_nearest():
    test = blobs(31, 1)
    test.labels[5] = "elk"  # alone
    record = evaluate(both(test=Labelled(test.features, test.labels, test.paths)), "retrieval", QUICK)
    assert record.scores["map_at_r"].n == 30
    assert test.paths[5] not in record.arrays["paths"]
    assert record.arrays["gallery"].tolist() == test.paths.tolist()
    near = record.arrays["nearest"]
    assert near.shape == (30, 10)
    right = test.labels[near[:, 0]] == record.arrays["truth"]
    np.testing.assert_array_equal(right, record.arrays["right precision_at_1"])
    assert not any(path in test.paths[row] for path, row in zip(record.arrays["paths"], near, strict=True))


def test_several_runs_are_kept_for_pairing():
    from randfeat.probes import compare

    ours, theirs = both(), both(blobs(60, 0, spread=2.0), blobs(45, 1, spread=2.0), name="theirs")
    for task, runs in (("fewshot", 4), ("cluster", 2)):
        records = [evaluate(one, task, QUICK) for one in (ours, theirs)]
        assert records[0].arrays["runs"].shape == (runs, 45)
        np.testing.assert_allclose(records[0].arrays["runs"].mean(0), records[0].arrays["right"])
        [claim] = compare(records)
        assert claim.difference.value == pytest.approx(
            records[0].scores[records[0].headline].value - records[1].scores[records[1].headline].value
        )
