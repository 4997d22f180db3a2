"""Models of the package: each name opens everywhere, offline, and says what it is where it is missing."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from randfeat import Pipeline, cli, load, load_tokenizer, open_encoder, weights
from randfeat.data.builtin import load_fashion_part
from randfeat.data.sources.idx import FASHION
from randfeat.tokenizers import PatchTokenizer
from randfeat.weights import zoo

IMAGES = load_fashion_part().images[:3]
SHARING = ("fashion-arpg-free", "fashion-randar-free")  # one tokenizer; the others were trained on tokens of another


@pytest.fixture(params=zoo.NAMES)
def name(request):
    return request.param


@pytest.fixture
def labelled(name):
    return not name.endswith("-free")


@pytest.fixture
def offline(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a model of the package is not downloaded")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)


def test_a_name_opens_its_model(name, labelled):
    model = load(name)
    assert (model.generator.grid, model.tokenizer.stride, model.tokenizer.channels) == ((7, 7), 4, 1)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert model.class_names == (list(FASHION) if labelled else [])
    assert model.generator.num_classes == (10 if labelled else 0)
    features = model.features(IMAGES)
    assert features.shape[0] == len(IMAGES)
    assert np.isfinite(features).all()
    samples = model.sample(["Bag", 3, None] if labelled else [None])
    assert samples.shape == (3 if labelled else 1, 1, 28, 28)
    assert 0 <= samples.min() <= samples.max() <= 1
    assert torch.isfinite(model.log_prob(IMAGES, orders=2).mean).all()
    assert Pipeline.from_pretrained(name, dtype=torch.bfloat16).generator.dtype == torch.bfloat16


def test_likelihood_chooses_among_the_classes(name, labelled):
    if labelled:
        found = load(name).classify(IMAGES, orders=1)
        assert found.names == list(FASHION)
        assert found.log_prob.shape == (3, 10)
    else:
        with pytest.raises(ValueError, match="trained without labels: it cannot classify"):
            load(name).classify(IMAGES, orders=1)


def test_an_encoder_and_a_tokenizer_open_by_the_same_name(name):
    model, encoder = load(name), open_encoder(name, ["raster/causal/query/L-1/grid2/mean"])
    tokens = load_tokenizer(name).encode(torch.from_numpy(IMAGES).unsqueeze(1) / 255)
    assert torch.equal(tokens.flatten(1), model.encode(IMAGES))
    (features,) = encoder.encode(torch.from_numpy(IMAGES).unsqueeze(-1))
    assert features.shape[0] == 3


def test_its_own_spec_is_read_where_none_is_given(name, capsys):
    spec = "raster/after/query/L-1/grid4/mean"
    model = load(name)
    resolved = str(model.resolve_spec(spec))
    expected = model.features(IMAGES, spec)
    assert expected.shape == (3, 16 * 96)
    assert np.array_equal(model.features(IMAGES), expected)
    assert open_encoder(name).specs == open_encoder(f"random:{name}").specs == (resolved,)
    model.save("saved")
    assert np.array_equal(load("saved").features(IMAGES), expected)
    for source in (name, "saved"):
        assert cli.main(["info", source]) == 0
        assert [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("features  ")] == [
            ["features", spec]
        ]
    other = model.features(IMAGES, "raster/full/query/L-1/mean/mean")
    assert other.shape == (3, 96)


def test_a_config_without_a_spec_has_that_of_its_class_and_a_wrong_one_is_refused():
    load("fashion-arpg-free").save("saved")
    file = Path("saved/config.json")
    config = json.loads(file.read_text())
    del config["features"]
    file.write_text(json.dumps(config))
    assert load("saved").features(IMAGES).shape == (3, 96)
    load("saved").save("again")
    assert "features" not in json.loads(Path("again/config.json").read_text())
    for wrong, said in (("raster/full/query/L9/mean/mean", "layers are numbered 1 to 3"), ("raster", "has 1 parts")):
        file.write_text(json.dumps(config | {"features": wrong}))
        with pytest.raises(ValueError, match=f"saved/config.json does not describe a model of randfeat: .*{said}"):
            load("saved")


def test_half_precision_on_disk_and_one_fingerprint(name, tmp_path):
    folder = zoo.directory(name)
    assert {value.dtype for value in load_file(folder / weights.WEIGHTS).values()} == {torch.float16}
    own = folder / weights.TOKENIZER
    assert zoo.tokenizer_folder(folder) == (own if own.exists() else folder.parent / weights.TOKENIZER)
    codes = load_file(zoo.tokenizer_folder(folder) / weights.WEIGHTS)
    assert {value.dtype for value in codes.values()} == {torch.float32}
    first, again = load(name), load(folder)
    first.save_pretrained(tmp_path / "half", torch.float16)
    first.save_pretrained(tmp_path / "whole")
    found = [one.record()["weights"] for one in (first, again, load(tmp_path / "half"), load(tmp_path / "whole"))]
    assert len(set(found)) == 1
    assert (tmp_path / "half" / weights.WEIGHTS).read_bytes() == (folder / weights.WEIGHTS).read_bytes()


def test_a_card_says_what_it_is(name):
    card = huggingface_hub.ModelCard.load(zoo.directory(name) / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "randfeat")
    assert f'randfeat.load("{name}")' in card.text
    for section in ("Data", "Training", "Limits", "Licence"):
        assert f"## {section}\n" in card.text


def test_commands_take_the_name(tmp_path, capsys):
    flags = ["--classes", "Bag", "Coat", "--count", "2", "--out", "made"]
    assert cli.main(["sample", "fashion-arpg", *flags]) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "made").rglob("*.png"))) >= 2


def test_a_folder_of_the_name_goes_before_it(name):
    Pipeline(PatchTokenizer(7, 2, 1), tiny.model("randar", (2, 3))).save(name)
    assert load(name).generator.grid == (2, 3)


def test_a_model_that_is_missing_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    others = [one for one in zoo.NAMES if one != name]
    for one in others:
        (tmp_path / "package" / one).mkdir(parents=True)
        (tmp_path / "package" / one / weights.CONFIG).touch()
    monkeypatch.setattr(zoo.resources, "files", lambda package: tmp_path / "package")
    assert zoo.installed() == others
    message = rf"without the model {name} \(it has {', '.join(others)}, of {', '.join(zoo.NAMES)}\): install it again"
    with pytest.raises(FileNotFoundError, match=message):
        load(name)
    assert cli.main(["info", name]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(zoo.resources, "files", lambda package: tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=rf"without the model {name} \(it has no model of its zoo, of fashion"):
        load_tokenizer(name)


def test_a_tokenizer_of_several_is_there_once_and_a_saved_model_has_its_own(name, tmp_path, capsys):
    assert (zoo.directory(name) / weights.TOKENIZER).exists() == (name not in SHARING)
    model = load(name)
    model.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / weights.TOKENIZER / weights.WEIGHTS).is_file()
    tokens = [one.encode(IMAGES) for one in (model, load(tmp_path / "mine"), load(zoo.directory(name)))]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    assert cli.main(["info", name]) == 0
    assert "name patch, vocab_size 512, patch 4" in capsys.readouterr().out


@pytest.mark.parametrize("name", SHARING)
def test_a_shared_tokenizer_that_is_missing_is_one_sentence(name, tmp_path, monkeypatch):
    shutil.copytree(zoo.directory(name), tmp_path / "package" / name)
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path / "package")
    with pytest.raises(FileNotFoundError, match="package has no folder tokenizer: copy the whole directory again"):
        load(name)


def test_an_unknown_name_lists_them():
    with pytest.raises(ValueError, match=f"the short names are {', '.join(zoo.NAMES)}, .*: did you mean fashion-arpg?"):
        load("fashion_arpgg")
