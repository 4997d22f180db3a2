"""Wrong arguments of public functions: each is one sentence of a ValueError, an OSError or a RuntimeError."""

import battery
import endings
import numpy as np
import pytest
import torch
from battery import PIXELS
from PIL import Image
from pipelines import make_pipeline, make_sampler
from randfeat.probes import KNN, AttentiveProbe, HeadRecipe, LinearProbe

from randfeat import FeatureSpec, Guidance, Index, Pipeline, Sampling, load, models, timm_models
from randfeat.data.token_store import TokenStore
from randfeat.features.sklearn import FeatureExtractor
from randfeat.features.store import FeatureStore
from randfeat.models import orders
from randfeat.utils import arrays

NAN = float("nan")
IMAGE = Image.fromarray(PIXELS[0])
ALL = np.ones((8, 8), bool)
X = np.random.default_rng(0).normal(size=(12, 4))
Y = np.arange(12) % 3
NAMES = [f"{number}.png" for number in range(12)]
HOLED = np.where(np.eye(12, 4, dtype=bool), NAN, X)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def model():
    return make_sampler()


def says(call, sentence, *given):
    """Check that a call raises an error of one sentence that holds these words, and none of Python's."""
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
        call(*given)
    text = str(caught.value)
    assert sentence in text
    assert "\n" not in text
    assert not endings.RAW.search(text), text


SETTINGS = [
    (lambda: Sampling(steps=True), "got steps=True"),
    (lambda: Sampling(steps=2.5), "got steps=2.5"),
    (lambda: Sampling(temperature=True), "temperature must be above 0, got True"),
    (lambda: Sampling(temperature="hot"), "temperature must be above 0, got hot"),
    (lambda: Sampling(temperature=NAN), "temperature must be above 0, got nan"),
    (lambda: Sampling(top_k=-1), "top_k must be a whole number from 0, got -1"),
    (lambda: Sampling(top_p=None), "top_p must be in (0, 1]"),
    (lambda: Sampling(top_p=NAN), "top_p must be in (0, 1]"),
    (lambda: Sampling(sweeps=1.5), "sweeps must be a whole number from 0, got 1.5"),
    (lambda: Sampling(order=["raster"]), "order is the name of an order mode"),
    (lambda: Sampling(guidance=2), "guidance is an object"),
    (lambda: Guidance(True), "guidance scale must be a finite number, got True"),
    (lambda: Guidance("2"), "guidance scale must be a finite number"),
    (lambda: Guidance(NAN), "guidance scale must be a finite number, got nan"),
    (lambda: FeatureSpec.parse(""), "has 1 parts"),
    (lambda: FeatureSpec.parse("a/b/c/d/e/f/g/h/i"), "has 9 parts"),
    (lambda: FeatureSpec(layers=(True,)), "a layer is a number from 1"),
    (lambda: FeatureSpec(layers=3), "layers of a feature spec are a tuple of numbers"),
    (lambda: FeatureSpec(layers=(NAN,)), "a layer is a number from 1"),
    (lambda: FeatureSpec(layers=()), "reads one layer at least"),
    (lambda: FeatureSpec(label=True), "a label is a class index from 0, got True"),
    (lambda: FeatureSpec(label=1.5), "a label is a class index from 0, got 1.5"),
    (lambda: FeatureSpec(shifts=1.5), "shifts are counted from 1"),
    (lambda: FeatureSpec(shifts=True), "shifts are counted from 1"),
    (lambda: FeatureSpec(orders=""), "order '' is none of"),
    (lambda: FeatureSpec(orders=None), "orders of a feature spec are written as text"),
    (lambda: FeatureSpec(pool=None), "pool of a feature spec are written as text"),
    (lambda: orders.make("spiral", (2, 3), torch.zeros(1, dtype=torch.int64)), "unknown order mode 'spiral'"),
    (lambda: orders.explicit([0, 1, 1, 2, 3, 4], (2, 3)), "not a permutation"),
    (lambda: orders.explicit([0, 1, NAN], (2, 3)), "an order for the grid 2 x 3"),
    (lambda: orders.explicit("raster", (2, 3)), "an order is a list of raster positions"),
    (lambda: models.create("gpt"), "unknown model 'gpt'"),
    (lambda: load(None), "a model is a directory, a file or a name"),
    (lambda: load(3), "a model is a directory, a file or a name"),
    (lambda: load(""), "a model is a directory, a file or a name"),
    (lambda: load("random:"), "a model is a directory, a file or a name"),
]


