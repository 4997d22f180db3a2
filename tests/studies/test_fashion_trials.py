"""Trials of Fashion-MNIST: runs read on training images alone."""

from __future__ import annotations

import importlib
import json

import numpy as np
import torch

from randfeat import Pipeline
from randfeat.models import create
from randfeat.tokenizers import PatchTokenizer

SPECS = ("raster/after/query/L-1/mean/mean", "raster/full/query/L-1/grid2/mean")


def module(name):
    return importlib.import_module(f"studies.fashion.{name}")


def written_run(folder, images):
    """A run as `randfeat pretrain` leaves it, of a network that tells images apart."""
    torch.manual_seed(0)
    tokenizer = PatchTokenizer.fit(torch.from_numpy(images[:100]).unsqueeze(1).float() / 255, 16, 4)
    made = create("arpg", grid=(7, 7), vocab_size=16, num_classes=0, embed_dim=16, depth=2, num_heads=2)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    Pipeline(tokenizer, made.eval()).save_pretrained(folder / "model")
    recipe = {"size": {"embed_dim": 16, "depth": 2}, "training": {"steps": 30, "batch_size": 8, "seed": 0}}
    (folder / "run.json").write_text(json.dumps({"settings": {"recipe": recipe}}))
    (folder / "validation.csv").write_text("step,loss,random\n10,2.5,2.5\n20,2.25,2.25\n30,2.3,2.3\n")
    return folder


def test_trials_read_training_images_alone_and_are_kept(tmp_path, capsys):
    rng, y = np.random.default_rng(0), np.arange(400) % 10
    images = (rng.integers(0, 100, (400, 28, 28)) + 15 * y[:, None, None]).astype(np.uint8)
    data = module("images").divide(images, y, tuple("0123456789"), 340, 80, 200)
    trials, units = module("trials"), module("units")
    part = trials.divided(data)
    assert not {*part.test} & {*part.chosen}
    assert {*part.test, *part.chosen} == {*data.chosen}
    assert max(*part.test, *part.train, *part.chosen) < 340  # no test image is read
    run = written_run(tmp_path / "narrow", images)
    place = units.Place(tmp_path / "work", tmp_path / "found")
    trials.measure(run, part, place, SPECS, ["linear", "knn"])
    assert "narrow linear" in capsys.readouterr().out
    trials.measure(run, part, place, SPECS, ["linear", "knn"])
    assert "narrow linear" not in capsys.readouterr().out
    header, row = trials.rows(tmp_path / "found")
    told = dict(zip(header, row, strict=True))
    assert (told["trial"], told["tokens"], told["images seen"]) == ("narrow", "49", "240")
    assert told["nats an image"] == f"{2.25 * 49:.1f}"
    assert told["spec of linear"] in SPECS
    record = json.loads((tmp_path / "found" / "narrow" / "linear.json").read_text("utf-8"))
    assert (record["train"], record["test"]) == (200, 40)
    assert told["linear"].startswith(f"{100 * record['mean']:.1f}")
    assert not told["5-shot"]


def test_hog_of_decoded_images_has_rows_of_its_own(tmp_path):
    rng, y = np.random.default_rng(0), np.arange(200) % 10
    images = (rng.integers(0, 100, (200, 28, 28)) + 15 * y[:, None, None]).astype(np.uint8)
    images[:, :, 14:] //= 2 + y[:, None, None].astype(np.uint8) % 2
    trials, units = module("trials"), module("units")
    data = trials.divided(module("images").divide(images, y, tuple("0123456789"), 180, 40, 120))
    run, place = written_run(tmp_path / "coarse", images), units.Place(tmp_path / "work", tmp_path / "found")
    for one in (None, run):
        trials.measure_hog(one, data, place, ["linear"])
    _, whole, coarse = trials.rows(tmp_path / "found")
    assert whole[:6] == ["HOG", "", "", "", "", ""]
    assert coarse[:6] == ["HOG of coarse decoded", "49", "16", "", "", ""]
    assert whole[6] != coarse[6]  # 16 patches lose what HOG sees
    with torch.no_grad():
        model = Pipeline.from_pretrained(run / "model")
        shown = trials.decoded(model.tokenizer, images[:3])
    assert shown.shape == (3, 28, 28)
    patches = shown.reshape(3, 7, 4, 7, 4).swapaxes(2, 3).reshape(-1, 16)
    assert len(np.unique(patches, axis=0)) <= 16
