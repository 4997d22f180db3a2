"""scikit-learn's and datasets' view of a model, each against the real library."""

import pickle

import datasets
import numpy as np
import pytest
import timm
import tiny
import torch
from datasets.fingerprint import Hasher
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from randfeat import FeatureExtractor, FeatureSpec, Pipeline, load
from randfeat.data.decode import UnreadableImage
from randfeat.features import sklearn
from randfeat.tokenizers import PatchTokenizer

LAYER_1, LAYER_2 = (f"raster/causal/token/L{layer}/mean/mean" for layer in (1, 2))
LABELS = [0, 1] * 6


def make(name="randar"):
    fitted_to = torch.rand(6, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    return Pipeline(PatchTokenizer.fit(fitted_to, 7, 2), tiny.model(name, (2, 3)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "randar"
    make().save(path)
    return str(path)


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 128 + 127 * label, (20, 30, 3), np.uint8)) for label in LABELS]


@pytest.fixture(scope="module")
def paths(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(len(pictures))]


# scikit-learn ------------------------------------------------------------------------------------------------


def test_paths_become_features(saved, pictures, paths):
    expected = make().features(pictures)
    features = FeatureExtractor(saved, batch_size=5).fit_transform(paths)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
    fitted = FeatureExtractor(make(), LAYER_1).fit()
    assert fitted.spec_ == LAYER_1
    for images in (pictures, paths, np.stack([np.array(picture) for picture in pictures])):
        np.testing.assert_allclose(fitted.transform(images), make().features(pictures, LAYER_1), rtol=1e-5, atol=1e-5)
    assert FeatureExtractor(make(), FeatureSpec.parse(LAYER_2)).fit().spec_ == LAYER_2


def test_timms_models_do_as_well(pictures, tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    for spec, width in ((None, 64), ("L1,L2/mean/concat", 128)):
        made = FeatureExtractor(f"timm:test_vit@{tmp_path / 'vit.pth'}", spec)
        assert made.fit_transform(pictures[:3]).shape == (3, width)
        assert len(made.get_feature_names_out()) == width


def test_a_pipeline_and_a_search_over_specs(pictures, monkeypatch):
    model, opened = make(), []
    open_encoder = sklearn.open_encoder
    monkeypatch.setattr(sklearn, "open_encoder", lambda *args: opened.append(args[1]) or open_encoder(*args))
    pipe = make_pipeline(FeatureExtractor(model), LogisticRegression())
    assert pipe.fit(pictures, LABELS).score(pictures, LABELS) >= 0.5
    names = pipe[:-1].get_feature_names_out()
    assert names.tolist() == [f"featureextractor{i}" for i in range(16)]
    opened.clear()
    specs = [LAYER_1, LAYER_2, "bidirectional/causal/query/L1/mean/concat"]
    search = GridSearchCV(pipe, {"featureextractor__spec": specs}, cv=2).fit(pictures, LABELS)
    assert sorted(opened[:-1]) == sorted([[spec] for spec in specs] * 2)
    assert search.best_params_["featureextractor__spec"] in specs
    assert search.best_estimator_[0].model is model  # no clone copied the weights


def test_memory_spares_what_was_computed(saved, paths, tmp_path, monkeypatch):
    opened, open_encoder = [], sklearn.open_encoder
    monkeypatch.setattr(sklearn, "open_encoder", lambda *args: opened.append(args[1]) or open_encoder(*args))
    pipe = make_pipeline(FeatureExtractor(saved), LogisticRegression(), memory=str(tmp_path))
    grid = {"featureextractor__spec": [LAYER_1, LAYER_2], "logisticregression__C": [0.1, 1, 10]}
    GridSearchCV(pipe, grid, cv=2, refit=False, return_train_score=False).fit(paths, LABELS)
    # two folds of two readings, each opened once to fit, and for a cached one again to read the fold's other half
    assert len(opened) == 4 + 4 * 2


def test_a_pickle_of_a_name_holds_no_weights(saved, pictures):
    fitted = FeatureExtractor(saved, LAYER_1).fit()
    expected, stored = fitted.transform(pictures), pickle.dumps(fitted)
    assert len(stored) < 1000
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.transform(pictures), expected)
    assert again.get_feature_names_out().tolist() == fitted.get_feature_names_out().tolist()


def test_pandas_can_be_asked_for(pictures):
    frame = FeatureExtractor(make()).set_output(transform="pandas").fit_transform(pictures)
    assert frame.shape == (12, 16)
    assert frame.columns[0] == "featureextractor0"


def test_what_it_cannot_do_is_said(saved, pictures, paths):
    for call, kind, message in (
        (lambda: FeatureExtractor(saved).transform(paths), NotFittedError, "is not fitted yet"),
        (lambda: FeatureExtractor(saved).get_feature_names_out(), NotFittedError, "is not fitted yet"),
        (
            lambda: FeatureExtractor(saved, "raster/causal/token/L1/none/mean").fit(paths),
            ValueError,
            "makes maps, and scikit-learn takes vectors: choose another pool than none",
        ),
        (lambda: FeatureExtractor(saved, "raster").fit(), ValueError, "has 1 parts, expected orders/context"),
        (lambda: FeatureExtractor("nowhere/at/all").fit(), FileNotFoundError, "check the path"),
        (lambda: FeatureExtractor(saved, batch_size=0).fit_transform(paths), ValueError, "batch_size must be"),
        (lambda: FeatureExtractor(saved).fit_transform([]), ValueError, "there are no images"),
        (lambda: FeatureExtractor(saved).fit_transform([*paths, "gone.png"]), UnreadableImage, "gone.png cannot be"),
    ):
        with pytest.raises(kind, match=message):
            call()


