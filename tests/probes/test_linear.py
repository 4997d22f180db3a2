import numpy as np
import pytest
from randfeat.probes import RBFSVM, LinearProbe, scaling
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression


def blobs(n=150, d=6, classes=3, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return spread * rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d)), y


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_probabilities_minimise_the_penalised_loss(C):
    x, y = blobs()

    def loss(flat):
        w, b = flat[:18].reshape(6, 3), flat[18:]
        return -C * log_softmax(x @ w + b, axis=1)[np.arange(len(y)), y].sum() + (w**2).sum() / 2

    best = minimize(loss, np.zeros(21), options={"gtol": 1e-5}).x
    expected = np.exp(log_softmax(x @ best[:18].reshape(6, 3) + best[18:], axis=1))
    np.testing.assert_allclose(LinearProbe(C=C).fit(x, y).predict_proba(x), expected, atol=2e-3)


@pytest.mark.parametrize("offset", [0, 100])
def test_single_precision_predicts_as_double(offset):
    x, y = blobs(600, d=32, classes=5, spread=0.3)
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(x[:300], y[:300])
    ours = LinearProbe(C=1.0).fit(x[:300] + offset, y[:300])
    assert ours.converged_
    np.testing.assert_allclose(ours.predict_proba(x[300:] + offset), reference.predict_proba(x[300:]), atol=1e-3)


def test_standard_scaling_does_not_see_units():
    x, y = blobs()
    units = 10.0 ** np.arange(-3, 3)
    a, b = LinearProbe(scaling="standard").fit(x, y), LinearProbe(scaling="standard").fit(x * units, y)
    np.testing.assert_allclose(a.predict_proba(x), b.predict_proba(x * units), atol=1e-3)


def test_non_convergence_is_a_state_and_not_a_warning():
    x, y = blobs()
    stopped = LinearProbe(max_iter=2).fit(x, y)
    assert (stopped.converged_, stopped.n_iter_) == (False, 2)
    finished = LinearProbe().fit(x, y)
    assert finished.converged_
    assert 2 < finished.n_iter_ < 1000


def test_two_classes_have_one_logit_per_image():
    x, y = blobs(classes=2)
    model = LinearProbe(C=0.1, tol=1e-7).fit(x, y)
    assert ((model.decision_function(x) > 0) == (model.predict(x) == 1)).all()
    reference = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(model.decision_function(x), reference.decision_function(x), atol=1e-4)


def test_svm_is_that_of_sklearn_whatever_the_scale():
    from sklearn.svm import SVC

    x, y = blobs(300)
    reference = SVC(C=3, gamma=2 / (x[:200].var() * 6)).fit(x[:200], y[:200])
    for scale in (1e-3, 1.0, 1e3):
        ours = RBFSVM(C=3, relative_gamma=2).fit(scale * x[:200], y[:200])
        np.testing.assert_allclose(
            ours.decision_function(scale * x[200:]), reference.decision_function(x[200:]), atol=1e-6
        )
        assert (ours.predict(scale * x[200:]) == reference.predict(x[200:])).all()


def test_scalings():
    x = np.array([[3.0, 4.0, 1.0], [0.0, 0.0, 1.0], [-3.0, 2.0, 1.0]])
    np.testing.assert_array_equal(scaling("none").fit_transform(x), x)
    standard = scaling("standard").fit_transform(x)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(0), [1, 1, 0])
    np.testing.assert_allclose(scaling("l2").fit_transform(x)[0], np.array([3, 4, 1]) / 26**0.5)
    np.testing.assert_allclose(scaling("center-l2").fit_transform(x)[0], np.array([3, 2, 0]) / 13**0.5)
    whitened = scaling("whitened").fit_transform(x)
    assert whitened.shape == (3, 2)  # what does not vary is no component
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(2), atol=1e-6)
    assert scaling("standard") is not scaling("standard")
    with pytest.raises(ValueError, match="'max' is unknown, expected one of none, standard, l2, center-l2"):
        scaling("max")


def test_more_features_than_images_reach_the_same_optimum():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    x = rng.normal(size=(24, 60)) + labels[:, None]
    wide = LinearProbe(C=0.5, tol=1e-7).fit(x, labels)
    plain = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000).fit(x - x.mean(0), labels)
    new = rng.normal(size=(50, 60)) + 1
    np.testing.assert_allclose(wide.decision_function(new), plain.decision_function(new - x.mean(0)), atol=2e-3)


