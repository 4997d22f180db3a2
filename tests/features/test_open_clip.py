"""Text-image models of open_clip as encoders: the numbers of open_clip itself, in every form of a name."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import open_clip
import pytest
import text_image
import torch
from PIL import Image

from randfeat import load, open_encoder
from randfeat.features import open_clip_encoder
from randfeat.index.reader import absolute

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 70 - 30 * seed, 3), np.uint8)) for seed in (0, 1)
]
TEXTS = ["a red shoe", "A dog, on the beach!", "zebra"]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    return text_image.save(tmp_path, monkeypatch)


def test_pictures_and_texts_are_those_of_open_clip(saved):
    model, file, directory = saved
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    with torch.no_grad():
        pictures = model.encode_image(torch.stack([transform(one) for one in PICTURES]), normalize=True).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(text_image.NAME)(TEXTS), normalize=True).numpy()
    for name in (file, directory):
        encoder = open_encoder(name)
        assert (encoder.name, encoder.specs) == (name, ("embedding",))
        np.testing.assert_array_equal(encoder.features(PICTURES)[0], pictures)
        np.testing.assert_array_equal(encoder.encode_texts(TEXTS), texts)
        prepare = pickle.loads(pickle.dumps(encoder.prepare))  # as it goes to other processes, without weights
        assert len(pickle.dumps(encoder.prepare)) < 10_000
        batch = torch.from_numpy(np.stack([prepare(one) for one in PICTURES]))
        np.testing.assert_array_equal(encoder.encode(batch)[0], pictures)
    assert pictures.shape[1] == texts.shape[1] == 24
    assert len(np.unique(texts.round(4), axis=0)) == 3


def test_the_record_is_what_decides_the_numbers(saved, tmp_path, monkeypatch):
    _, file, directory = saved
    record = open_encoder(file).record()
    assert json.loads(json.dumps(record)) == record == open_encoder(directory).record()
    assert str(tmp_path) not in json.dumps(record)
    (tmp_path / "other").mkdir()
    other = open_encoder(text_image.save(tmp_path / "other", monkeypatch, seed=1)[1]).record()
    assert {name for name in record if record[name] != other[name]} == {"weights"}
    half = open_encoder(file, dtype=torch.bfloat16)
    assert half.record()["dtype"] == "bfloat16"
    np.testing.assert_allclose(half.encode_texts(TEXTS), open_encoder(file).encode_texts(TEXTS), atol=0.03)


def test_a_directory_may_have_its_own_preprocessing(saved, tmp_path):
    config = tmp_path / "clip" / "open_clip_config.json"
    settings = json.loads(config.read_text())
    settings["preprocess_cfg"] |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"}
    config.write_text(json.dumps(settings))
    encoder = open_encoder(saved[2])
    assert "resize_mode squash" in encoder.record()["preprocessing"]
    assert not np.allclose(encoder.features(PICTURES)[0], open_encoder(saved[1]).features(PICTURES)[0])


def test_the_tag_of_a_file_decides_its_preprocessing_and_activation(saved, monkeypatch):
    path = saved[1].partition("@")[2]
    tags = {
        "grey": {"hf_hub": "somebody/clip/", "mean": (0.5,) * 3, "std": (0.5,) * 3, "quick_gelu": True},
        "plain": {"hf_hub": "somebody/other/", "mean": (0.1,) * 3, "std": (0.2,) * 3},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, text_image.NAME, tags)
    with pytest.raises(ValueError, match=r"differ in their preprocessing, .*ViT-tiny/TAG@FILE, one of grey, plain"):
        open_encoder(saved[1])
    grey = open_encoder(f"open_clip:{text_image.NAME}/grey@{path}")
    assert "mean (0.5, 0.5, 0.5)" in grey.record()["preprocessing"]
    assert grey.record()["config"]["quick_gelu"]
    plain = open_encoder(f"open_clip:{text_image.NAME}/plain@{path}")
    assert not np.allclose(grey.encode_texts(TEXTS), plain.encode_texts(TEXTS), atol=1e-4)  # another activation
    del tags["plain"]  # the tags that there are agree
    assert open_encoder(saved[1]).record()["preprocessing"] == grey.record()["preprocessing"]


def test_published_weights_come_from_the_hub(saved, hub, monkeypatch):
    tags = {"grey": {"hf_hub": "somebody/clip/"}, "elsewhere": {"url": "https://example.org/x.pt"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, text_image.NAME, tags)
    hub.publish("somebody/clip", "open_clip_pytorch_model.bin", saved[0].state_dict())
    encoder = open_encoder(f"open_clip:{text_image.NAME}/grey")
    np.testing.assert_array_equal(encoder.features(PICTURES)[0], open_encoder(saved[2]).features(PICTURES)[0])
    with pytest.raises(
        ValueError, match=r"not on the hub: download https://example.org/x.pt, and give .*elsewhere@FILE"
    ):
        open_encoder(f"open_clip:{text_image.NAME}/elsewhere")


def test_random_weights(saved):
    names = (f"random:{saved[1]}", f"random:open_clip:{text_image.NAME}", f"random:{saved[2]}")
    first, *same = (open_encoder(name).features(PICTURES)[0] for name in names)
    for others in same:
        np.testing.assert_array_equal(first, others)
    assert not np.allclose(first, open_encoder(names[0], seed=1).features(PICTURES)[0])
    assert not np.allclose(first, open_encoder(saved[1]).features(PICTURES)[0])


def test_names_are_kept_with_absolute_paths(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = "clip/open_clip_pytorch_model.bin"
    assert absolute(f"open_clip:{text_image.NAME}@{file}") == f"open_clip:{text_image.NAME}@{tmp_path / file}"
    assert absolute("random:open_clip:clip") == f"random:open_clip:{tmp_path / 'clip'}"
    assert absolute(f"timm:test_vit@{file}") == f"timm:test_vit@{tmp_path / file}"
    assert absolute("clip") == str(tmp_path / "clip")
    assert absolute("timm:resnet18") == "timm:resnet18"


def test_what_is_wrong_is_one_sentence(saved, tmp_path):
    model, file, directory = saved
    encoder = open_encoder(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "text.bin").write_bytes(b"no weights")
    torch.save(
        {name: value for name, value in model.state_dict().items() if name != "ln_final.bias"}, tmp_path / "part.pt"
    )
    for call, message in (
        (lambda: open_encoder("open_clip:ViT-B-32"), r"says no weights: give those of a file, open_clip:ViT-B-32@FILE"),
        (lambda: open_encoder("open_clip:ViT-B-23@x"), r"no model 'ViT-B-23', .* did you mean ViT-B-32"),
        (lambda: open_encoder("open_clip:ViT-tiny@nowhere.pt"), "there is no file nowhere.pt: check the path"),
        (
            lambda: open_encoder("open_clip:ViT-B-32/laion2b@x"),
            "no weights 'laion2b' of ViT-B-32: did you mean laion2b_",
        ),
        (lambda: open_encoder("open_clip:ViT-tiny/x@x"), "no weights 'x' of ViT-tiny: it has none"),
        (
            lambda: open_encoder(f"open_clip:ViT-tiny@{tmp_path / 'text.bin'}"),
            r"text.bin, weights of ViT-tiny, cannot be",
        ),
        (lambda: open_encoder(f"open_clip:ViT-tiny@{tmp_path / 'part.pt'}"), r'Missing key.*"ln_final.bias"'),
        (
            lambda: open_encoder(f"open_clip:{empty}"),
            r"empty is no model of open_clip, it has no open_clip_config.json",
        ),
        (lambda: open_encoder(file, ["pooled"]), "has the one feature spec embedding, .* leave pooled out"),
        (lambda: open_encoder(file, grid=(2, 2)), "is a model of open_clip, which takes no grid: leave it out"),
        (lambda: encoder.encode_texts(["a", " "]), "a text is empty"),
        (
            lambda: encoder.encode_texts(["word " * 11]),
            r"reads 12 tokens of a text, and 'word .*' has more: shorten it",
        ),
        (lambda: encoder.dense(), "has one vector of a picture and no map"),
        (
            lambda: open_encoder("random:timm:test_vit").encode_texts(["a"]),
            r"reads pictures and no texts: .*open_clip:NAME",
        ),
        (lambda: load(file), "no file or directory"),
    ):
        with pytest.raises((ValueError, OSError), match=message) as error:
            call()
        assert "\n" not in str(error.value)
    assert encoder.encode_texts(["word " * 10]).shape == (1, 24)  # with the marks of beginning and end
    (tmp_path / "clip" / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"the model in .*clip cannot be opened by open_clip"):
        open_encoder(directory)


def test_packages_that_are_not_there(saved, monkeypatch):
    config = {"text_cfg": {"hf_tokenizer_name": "somebody/words"}}
    monkeypatch.setattr(open_clip_encoder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="texts of ViT-B-16-SigLIP need the package transformers: pip install"):
        open_clip_encoder._open_tokenizer("ViT-B-16-SigLIP", config)
    with pytest.raises(RuntimeError, match="need the package transformers: pip install"):
        open_encoder("random:open_clip:roberta-ViT-B-32")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.delitem(sys.modules, "randfeat.features.open_clip_encoder")
    with pytest.raises(RuntimeError, match=r"models of open_clip need its package: pip install 'randfeat\[text\]'"):
        open_encoder(saved[1])
