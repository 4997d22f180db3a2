"""Samples and inpaintings of small photographs: continuous with a learned tokenizer, a mosaic with patches?

randfeat make photographs --size 64 -o photographs
python -m studies.tokenizers.photographs crops photographs -o crops    # 600 to train on, and the test images
randfeat pretrain --config photos_arpg_cpu --data crops/train -o learned --tokenizer learned
randfeat pretrain --config photos_arpg_cpu --data crops/train -o patches --tokenizer patch --patch 8 --vocab 1024
python -m studies.tokenizers.photographs measure crops/test learned/model patches/model
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
from randfeat.probes import border_ratio
from torch import Tensor

import randfeat
from randfeat import Guidance, Sampling, cli
from randfeat.data.images import to_pil
from randfeat.data.sources import open_source
from randfeat.pipeline.pipeline import Pipeline
from randfeat.utils import atomic, drawing

from .__main__ import FOUND

TRAINED = 600  # crops to train on
COUNT, SHOWN = 144, 12  # samples and inpaintings of a model, and those on the sheet
SAMPLING = Sampling(steps=32, guidance=Guidance(1.5))
STEP = 8  # pixels of a token's side
BOX = (16, 16, 48, 48)  # what is painted: left, top, right, lower
AROUND = slice(8, 56)  # pixels whose gradients are compared: the box and a token on each side
RECORD, SHEET = "photographs.json", "photographs.png"


def crops(data: Path, out: Path) -> None:
    """Write `TRAINED` of the training crops that `randfeat make photographs` made, and its test crops, by class."""
    with (data / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:TRAINED])
    with atomic.replace_directory(out, lambda _: False) as made:
        for part, taken in (("train", [train[i] for i in chosen]), ("test", test)):
            for row in taken:
                folder = made / part / row["label"].replace("/", "_")
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(data / row["path"], folder)


def measure(test: Path, models: dict[str, Path], out: Path) -> None:
    """Write the border ratios of real images, samples and inpaintings, and a sheet of them."""
    source = open_source(str(test))
    rows = np.linspace(0, len(source) - 1, COUNT).round().astype(int).tolist()
    real = [source.read(row) for row in rows]
    record: dict[str, dict[str, dict[str, float]]] = {"real images": _ratios(_pixels(real), _pixels(real))}
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
    """Return images whose middle is painted anew, without a class."""
    return model.inpaint(images, BOX, sampling=SAMPLING, seed=0)


def _ratios(samples: Tensor, painted: Tensor) -> dict[str, dict[str, float]]:
    """Return the border ratio of samples, and of inpaintings around what was painted, with intervals."""
    found = {"samples": samples, "inpaintings": painted[:, :, AROUND, AROUND]}
    ratios = {name: border_ratio(images.numpy(), STEP) for name, images in found.items()}
    return {name: one.as_dict() for name, one in ratios.items() if one is not None}


def _pixels(pictures: list[Image.Image]) -> Tensor:
    """Return pictures as floats (n, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(one.convert("RGB")) for one in pictures])).movedim(-1, 1).float() / 255


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    first = parts.add_parser("crops", help="write the crops to train on, and those for test")
    first.add_argument("data", type=Path, help="folder of `randfeat make photographs --size 64`")
    first.add_argument("-o", "--out", type=Path, required=True, help="where to write")
    second = parts.add_parser("measure", help="sample and inpaint with both models, measure and draw")
    second.add_argument("test", type=Path, help="folder of test crops")
    second.add_argument("learned", type=Path, help="model on learned tokens")
    second.add_argument("patches", type=Path, help="model on patches")
    second.add_argument("--found", type=Path, default=FOUND / "photographs", help="where to write")
    args = parser.parse_args()
    if args.part == "crops":
        crops(args.data, args.out)
    else:
        measure(args.test, {"learned": args.learned, "patches": args.patches}, args.found)


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.tokenizers.photographs", main, "The same command begins again."))