@pytest.mark.parametrize(("call", "sentence"), SETTINGS, ids=[str(number) for number in range(len(SETTINGS))])
def test_settings(call, sentence):
    says(call, sentence)


OF_A_MODEL = [
    (lambda m: m.features([]), "there are no images: give at least one"),
    (lambda m: m.features(3), "images are PIL images, paths, arrays or tensors"),
    (lambda m: m.features({"image": IMAGE}), "images are PIL images, paths, arrays or tensors"),
    (lambda m: m.features(np.zeros((1, 1, 3, 8, 8))), "got (1, 1, 3, 8, 8)"),
    (lambda m: m.features(torch.full((1, 3, 4, 6), NAN)), "image values must lie in [0, 1]"),
    (lambda m: m.features(torch.full((1, 3, 4, 6), torch.inf)), "image values must lie in [0, 1]"),
    (lambda m: m.features(torch.full((1, 3, 4, 6), 255.0)), "image values must lie in [0, 1]"),
    (lambda m: m.features(np.zeros((1, 3, 4, 6), complex)), "must be real"),
    (lambda m: m.features(torch.zeros(1, 3, 5, 5)), "images must be 4 x 6 pixels"),
    (lambda m: m.features([object()]), "an image is a PIL image, a path, an array or a tensor"),
    (lambda m: m.features([[IMAGE]]), "an image is a PIL image, a path, an array or a tensor"),
    (lambda m: m.features(["nothing.png"]), "nothing.png cannot be read as a picture"),
    (lambda m: m.features([np.zeros((0, 0, 3), np.uint8)]), "no pixels"),
    (lambda m: m.features([IMAGE], batch_size=0), "batch_size must be a whole number from 1, got 0"),
    (lambda m: m.features([IMAGE], batch_size=True), "batch_size must be a whole number from 1, got True"),
    (lambda m: m.features([IMAGE], 3), "a feature spec is one line of text"),
    (lambda m: m.features([IMAGE], on_error="ignore"), "on_error"),
    (lambda m: m.tokens([]), "there are no images: give at least one"),
    (lambda m: m.encode([]), "there are no images: give at least one"),
    (lambda m: m.decode(torch.zeros(1, 6)), "tokens are whole numbers, got torch.float32"),
    (lambda m: m.decode(torch.full((1, 6), 99)), "tokens are from 0 to 6, got 99 to 99"),
    (lambda m: m.decode(torch.full((1, 6), -1)), "tokens are from 0 to 6, got -1 to -1"),
    (lambda m: m.decode(torch.zeros(1, 5, dtype=torch.int64)), "the grid 2 x 3 takes tokens (B, 6)"),
    (lambda m: m.sample([]), "there is nothing to sample"),
    (lambda m: m.sample(3), "labels are a list with one for each image"),
    (lambda m: m.sample([99]), "class 99 is outside 0..2"),
    (lambda m: m.sample([True]), "a class is an index, a name or None, got True"),
    (lambda m: m.sample([1.5]), "a class is an index, a name or None, got 1.5"),
    (lambda m: m.sample([NAN]), "a class is an index, a name or None, got nan"),
    (lambda m: m.sample([0], seed=1.5), "a seed is a whole number, got 1.5"),
    (lambda m: m.sample([0], seed=[1, 2]), "2 seeds for 1 images"),
    (lambda m: m.sample([0], order="spiral"), "an order is a list of raster positions"),
    (lambda m: m.log_prob([IMAGE], [0, 1]), "2 labels for 1 images"),
    (lambda m: m.log_prob([IMAGE], orders=0), "at least one order, got 0"),
    (lambda m: m.log_prob([IMAGE], orders=1.5), "at least one order, got 1.5"),
    (lambda m: m.log_prob([]), "there are no images: give at least one"),
    (lambda m: m.classify([IMAGE], orders=0), "at least one order, got 0"),
    (lambda m: m.classify([IMAGE], classes="cat"), "labels are a list"),
    (lambda m: m.classify([IMAGE], classes=["cat", "cat"]), "classes to choose from are named once each"),
    (lambda m: m.surprisal([]), "there are no images: give at least one"),
    (lambda m: m.inpaint([], ALL), "there are no images: give at least one"),
    (lambda m: m.inpaint(IMAGE, np.full((8, 8), NAN)), "got nan to nan"),
    (lambda m: m.inpaint(IMAGE, np.full((8, 8), np.inf)), "got inf to inf"),
    (lambda m: m.inpaint(IMAGE, np.ones((3, 3), bool)), "mask"),
    (lambda m: m.inpaint(IMAGE, "nothing.png"), "nothing.png cannot be read as a picture"),
    (lambda m: m.inpaint(IMAGE, ALL, samples=True), "samples must be a whole number from 1, got True"),
    (lambda m: m.inpaint(IMAGE, ALL, seed="a"), "a seed is a whole number, got 'a'"),
    (lambda m: m.inpaint(IMAGE, ALL, seed=True), "a seed is a whole number, got True"),
    (lambda m: m.inpaint(IMAGE, ALL, label=[0, 1]), "2 labels for 1 pictures"),
    (lambda m: m.inpaint(IMAGE, ALL, guess=-1), "guess must be a whole number of orders"),
    (lambda m: m.outpaint(IMAGE, size=(2, 2)), "more than the size 2 x 2"),
    (lambda m: m.outpaint(IMAGE, size="9x9"), "a size is width and height"),
    (lambda m: m.outpaint(IMAGE, left=-1), "sides are whole numbers of pixels from 0"),
    (lambda m: m.outpaint([], size=(20, 20)), "there are no images: give at least one"),
    (lambda m: m.variations(IMAGE, keep="half"), "keep must be a share of the tokens"),
    (lambda m: m.variations(IMAGE, keep=NAN), "keep must be a share of the tokens"),
    (lambda m: m.variations([]), "there are no images: give at least one"),
    (lambda m: Pipeline(m.tokenizer, m.generator, ["one"]), "1"),
    (lambda m: m.generator(torch.zeros(1, 6, dtype=torch.int64), None, torch.arange(6.0)[None]), "int64 positions"),
    (lambda m: m.generator(torch.zeros(1, 6).long(), torch.tensor([9]), torch.arange(6)[None]), "label 9 is outside"),
    (lambda m: timm_models.wrap(m, global_pool="sum"), "global_pool must be one of"),
    (lambda m: timm_models.wrap(m, layer=9), "layers are numbered 1 to 2"),
    (lambda m: timm_models.wrap(m, num_classes=-1), "num_classes must be a whole number from 0, got -1"),
    (lambda m: timm_models.wrap(m, num_classes=1.5), "num_classes must be a whole number from 0, got 1.5"),
    (lambda m: timm_models.wrap(m, img_size=7), "the model reads 4 x 6 pixels"),
    (lambda m: timm_models.wrap(m)(torch.zeros(1, 3, 4, 6, dtype=torch.uint8)), "divide by 255"),
    (lambda m: timm_models.wrap(m)(torch.zeros(3, 4, 6)), "expected images (B, 3, 4, 6)"),
]


