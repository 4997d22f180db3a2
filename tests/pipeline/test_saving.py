import copy
import json
import os
import pickle

import pytest
import torch
from pipelines import SIZE, make_pipeline

from randfeat import load, weights
from randfeat.models import MODELS

ANY_IMAGES = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def make(name="randar", channels=1, **config):
    return make_pipeline(name, channels, {"steps": 3}, **config)


@pytest.fixture(params=MODELS)
def pipeline(request):
    return make(request.param)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


# packed weights ------------------------------------------------------------------------------------------------


def test_weights_are_packed_once_and_again_when_they_change(pipeline):
    before = pipeline.sample(["cat"] * 4)
    fast = pipeline.inference_generator()
    assert pipeline.inference_generator() is fast
    for parameter in pipeline.generator.parameters():
        parameter.data.mul_(-2)
    assert pipeline.inference_generator() is not fast
    after = pipeline.sample(["cat"] * 4)
    assert not torch.equal(after, before)
    pipeline._copies._prepacked = None
    assert torch.equal(pipeline.sample(["cat"] * 4), after)
    seen = []
    pipeline.generator.blocks[0].register_forward_hook(lambda *_: seen.append("block"))
    pipeline.sample(["cat"])
    assert seen


def test_a_pipeline_travels_without_its_packed_weights(pipeline):
    expected = pipeline.sample(["cat"])
    # pickled as it is for a spawned worker; models on disk are never pickles
    for again in (pickle.loads(pickle.dumps(pipeline)), copy.deepcopy(pipeline)):
        assert again._copies._prepacked is None
        assert torch.equal(again.sample(["cat"]), expected)
    assert pipeline.state_dict().keys() == copy.deepcopy(pipeline).state_dict().keys()


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

    monkeypatch.setattr(weights.format, "save_file", failing(weights.format.save_file))
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
        (lambda c: c.pop("generator"), "config.json does not describe a model of .*: it has no field 'generator'"),
        (lambda c: c.pop("class_names"), "does not describe a model of randfeat: it has no field 'class_names'"),
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