class OnRows(FeatureExtractor):
    """On pictures made of rows of numbers, which is what scikit-learn's own checks of estimators hand out."""

    def fit(self, X, y=None):
        return super().fit(self._drawn(X, True), y)

    def transform(self, X):
        check_is_fitted(self)
        return np.asarray(super().transform(self._drawn(X, False)))  # which would have become a frame in there

    def _drawn(self, X, reset):
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        pixels = np.stack([np.resize(row, (4, 6, 3)) for row in X])
        return (255 / (1 + np.exp(-pixels))).astype(np.uint8)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


# What checks of scikit-learn are run. Not run: those of predictors, sample weights, sparse matrices and array
# libraries, which a transformer of pictures has none of; and those that want numbers to be validated (`n_features_in_`,
# NaN, complex or one-dimensional X), for X is no matrix and `fit` does not look at it.
OF_THE_INTERFACE = [
    "do_not_raise_errors_in_init_or_set_params",
    "dont_overwrite_parameters",
    "estimator_cloneable",
    "estimator_repr",
    "estimator_tags_renamed",
    "estimators_fit_returns_self",
    "estimators_overwrite_params",
    "estimators_unfitted",
    "fit_check_is_fitted",
    "get_feature_names_out_error",
    "get_params_invariance",
    "mixin_order",
    "no_attributes_set_in_init",
    "parameters_default_constructible",
    "requires_y_none",
    "set_params",
    "transformers_unfitted",
    "valid_tag_types",
]
OF_WHAT_IT_DOES = [
    "dict_unchanged",
    "dtype_object",
    "estimators_dtypes",
    "estimators_pickle",
    "f_contiguous_array_estimator",
    "fit2d_1feature",
    "fit2d_1sample",
    "fit_idempotent",
    "fit_score_takes_y",
    "global_output_transform_pandas",
    "methods_sample_order_invariance",
    "methods_subset_invariance",
    "pipeline_consistency",
    "readonly_memmap_input",
    "set_output_transform",
    "set_output_transform_pandas",
    "transformer_data_not_an_array",
    "transformer_general",
    "transformer_get_feature_names_out",
    "transformer_get_feature_names_out_pandas",
]


# frames to a transformer that was fitted on an array, and the other way round, are what the checks want
@pytest.mark.filterwarnings("ignore:X has feature names", "ignore:X does not have valid feature names")
@pytest.mark.parametrize("check", OF_THE_INTERFACE + OF_WHAT_IT_DOES)
def test_checks_of_scikit_learn(check, saved):
    # one at a time, the features of a picture have the same bits in every batch
    getattr(estimator_checks, f"check_{check}")("OnRows", OnRows(saved, batch_size=1))


def test_a_clone_is_unfitted_and_keeps_its_words(saved):
    made = FeatureExtractor(saved, LAYER_1, 7).fit()
    again = clone(made)
    given = dict(model=saved, spec=LAYER_1, batch_size=7, device="cpu", on_error="raise")
    assert again.get_params() == made.get_params() == given
    with pytest.raises(NotFittedError):
        again.transform([])


# datasets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(pictures):
    kinds = datasets.Features({"picture": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"picture": pictures, "label": LABELS}, features=kinds)


@pytest.mark.parametrize("spec", [str(FeatureSpec()), "bidirectional/causal/query/L1,L2/none/concat"])
def test_datasets_map(dataset, pictures, spec):
    model = make()
    read = dataset.map(model.as_map_fn(spec, image="picture", output="states"), batched=True, batch_size=5)
    assert read.column_names == ["picture", "label", "states"]
    kind = read.features["states"]
    while isinstance(kind, (datasets.Sequence, datasets.List)):
        kind = kind.feature
    assert kind == datasets.Value("float32")
    np.testing.assert_allclose(np.array(read["states"]), model.features(pictures, spec), rtol=1e-4, atol=1e-5)
    assert read["label"][:] == LABELS


def test_datasets_find_what_they_mapped(saved, pictures, dataset, tmp_path):
    """The hash of the function is one of the weights and the reading, and of nothing that changes from run to run."""
    model = load(saved)
    hashed = Hasher.hash(model.as_map_fn())
    model.features(pictures)  # which packs weights
    assert Hasher.hash(model.as_map_fn()) == hashed == Hasher.hash(load(saved).as_map_fn())
    assert Hasher.hash(model.as_map_fn(LAYER_2)) != hashed
    dataset.to_parquet(str(tmp_path / "data.parquet"))

    def mapped():
        data = datasets.Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache"))
        return data.map(load(saved).as_map_fn(image="picture"), batched=True)

    first, files = mapped(), {*tmp_path.rglob("*.arrow")}
    assert mapped()["features"][:] == first["features"][:]
    assert {*tmp_path.rglob("*.arrow")} == files
    with torch.no_grad():
        model.generator.blocks[0].attn.qkv.weight[0, 0] += 1
    assert Hasher.hash(model.as_map_fn()) != hashed


def test_a_map_function_survives_a_pickle(pictures):
    model = make()
    again = pickle.loads(pickle.dumps(model.as_map_fn()))
    np.testing.assert_array_equal(again({"image": pictures})["features"], model.features(pictures))


def test_what_datasets_cannot_map_is_said(dataset):
    with pytest.raises(ValueError, match=r"reads batches of rows: give map\(..., batched=True\)"):
        dataset.map(make().as_map_fn(image="picture"))
    with pytest.raises(ValueError, match="there is no column 'image': name one of picture, label"):
        dataset.map(make().as_map_fn(), batched=True)
    with pytest.raises(ValueError, match="layers are numbered 1 to 2"):
        make().as_map_fn("raster/causal/token/L9/mean/mean")
