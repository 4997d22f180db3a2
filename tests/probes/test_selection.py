import numpy as np
import pytest
from randfeat.probes import (
    KNN,
    Components,
    LinearProbe,
    Selection,
    bootstrap,
    cross,
    folds,
    knn_space,
    linear_space,
    rank_features,
    refit,
    scaling,
    select,
    strongest,
    svm_space,
)
from sklearn.base import BaseEstimator, ClassifierMixin, clone

SEEN: list[set[int]] = []


class Spy(ClassifierMixin, BaseEstimator):
    """Notes which rows it was fitted on (column 0 is the row number) and predicts one class."""

    def __init__(self, answer=0):
        self.answer = answer

    def fit(self, x, y):
        SEEN.append(set(x[:, 0].astype(int)))
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.full(len(x), self.answer)


@pytest.fixture
def rows():
    SEEN.clear()
    x = np.arange(10.0)[:, None]
    held_out = np.isin(np.arange(10), [0, 3, 4, 9])
    return x, np.array([1, 0, 0, 1, 2, 0, 0, 0, 0, 1]), held_out


def test_fits_never_see_held_out_rows_and_scores_see_nothing_else(rows):
    x, y, held_out = rows
    selection = select({"zero": (Spy(0), x), "one": (Spy(1), x), "two": (Spy(2), x)}, y, held_out)
    assert [{1, 2, 5, 6, 7, 8}] * 3 == SEEN
    assert selection.scores == {"zero": 0.0, "one": 0.75, "two": 0.25}
    assert (selection.name, selection.score) == ("one", 0.75)


def test_refit_sees_all_of_train_and_leaves_the_candidate_unfitted(rows):
    x, y, _ = rows
    candidates = {"one": (Spy(1), x)}
    model = refit(candidates, "one", y)
    assert [set(range(10))] == SEEN
    assert (model.predict(x) == 1).all()
    assert not hasattr(candidates["one"][0], "classes_")


def test_the_first_of_equals_wins(rows):
    x, y, held_out = rows
    for order in (["a", "b"], ["b", "a"]):
        assert select({name: (Spy(1), x) for name in order}, y, held_out).name == order[0]


def test_the_informative_feature_is_chosen():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    features = {
        "noise": rng.normal(size=(120, 8)),
        "signal": np.eye(3)[y] + rng.normal(0, 0.3, size=(120, 3)),
    }
    for space in (linear_space(Cs=(0.1, 1)), knn_space(ks=(1, 5)), svm_space(Cs=(1,), relative_gammas=(1,))):
        selection = select(cross(features, space), y, np.arange(120) >= 90)
        assert selection.name.startswith("signal/")
        assert selection.score > 0.8
        assert len(selection.scores) == 2 * len(space)


@pytest.mark.parametrize(("space", "size"), [(linear_space, 10), (knn_space, 30), (svm_space, 45)])
def test_spaces_hold_distinct_estimators_with_distinct_names(space, size):
    estimators = space()
    assert len(estimators) == size
    assert len({repr(e.get_params()) for e in estimators.values()}) == size
    for estimator in list(estimators.values())[:: size // 4]:
        clone(estimator).fit(np.eye(4), [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([0, 1], "expected bool"),
        (np.ones(3, dtype=bool), r"expected bool \(10,\)"),
        (np.ones(10, dtype=bool), "marks 10 of 10"),
        (np.zeros(10, dtype=bool), "marks 0 of 10"),
    ],
)
def test_bad_held_out(rows, held_out, message):
    x, y, _ = rows
    with pytest.raises(ValueError, match=message):
        select({"knn": (KNN(), x)}, y, held_out)


def test_bad_candidates(rows):
    x, y, held_out = rows
    with pytest.raises(ValueError, match="'short' has 5 rows for 10 labels"):
        select({"short": (KNN(), x[:5])}, y, held_out)
    with pytest.raises(ValueError, match="candidates are empty"):
        select({}, y, held_out)


def test_every_fold_is_held_out_in_turn_and_every_image_counts_once(rows):
    x, y, _ = rows
    fold = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    selection = select({"zero": (Spy(0), x), "one": (Spy(1), x)}, y, fold)
    assert SEEN[:3] == [{6, 7, 8, 9}, {0, 1, 2, 3, 4, 5, 8, 9}, set(range(8))]
    assert selection.scores == {"zero": pytest.approx((y == 0).mean()), "one": pytest.approx((y == 1).mean())}


def test_folds_that_are_one_are_refused(rows):
    x, y, _ = rows
    with pytest.raises(ValueError, match="all images in one fold"):
        select({"knn": (KNN(), x)}, y, np.zeros(10, dtype=int))


def test_the_strongest_baseline_is_the_best_on_train():
    scores = {"pixels": 0.5, "hog": 0.7, "pca": 0.7}
    assert strongest({name: Selection("knn", s, {}) for name, s in scores.items()}) == "hog"
    with pytest.raises(ValueError, match="selections are empty"):
        strongest({})


def test_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 8)) * np.arange(1, 9)
    made = Components(3).fit(x).transform(x)
    _, _, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(made), np.abs((x - x.mean(0)) @ axes[:3].T), atol=1e-10)


