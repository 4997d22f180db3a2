import json
import os

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from randfeat import FeatureSpec, Guidance, Pipeline, Sampling, editing, features, likelihood, load, sampling, weights
from randfeat.models import MODELS
from randfeat.tokenizers import PatchTokenizer

SIZE = (4, 6)  # two by three tokens of two by two pixels
ANY_IMAGES = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def make(name="randar", channels=1, **config):
    fitted_to = torch.rand(6, channels, *SIZE, generator=torch.Generator().manual_seed(1))
    tokenizer = PatchTokenizer.fit(fitted_to, 7, 2)
    return Pipeline(tokenizer, tiny.model(name, (2, 3), **config), ["cat", "dog", "cow"], {"steps": 3})


@pytest.fixture(params=MODELS)
def pipeline(request):
    return make(request.param)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


# what it does -----------------------------------------------------------------------------------------------


def test_pictures_become_tokens_and_pictures_again(pipeline):
    assert pipeline.image_size == SIZE
    tokens = pipeline.encode(ANY_IMAGES)
    assert tokens.shape == (2, 6)
    assert torch.equal(tokens, pipeline.tokenizer.encode(ANY_IMAGES).flatten(1))
    decoded = pipeline.decode(tokens)
    assert decoded.shape == ANY_IMAGES.shape
    assert torch.equal(pipeline.encode(decoded), tokens)
    assert pipeline.encode(Image.new("RGB", (60, 40))).shape == (1, 6)  # pictures are scaled, arrays are not
    with pytest.raises(ValueError, match="images must be 4 x 6 pixels, got 6 x 4"):
        pipeline.encode(ANY_IMAGES.mT)


def test_features_are_those_of_the_tokens(pipeline):
    reading = "raster/echo/token" if pipeline.generator.raster_only else "bidirectional/causal/query"
    text = f"{reading}/L1,L2/none/concat"
    expected = features.read(pipeline.generator, pipeline.encode(ANY_IMAGES), [FeatureSpec.parse(text)])[0]
    actual = pipeline.features(ANY_IMAGES, text)
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.float32
    assert (actual == expected.numpy()).all()
    assert (pipeline.features(ANY_IMAGES, FeatureSpec.parse(text)) == actual).all()


def test_labels_are_indices_names_or_nothing(pipeline):
    assert pipeline.label_indices([0, "cow", None, 2, "cat"]).tolist() == [0, 2, 3, 2, 0]
    how = Sampling(tiny.steps(pipeline.generator, 3), guidance=Guidance(2))
    images = pipeline.sample([1, "dog", None], how, seed=4)
    assert images.shape == (3, 1, *SIZE)
    tokens = sampling.sample(pipeline.generator, torch.tensor([1, 1, 3]), torch.tensor([4, 5, 6]), how)
    assert torch.equal(images, pipeline.decode(tokens))
    assert torch.equal(pipeline.sample(["dog"], how, seed=5), images[1:2])  # image i has the seed `seed + i`


