"""Samples and inpaintings of small photographs: continuous with a learned tokenizer, a mosaic with patches?

randfeat make photographs --size 64 -o photographs
python -m studies.tokenizers.photographs crops photographs -o crops        # 600 to train on, and the test images
python -m studies.tokenizers.photographs classes photographs -o classes    # half of the photographs, and three others
... the trainings that docs/results/tokenizers.md lists, and `randfeat tokenizer evaluate` of both tokenizers ...
python -m studies.tokenizers.photographs measure crops/test learned/model patches/model
python -m studies.tokenizers.tables docs                               # the table of both
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from randfeat.probes import LinearProbe, PatchCounts, bootstrap, border_ratio, colour_histogram
from torch import Tensor

import randfeat
from randfeat import Framing, Guidance, Sampling, cli
from randfeat.data.images import to_pil
from randfeat.data.sources import open_source
from randfeat.pipeline.pipeline import Pipeline
from randfeat.utils import atomic, drawing

from .__main__ import FOUND

TRAINED = 600  # crops to train on
OTHERS = (3, 11, 13)  # photographs, by their place in the sorted names, that a model of every second one has not seen
JUDGE_C = 0.01  # inverse penalty of the classifier that names samples
COUNT, SHOWN = 144, 12  # samples and inpaintings of a model, and those on the sheet
SAMPLING = Sampling(steps=32, guidance=Guidance(1.5))
STEP = 8  # pixels of a token's side
BOX = (16, 16, 48, 48)  # what is painted: left, top, right, lower
AROUND = slice(8, 56)  # pixels whose gradients are compared: the box and a token on each side
PART, RECORD, SHEET = "photographs", "photographs.json", "photographs.png"
RECOGNISED = "recognised.json"
MODELS, REAL = ("learned", "patches"), "real images"


def crops(data: Path, out: Path) -> None:
    """Write `TRAINED` of the training crops that `randfeat make photographs` made, and its test crops, by class."""
    rows = _rows(data)
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:TRAINED])
    with atomic.replace_directory(out, lambda _: False) as made:
        for part, taken in (("train", [train[i] for i in chosen]), ("test", test)):
            _copy(taken, data, made / part)


def classes(data: Path, out: Path) -> None:
    """Write the crops of every second photograph to `eighteen` (of 36 photographs), those of three others to `three`.

    Raises a ValueError where there are not enough photographs.
    """
    rows = _rows(data)
    names = sorted({row["label"] for row in rows})
    if len(names) <= max(OTHERS):
        raise ValueError(f"{data} has {len(names)} photographs, expected {max(OTHERS) + 1} or more: make more of them.")
    parts = {"eighteen": {*names[::2]}, "three": {names[i] for i in OTHERS}}
    with atomic.replace_directory(out, lambda _: False) as made:
        for part, taken in parts.items():
            for split in ("train", "test"):
                _copy(
                    [row for row in rows if row["label"] in taken and row["split"] == split], data, made / part / split
                )


def _rows(data: Path) -> list[dict[str, str]]:
    with (data / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _copy(rows: list[dict[str, str]], data: Path, out: Path) -> None:
    """Copy crops into a folder for each class."""
    for row in rows:
        folder = out / row["label"].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / row["path"], folder)


def recognised(data: Path, path: Path, out: Path) -> None:
    """Write how many samples of each class a classifier recognises that was fitted to the training crops.

    It is a logistic regression on colour histograms and patch counts; its own accuracy is that on the test crops.
    data: folder of `train` and `test`. path: model, whose classes are those of the data.
    """
    model, made = randfeat.load(path), {}
    for split in ("train", "test"):
        source = open_source(str(data / split))
        made[split] = _bytes([source.read(i) for i in range(len(source))]), np.asarray(source.labels)
    words = PatchCounts(cells=2).fit(made["train"][0])

    def read(images: np.ndarray) -> np.ndarray:
        return np.concatenate((colour_histogram(images), words.transform(images)), axis=1)

    judge = LinearProbe(C=JUDGE_C, scaling="standard").fit(read(made["train"][0]), made["train"][1])
    labels = [i * model.generator.num_classes // COUNT for i in range(COUNT)]
    right = judge.predict(read(_bytes([to_pil(x) for x in _samples(model)]))) == np.asarray(labels)
    own = judge.predict(read(made["test"][0])) == made["test"][1]
    record = {"recognised": bootstrap(right).as_dict(), "accuracy_of_judge": bootstrap(own).as_dict()}
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_json(out / RECOGNISED, record)
    for name, one in record.items():
        print(f"{name}: {100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}] %, n {one['n']}")


def measure(test: Path, models: dict[str, Path], out: Path) -> None:
    """Write the border ratios of real images, samples and inpaintings, and a sheet of them."""
    source = open_source(str(test))
    rows = np.linspace(0, len(source) - 1, COUNT).round().astype(int).tolist()
    real = [source.read(row) for row in rows]
    record: dict[str, dict[str, dict[str, float]]] = {REAL: _ratios(_pixels(real), _pixels(real))}
    sheet = real[:: COUNT // SHOWN][:SHOWN]
    for name, path in models.items():
        model = randfeat.load(path)
        made, painted = _samples(model), _painted(model, real)
        record[name] = _ratios(made, _pixels(painted))
        sheet += [to_pil(image) for image in made[:: COUNT // SHOWN][:SHOWN]]
        sheet += painted[:: COUNT // SHOWN][:SHOWN]
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_json(out / RECORD, record)
    atomic.write_bytes(out / SHEET, drawing.png(drawing.grid(sheet, columns=SHOWN)))


def _samples(model: Pipeline) -> Tensor:
    """Return `COUNT` samples, as many of each class."""
    classes = model.generator.num_classes
    return model.sample([i * classes // COUNT for i in range(COUNT)], SAMPLING, seed=0)


def _painted(model: Pipeline, images: list[Image.Image]) -> list[Image.Image]:
    """Return images whose middle is painted anew, without a class and with the seam that the tokens leave."""
    return model.inpaint(images, BOX, sampling=SAMPLING, seed=0, framing=Framing(feather=0))


def _ratios(samples: Tensor, painted: Tensor) -> dict[str, dict[str, float]]:
    """Return the border ratio of samples, and of inpaintings around what was painted, with intervals."""
    found = {"samples": samples, "inpaintings": painted[:, :, AROUND, AROUND]}
    ratios = {name: border_ratio(images.numpy(), STEP) for name, images in found.items()}
    return {name: one.as_dict() for name, one in ratios.items() if one is not None}


def _bytes(pictures: list[Image.Image]) -> np.ndarray:
    """Return pictures as bytes, uint8 (n, H, W, 3)."""
    return np.stack([np.asarray(one.convert("RGB")) for one in pictures])


def _pixels(pictures: list[Image.Image]) -> Tensor:
    """Return pictures as floats (n, 3, H, W) in [0, 1]."""
    return torch.from_numpy(_bytes(pictures)).movedim(-1, 1).float() / 255


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    first = parts.add_parser("crops", help="write the crops to train on, and those for test")
    first.add_argument("data", type=Path, help="folder of `randfeat make photographs --size 64`")
    first.add_argument("-o", "--out", type=Path, required=True, help="where to write")
    halves = parts.add_parser("classes", help="write the crops of every second photograph, and of three others")
    halves.add_argument("data", type=Path, help="folder of `randfeat make photographs --size 64`")
    halves.add_argument("-o", "--out", type=Path, required=True, help="where to write")
    third = parts.add_parser("recognised", help="sample each class, and let a classifier name the samples")
    third.add_argument("data", type=Path, help="folder of `train` and `test`")
    third.add_argument("model", type=Path, help="model of these classes")
    third.add_argument("-o", "--out", type=Path, required=True, help="where to write")
    second = parts.add_parser("measure", help="sample and inpaint with both models, measure and draw")
    second.add_argument("test", type=Path, help="folder of test crops")
    second.add_argument("learned", type=Path, help="model on learned tokens")
    second.add_argument("patches", type=Path, help="model on patches")
    second.add_argument("--found", type=Path, default=FOUND / PART, help="where to write")
    args = parser.parse_args()
    if args.part == "crops":
        crops(args.data, args.out)
    elif args.part == "classes":
        classes(args.data, args.out)
    elif args.part == "recognised":
        recognised(args.data, args.model, args.out)
    else:
        measure(args.test, dict(zip(MODELS, (args.learned, args.patches), strict=True)), args.found)


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.tokenizers.photographs", main, "The same command begins again."))