def sklearn_loss(x, y, C, tol):
    model = LogisticRegression(C=C, tol=tol, max_iter=10_000).fit(x, y)
    penalty = (model.coef_**2).sum() / (2 * C * len(y))
    return -np.log(model.predict_proba(x)[np.arange(len(y)), y]).mean() + penalty


@pytest.mark.parametrize("C", [0.01, 1, 100])
@pytest.mark.parametrize(("n", "d", "classes"), [(300, 20, 5), (40, 90, 4), (200, 10, 2)])
def test_the_loss_is_that_of_sklearn(n, d, classes, C):
    x, y = blobs(n, d, classes, spread=0.4)
    x = (x * np.geomspace(1, 0.01, d)).astype(np.float32)  # some directions vary much more than others
    model = LinearProbe(C=C, tol=1e-6).fit(x, y)
    assert model.converged_
    assert model.loss_ == pytest.approx(sklearn_loss(x.astype(np.float64), y, C, 1e-8), rel=1e-4)


def problem(kind):
    """Centred features (n, d) float32 and labels."""
    classes = {"two classes": 2, "many classes": 40}.get(kind, 4)
    spread = 3.0 if kind == "separable" else 0.4
    x, y = blobs(240, 12, classes, spread=spread)
    if kind == "correlated":
        x = x @ (0.05 * np.eye(12) + np.random.default_rng(1).normal(size=(12, 3)) @ np.ones((3, 12)) / 6)
    if kind == "badly scaled":
        x = x * np.geomspace(30, 0.03, 12)
    return (x - x.mean(0)).astype(np.float32), np.unique(y, return_inverse=True)[1]


@pytest.mark.parametrize("C", [1e-3, 1, 1e3])
@pytest.mark.parametrize(
    "kind", ["separable", "isotropic", "correlated", "badly scaled", "two classes", "many classes"]
)
def test_the_optimum_is_that_of_sklearn_on_problems_of_every_kind(kind, C):
    x, y = problem(kind)
    solver = "newton-cholesky" if C > 1 else "lbfgs"
    reference = LogisticRegression(C=C, tol=1e-10, max_iter=20_000, solver=solver).fit(x.astype(np.float64), y)
    best = (reference.coef_**2).sum() / (2 * C * len(y))
    best -= np.log(reference.predict_proba(x.astype(np.float64))[np.arange(len(y)), y]).mean()
    assert LinearProbe(C=C, tol=1e-8).fit(x, y).loss_ == pytest.approx(best, rel=1e-4)


def test_few_iterations_do_where_directions_vary_unequally():
    x, y = blobs(2000, 40, 8, spread=0.4)
    x = (x - x.mean(0)) * np.geomspace(1, 0.003, 40)
    ours = LinearProbe(C=10).fit(x, y)
    assert ours.converged_
    assert ours.n_iter_ < LogisticRegression(C=10, tol=1e-5, max_iter=5000).fit(x, y).n_iter_[0] / 3


def test_a_warm_start_goes_on_where_the_last_fit_ended():
    x, y = blobs(300, spread=0.3)
    warm = LinearProbe(warm_start=True).fit(x, y)
    cold = warm.n_iter_
    assert warm.fit(x, y).n_iter_ <= 1
    warm.C = 1.1
    assert warm.fit(x, y).n_iter_ < cold
    np.testing.assert_allclose(warm.predict_proba(x), LinearProbe(C=1.1).fit(x, y).predict_proba(x), atol=1e-3)
    assert (warm.fit(x[:, :4], y).predict(x[:, :4]) == LinearProbe(C=1.1).fit(x[:, :4], y).predict(x[:, :4])).all()
    names = np.array(["a", "b", "c"])[y]
    assert set(warm.fit(x[:, :4], names).predict(x[:, :4])) <= {"a", "b", "c"}


def test_blocks_do_not_change_the_fit(monkeypatch):
    x, y = blobs()
    whole = LinearProbe().fit(x, y)
    monkeypatch.setattr("randfeat.probes.classifiers.linear._BLOCK", 100)
    np.testing.assert_allclose(LinearProbe().fit(x, y).predict_proba(x), whole.predict_proba(x), atol=1e-3)


@pytest.mark.parametrize("C", [0, -1, np.inf, np.nan])
def test_no_penalty_is_an_error(C):
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        LinearProbe(C=C).fit(*blobs())