def test_wrong_labels_are_refused(pipeline):
    for label, message in (
        (3, r"class 3 is outside 0\.\.2"),
        (-1, "class -1 is"),
        ("fox", "'fox', expected one of cat, dog"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline.sample([label])
    unlabelled = Pipeline(pipeline.tokenizer, tiny.model("arpg", (2, 3), num_classes=0))
    assert unlabelled.sample([None]).shape == (1, 1, *SIZE)
    with pytest.raises(ValueError, match="this model has no classes: use None"):
        unlabelled.sample([0])


def test_classify_is_the_mean_over_orders(pipeline):
    expected = likelihood.class_log_prob(pipeline.generator, pipeline.encode(ANY_IMAGES), None, 5, seed=2).mean(2)
    assert torch.equal(pipeline.classify(ANY_IMAGES, orders=5, seed=2), expected)
    assert expected.shape == (2, 3)


EDGES = [np.zeros(SIZE, bool), np.ones(SIZE, bool), np.eye(1, 24, 13, dtype=bool).reshape(SIZE)]


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(EDGES) | arrays(bool, SIZE), st.sampled_from([1, 3]))
def test_inpainting_paints_where_it_may(name, mask, channels):
    pipeline = make(name, channels)
    images = torch.rand(2, channels, *SIZE, generator=torch.Generator().manual_seed(3))
    how = Sampling(tiny.steps(pipeline.generator, 2))
    known = ~editing.token_mask(torch.from_numpy(mask), 2).flatten()
    if pipeline.generator.raster_only and (known[1:] & ~known[:-1]).any():
        with pytest.raises(ValueError, match="sees earlier tokens only"):
            pipeline.inpaint(images, mask, sampling=how)
        return
    painted = pipeline.inpaint(images, mask, sampling=how)
    assert torch.equal(painted[:, :, ~mask], images[:, :, ~mask])  # to the bit
    codes = pipeline.tokenizer.codebook.clamp(0, 1)
    assert torch.isin(painted[:, :, mask], codes).all()  # and what is painted comes from the tokenizer
    assert torch.equal(
        pipeline.inpaint(images, torch.from_numpy(mask), ["dog", 1], how)[:, :, ~mask],
        images[:, :, ~mask],
    )


def test_a_full_mask_samples_and_a_label_changes_it(pipeline):
    everywhere, how = np.ones(SIZE, bool), Sampling(tiny.steps(pipeline.generator, 3))
    painted = pipeline.inpaint(ANY_IMAGES, everywhere, ["cat", "cow"], how, seed=1)
    assert torch.equal(painted, pipeline.sample(["cat", "cow"], how, seed=1))
    assert not torch.equal(painted, pipeline.inpaint(ANY_IMAGES, everywhere, None, how, seed=1))


def test_a_mask_of_another_shape_is_refused(pipeline):
    with pytest.raises(ValueError, match=r"the mask must be \(4, 6\) like the image, got \(6, 4\)"):
        pipeline.inpaint(ANY_IMAGES, np.ones((6, 4), bool))


def test_parts_that_do_not_fit_are_refused():
    tokenizer, generator = make().tokenizer, tiny.model("randar", (2, 3))
    with pytest.raises(ValueError, match="the tokenizer has 7 codes, the generator 8"):
        Pipeline(tokenizer, tiny.model("randar", (2, 3), vocab_size=8))
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        Pipeline(tokenizer, generator, ["cat", "dog"])
    assert Pipeline(tokenizer, generator).class_names == ["0", "1", "2"]


# on disk ----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(pipeline, tmp_path):
    pipeline.save(tmp_path / "new" / "model")
    again = load(tmp_path / "new" / "model")
    assert same(again.state_dict(), pipeline.state_dict())
    assert again.generator.config == pipeline.generator.config
    assert again.class_names == pipeline.class_names
    assert again.training_record == {"steps": 3}
    assert not again.training
    assert torch.equal(again.sample(["cat"]), pipeline.sample(["cat"]))
    found = sorted(str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*") if p.is_file())
    files = ("config.json", "model.safetensors")
    assert found == sorted(f"model/{part}{file}" for part in ("", "tokenizer/") for file in files)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_failed_save_leaves_the_old_model_and_no_litter(tmp_path, monkeypatch, fails_at):
    """The disk is full at the first or the second file of weights, or fails to confirm a file."""
    target, calls = tmp_path / "model", []
    old, new = make("randar"), make("randar", seed=1)
    old.save(target)

    def failing(function):
        def call(*args, **kwargs):
            calls.append(function)
            if len(calls) == fails_at:
                raise OSError("no space left on device")
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(weights, "save_file", failing(weights.save_file))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    with pytest.raises(OSError, match="no space left"):
        new.save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert same(load(target).state_dict(), old.state_dict())
    new.save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert same(load(target).state_dict(), new.state_dict())


def edit(directory, change):
    config = json.loads((directory / weights.CONFIG).read_text())
    change(config)
    (directory / weights.CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("generator"), "config.json does not describe a model of randfeat: 'generator'"),
        (lambda c: c.pop("class_names"), "does not describe a model of randfeat: 'class_names'"),
        (lambda c: c["generator"].pop("grid"), "does not describe a model of randfeat: .*grid"),
        (lambda c: c["generator"].update(colour=1), "does not describe a model of randfeat: .*colour"),
        (lambda c: c["generator"].update(name="gan"), "unknown model 'gan'"),
        (lambda c: c["generator"].update(num_heads=3), "num_heads 3"),
        (
            lambda c: c["generator"].update(depth=1),
            "weights of another model: 0 missing .*unexpected .*blocks.1",
        ),
        (lambda c: c["generator"].update(ffn_dim=32), "weights have the wrong shape"),
        (lambda c: c.update(class_names=["cat"]), "1 class names for 3 classes"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path, change, message):
    make().save(tmp_path / "model")
    edit(tmp_path / "model", change)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model")


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, error, says in (
        (tmp_path, FileNotFoundError, "is no model directory: it has no config.json"),
        (tmp_path / "missing", FileNotFoundError, "there is no file or directory .*missing: check the path"),
        (tmp_path / "file", ValueError, "file is no checkpoint: expected a file that ends in .safetensors, .pt, "),
    ):
        with pytest.raises(error, match=says):
            load(path)
    make().save(tmp_path / "model")
    (tmp_path / "model" / "tokenizer" / weights.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer is no model directory: it has no model.safetensors"):
        load(tmp_path / "model")
