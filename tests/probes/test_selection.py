import numpy as np
import pytest
from randfeat.probes import KNN, cross, knn_space, linear_space, refit, select, svm_space
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
    for space in (linear_space(Cs=(0.1, 1)), knn_space(ks=(1, 5)), svm_space(Cs=(1,), widths=(1,))):
        selection = select(cross(features, space), y, np.arange(120) >= 90)
        assert selection.name.startswith("signal/")
        assert selection.score > 0.8
        assert len(selection.scores) == 2 * len(space)


@pytest.mark.parametrize(("space", "size"), [(linear_space, 10), (knn_space, 20), (svm_space, 36)])
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