@pytest.mark.parametrize(("call", "sentence"), OF_A_MODEL, ids=[str(number) for number in range(len(OF_A_MODEL))])
def test_calls_of_a_model(call, sentence, model):
    says(call, sentence, model)


OF_PROBES = [
    (lambda: KNN(1.5).fit(X, Y), "expected a whole number k >= 1"),
    (lambda: KNN(True).fit(X, Y), "expected a whole number k >= 1"),
    (lambda: KNN().fit(HOLED, Y), "features hold NaN or infinity in 4 of 12 rows"),
    (lambda: KNN().fit(X, Y * 0), "labels hold one class"),
    (lambda: KNN(metric="dot").fit(X, Y), "metric 'dot' is unknown"),
    (lambda: KNN().predict(X), "not fitted yet"),
    (lambda: LinearProbe(C=NAN).fit(X, Y), "C=nan: expected a finite number above 0"),
    (lambda: LinearProbe(scaling="big").fit(X, Y), "scaling 'big' is unknown"),
    (lambda: LinearProbe(tol=NAN).fit(X, Y), "tol=nan"),
    (lambda: LinearProbe(tol=-1).fit(X, Y), "tol=-1"),
    (lambda: LinearProbe(max_iter=0).fit(X, Y), "max_iter=0"),
    (lambda: HeadRecipe("adam", epochs=1), "optimizer 'adam' is unknown"),
    (lambda: HeadRecipe(learning_rates=(NAN,), epochs=1), "need one number or more"),
    (lambda: HeadRecipe(learning_rates=(-1.0,), epochs=1), "need one number or more"),
    (lambda: HeadRecipe(weight_decays=(NAN,), epochs=1), "need one number or more"),
    (lambda: HeadRecipe(batch=2.5, epochs=1), "a batch of 2 or more"),
    (lambda: HeadRecipe(epochs=1.5), "at least one epoch"),
    (lambda: HeadRecipe(epochs=1, warmup=NAN), "a share below 1"),
    (lambda: AttentiveProbe(1, NAN, 0.1).fit(np.zeros((12, 4, 2, 2), np.float32), Y), "learning_rate=nan"),
]


