"""The package itself: light to import, every name reachable, every estimator one by scikit-learn's rules."""

import subprocess
import sys

import numpy as np
import pytest
import randfeat.probes as probes
from randfeat.probes import KNN, RBFSVM, Components, LinearProbe
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator


def test_import_loads_neither_sklearn_nor_torch():
    code = "import sys, randfeat.probes; print({'sklearn', 'torch', 'scipy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_public_name_is_defined_where_the_package_says():
    for name in probes.__all__:
        assert getattr(probes, name).__name__ == name
    assert set(probes.__all__) <= set(dir(probes))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        probes.nonsense  # noqa: B018


@pytest.mark.filterwarnings("default")  # the checks fit on purpose what cannot converge or be compared
@pytest.mark.parametrize(
    "estimator",
    [
        KNN(),
        KNN(metric="euclidean"),
        LinearProbe(),
        LinearProbe(scaling="center-l2"),
        RBFSVM(),
        Components(2),
        Components(2, whiten=True),
    ],
    ids=repr,
)
def test_estimators_follow_the_scikit_learn_contract(estimator: BaseEstimator):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.parametrize("estimator", [KNN(), LinearProbe(), RBFSVM()], ids=repr)
def test_bad_rows_are_named_at_fit_and_at_predict(estimator: BaseEstimator):
    x, y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
    bad = x.copy()
    bad[[2, 7], 1] = np.nan, np.inf
    message = r"NaN or infinity in 2 of 12 rows \(first: 2, 7\)"
    with pytest.raises(ValueError, match=message):
        estimator.fit(bad, y)
    with pytest.raises(ValueError, match=message):
        estimator.fit(x, y).predict(bad)


@pytest.mark.parametrize("estimator", [KNN(), LinearProbe(), RBFSVM()], ids=repr)
def test_one_class_cannot_be_separated(estimator: BaseEstimator):
    with pytest.raises(ValueError, match=r"one class \(cat\)"):
        estimator.fit(np.eye(3), ["cat"] * 3)


@pytest.mark.parametrize("estimator", [KNN(), LinearProbe("unused"), RBFSVM()], ids=["knn", "linear", "svm"])
def test_mismatched_lengths_are_an_error(estimator: BaseEstimator):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator.fit(np.eye(3), [0, 1])


@pytest.mark.parametrize("estimator", [KNN(k=1), LinearProbe(C=100), RBFSVM(C=100)], ids=repr)
def test_strings_are_labels_and_one_image_per_class_is_enough(estimator: BaseEstimator):
    labels = np.array([f"species {i}" for i in range(30)])[::-1]
    assert (estimator.fit(np.eye(30), labels).predict(np.eye(30)) == labels).all()


@pytest.mark.parametrize("estimator", [KNN(), LinearProbe(scaling="standard"), RBFSVM()], ids=repr)
def test_constant_features_tell_nothing_and_break_nothing(estimator: BaseEstimator):
    predicted = estimator.fit(np.ones((6, 2)), [0, 1, 1, 1, 1, 0]).predict(np.ones((4, 2)))
    assert (predicted == 1).all()
