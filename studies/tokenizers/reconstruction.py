"""Reconstruction of test images by a learned tokenizer beside k-means patches, at equal numbers of tokens and codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from randfeat.commands.tokenizer.evaluation import RECORD, Evaluation
from randfeat.commands.tokenizer.reconstruction import Images, Named, measure, shown
from randfeat.data.images import to_pil
from randfeat.utils import atomic, drawing

from . import sets
from .arms import ARMS, SECONDS, TRAINED, recipe, tokenizer
from .units import TOKENIZER

SETS = ("fashion", "letters", "photographs")
SHEET, COLUMNS = "sheet.png", 12  # images of a row
NAMES = "learned", "patches"


def run(name: str, work: Path, found: Path) -> Path:
    """Make the comparison of a set where it is not there, and return the path of its record.

    The tokenizers are those of seed 0 that are read, which are trained if need be.
    """
    folder = found / "reconstruction" / name
    if (done := folder / RECORD).exists():
        return done
    pictures = sets.make(name, work / name)
    places = {arm: work / name / arm / "0" / TOKENIZER for arm in NAMES}
    made = {arm: tokenizer(arm, pictures, 0, place) for arm, place in places.items()}
    named = [Named(ARMS[arm].title, one) for arm, one in made.items()]
    source = pictures.source(pictures.tested)
    images = Images(source, range(len(source)), pictures.images.shape[1:3])
    outcome = measure(named, images, workers=0)
    seconds = {arm: json.loads((place / SECONDS).read_text("utf-8"))["seconds"] for arm, place in places.items()}
    parameters = sum(one.numel() for one in made["learned"].parameters())
    how = recipe(pictures, ARMS["learned"], 0)
    settings = {
        "set": name,
        "seconds": seconds,
        "parameters": parameters,
        "steps": how.training.steps,
        "batch_size": how.training.batch_size,
        "fit": len(pictures.fit),
        "changes": list(TRAINED[name]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(folder / SHEET, sheet(named, images))
    evaluation = Evaluation(named, images, outcome, None, False, settings)
    atomic.write_bytes(done, (evaluation.json() + "\n").encode())
    return done


def sheet(named: Sequence[Named], images: Images) -> bytes:
    """Return a PNG of test images, their reconstructions by the learned tokenizer below them, and those by patches."""
    rows = np.linspace(0, len(images.rows) - 1, COLUMNS).round().astype(int).tolist()
    originals, made = shown(named, images, rows)
    pictures = [to_pil(torch.from_numpy(one)) for part in (originals, *made) for one in part]
    return drawing.png(drawing.grid(pictures, columns=COLUMNS))