def test_components_are_no_more_than_the_data_have():
    x = np.random.default_rng(0).normal(size=(5, 40))
    assert Components(64).fit(x).transform(x).shape == (5, 5)
    with pytest.raises(ValueError, match="count=0"):
        Components(0).fit(x)


def test_whitened_components_have_variance_one_and_no_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * (1, 10, 100)
    flat = np.concatenate((x, x @ rng.normal(size=(3, 5))), 1).astype(np.float32)  # rank 3, but for rounding
    made = Components(8, whiten=True).fit(flat).transform(flat)
    assert made.shape == (50, 3)
    np.testing.assert_allclose(np.cov(made.T), np.eye(3), atol=1e-4)


def test_a_space_with_components_reduces_after_scaling():
    space = linear_space(scalings=("standard",), Cs=(1,), pcas=(None, 2))
    assert list(space) == ["linear standard C=1", "linear standard pca=2 C=1"]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)) * 10.0 ** np.arange(6), np.arange(40) % 2
    reduced = Components(2).fit_transform(scaling("standard").fit_transform(x))
    expected = LinearProbe(C=1).fit(reduced, y).predict_proba(reduced)
    np.testing.assert_allclose(space["linear standard pca=2 C=1"].fit(x, y).predict_proba(x), expected, atol=1e-6)
    whitened = knn_space(ks=(1,), metrics=("euclidean",), scalings=("whitened",), pcas=(2,))[
        "knn euclidean whitened pca=2 k=1"
    ]
    first = Components(2, whiten=True).fit_transform(x)
    np.testing.assert_allclose(whitened.fit(x, y)[:-1].transform(x), first, atol=1e-6)


def test_bad_rows_are_named_whatever_the_scaling(rows):
    x, y, held_out = rows
    bad = x.copy()
    bad[7] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of 10 rows \(first: 7\)"):
        select(cross({"f": bad}, knn_space(scalings=("l2",))), y, held_out)


def test_odd_data_work():
    """Constant features, a class that is only held out, and labels that are strings."""
    x, y = np.ones((12, 3)), np.array(list("aabbaabbaabb"))
    for space in (linear_space(pcas=(None, 2)), knn_space(pcas=(None, 2)), svm_space(pcas=(None, 2))):
        assert 0 <= select(cross({"f": x}, space), y, folds(y, count=3)).score <= 1
    y[0] = "c"
    assert select({"knn": (KNN(), x)}, y, np.arange(12) < 4).score < 1


def two_features(n=120, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    good = rng.standard_normal((n, 6)).astype(np.float32)
    good[:, :3] += 2 * np.eye(3, dtype=np.float32)[labels]
    return {"weak": good + 2 * rng.standard_normal((n, 6)).astype(np.float32), "good": good}, labels


def test_every_image_is_scored_once_by_a_probe_that_has_not_seen_its_fold():
    features, labels = two_features()
    groups = np.arange(len(labels)) // 10
    ranking = rank_features(features.items(), labels, [KNN(3)], groups, count=4, seed=1)
    fold = folds(labels, groups, 4, 1)
    for name, x in features.items():
        for image in range(len(labels)):
            others = fold != fold[image]
            guess = clone(KNN(3)).fit(x[others], labels[others]).predict(x[image : image + 1])
            assert ranking.right[name][image] == (guess[0] == labels[image])
    assert ranking.best == "good"
    assert ranking.scores["good"] == ranking.right["good"].mean() > ranking.scores["weak"]
    assert ranking.intervals(groups, 200, 3)["weak"] == bootstrap(ranking.right["weak"], groups, 200, 3)


def test_of_several_probes_each_feature_has_its_best():
    features, labels = two_features()
    probes = [LinearProbe(1e-6), LinearProbe(1.0)]
    one_by_one = [rank_features(features.items(), labels, [probe]).scores for probe in probes]
    both = rank_features(features.items(), labels, probes).scores
    assert both == {name: max(scores[name] for scores in one_by_one) for name in features}


def test_features_are_taken_one_after_the_other():
    features, labels = two_features()
    log = []

    def each():
        for name, x in features.items():
            log.append(name)
            yield name, x

    rank_features(each(), labels, [KNN(1)], tick=lambda: log.append("done"))
    assert log == ["weak", "done", "good", "done"]


def test_of_equal_features_the_first_is_best_and_odd_ones_are_refused():
    features, labels = two_features()
    same = [("b", features["good"]), ("a", features["good"])]
    assert rank_features(same, labels, [KNN(1)]).best == "b"
    with pytest.raises(ValueError, match="features are empty"):
        rank_features([], labels, [KNN(1)])
    broken = features["good"].copy()
    broken[7, 0] = np.nan
    with pytest.raises(ValueError, match="broken hold NaN or infinity in 1 of 120 rows"):
        rank_features([("broken", broken)], labels, [KNN(1)])