@pytest.mark.parametrize(("call", "sentence"), OF_PROBES, ids=[str(number) for number in range(len(OF_PROBES))])
def test_probes(call, sentence):
    says(call, sentence)


def build(place, *given, **how):
    return Index.build(place.root / "new.index", *given, **how)


OF_FILES = [
    (lambda p: build(p, X, ["a"] * 12), "is there twice"),
    (lambda p: build(p, X, ["a"]), "1"),
    (lambda p: build(p, HOLED, NAMES), "not finite"),
    (lambda p: build(p, X, NAMES, index_type="tree"), "tree"),
    (lambda p: build(p, X, NAMES, metric="sideways"), "sideways"),
    (lambda p: build(p, X[0], NAMES[:4]), "(4,)"),
    (lambda p: build(p, [], []), "one at least"),
    (lambda p: Index.open(p["index"]).search(np.zeros((1, 16)), 0), "k must be a whole number from 1, got 0"),
    (lambda p: Index.open(p["index"]).search(np.zeros((1, 16)), True), "k must be a whole number from 1, got True"),
    (lambda p: Index.open(p["index"]).search(np.zeros((1, 3)), 1), "16"),
    (lambda p: Index.open(p["index"]).search(np.full((1, 16), NAN), 1), "not finite"),
    (lambda p: Index.open(p["index"]).remove([999]), "999"),
    (lambda p: Index.open(p["index"]).remove([1.5]), "the id of a row must be a whole number from 0, got 1.5"),
    (lambda p: FeatureStore.open(p["photos"]), "is no feature store"),
    (lambda p: TokenStore.open(p["photos"]), "is no token store"),
    (lambda p: FeatureExtractor(p["model"]).fit_transform([]), "there are no images"),
    (lambda p: make_sampler().save(p["taken"]), "holds something else"),
    (lambda p: make_sampler().save(p["foreign"]), "holds something else"),
    (lambda p: load(p["model"], grid=(0, 0)), "grid"),
    (lambda p: load(p["model"], device="moon"), "there is no device 'moon'"),
    (lambda p: load(f"random:{p['model']}", seed="a"), "seed must be a whole number, got 'a'"),
    (lambda p: make_sampler(num_classes=0).classify([IMAGE]), "without labels"),
    (lambda p: make_pipeline("llamagen", 3).sample([0], order=[5, 4, 3, 2, 1, 0]), "knows one order, raster"),
]


@pytest.mark.parametrize(("call", "sentence"), OF_FILES, ids=[str(number) for number in range(len(OF_FILES))])
def test_files_and_models(call, sentence, place):
    says(call, sentence, place)


@pytest.mark.parametrize("name", ["good_npz", "fortran_npz"])
def test_samples_are_read_in_either_order_of_an_array(name, place):
    np.testing.assert_array_equal(np.stack([*arrays.read_images(place[name])]), PIXELS)


def test_settings_of_numpy_are_saved_as_plain_numbers(tmp_path):
    how = Sampling(steps=np.int64(3), temperature=np.float32(0.5), top_k=np.int32(2), guidance=Guidance(np.float32(2)))
    made = make_sampler()
    Pipeline(made.tokenizer, made.generator, sampling=how).save(tmp_path / "model")
    assert load(tmp_path / "model").sampling == Sampling(3, temperature=0.5, top_k=2, guidance=Guidance(2.0))


def test_rows_in_any_format_get_their_features_and_keep_their_columns(model):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "number": datasets.Value("int64")})
    pictures = [Image.fromarray(pixels) for pixels in PIXELS[:4]]
    rows = datasets.Dataset.from_dict({"image": pictures, "number": [*range(4)]}, features=kinds)
    expected = model.features(pictures)
    for form in (None, "numpy", "torch", "arrow"):
        made = rows.with_format(form).map(model.as_map_fn(), batched=True, batch_size=2).with_format(None)
        assert made.column_names == ["image", "number", "features"]
        np.testing.assert_allclose(np.array(made["features"]), expected, atol=1e-6)
    with pytest.raises(ValueError, match="format pandas"):
        rows.with_format("pandas").map(model.as_map_fn(), batched=True)
