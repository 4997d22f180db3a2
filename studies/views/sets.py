"""Sets of the study: a generator with labels, and the images that settings are chosen on and that are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from randfeat.pretrain import read_recipe, train
from torch import Tensor

from randfeat import Pipeline, load
from randfeat.data.builtin import make_letters
from randfeat.inference.readout import sub_patch_shifts
from randfeat.tokenizers import PatchTokenizer
from randfeat.utils import arrays
from studies.fashion.images import read as read_fashion
from studies.reading.material import as_pixels

TESTED = 2000  # images
STRIDE, CODES, FITTED, PLACES = 4, 256, 4000, 3  # of the tokenizer of letters, and the places a side it is trained at
STEPS = 1500  # of the generator of letters
MIDDLE = PLACES**2 // 2  # the place where a letter stands


@dataclass(frozen=True)
class ViewSet:
    """Images of a set with a generator that knows its classes.

    images: of test, uint8 (n, H, W). labels: (n,). groups: (n,), one for each image where they do not depend on each
    other.
    """

    model: Pipeline
    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def fashion(work: Path) -> ViewSet:
    """Return Fashion-MNIST with the `fashion-arpg` of the package, and the first test images."""
    data = read_fashion()
    rows = data.test[:TESTED]
    return ViewSet(load("fashion-arpg"), data.images[rows], data.labels[rows], np.arange(len(rows)))


def letters(work: Path) -> ViewSet:
    """Return a to z in typefaces of designs that nothing else sees, with a small ARPG, trained in `work` once.

    It learns from seven eighths of the other designs, so that there are images to choose views on.
    """
    path = work / "letters.npz"
    if not path.exists():
        made = make_letters()
        kept = {"images": made.images, "labels": made.labels, "groups": made.groups, "test": made.test}
        arrays.write_npz(path, kept, compressed=True)
    with np.load(path) as file:
        images, labels, groups, test = (file[name] for name in ("images", "labels", "groups", "test"))
    draw = np.random.default_rng(0)
    designs = draw.permutation(list(dict.fromkeys(groups[~test].tolist())))
    fit = ~test & ~np.isin(groups, designs[: len(designs) // 8])
    if not (work / "letters_arpg").exists():
        train_letters(images[fit], labels[fit]).save(work / "letters_arpg")
    rows = draw.permutation(np.flatnonzero(test))[:TESTED]
    return ViewSet(load(work / "letters_arpg"), images[rows], labels[rows], groups[rows])


def train_letters(images: np.ndarray, labels: np.ndarray, steps: int = STEPS) -> Pipeline:
    """Return a small ARPG trained on letters, each at nine places and never mirrored, in minutes."""
    pixels = as_pixels(images)
    fitted = torch.from_numpy(np.random.default_rng(0).permutation(len(pixels))[:FITTED])
    tokenizer = PatchTokenizer.fit(pixels[fitted], CODES, STRIDE)
    parts = [tokenizer.encode(sub_patch_shifts(part, STRIDE, PLACES).flatten(0, 1)) for part in pixels.split(500)]
    tokens = torch.cat(parts).flatten(1).unflatten(0, (len(pixels), -1))
    first = [MIDDLE, *(place for place in range(PLACES**2) if place != MIDDLE)]  # where a letter stands comes first
    recipe = read_recipe("digits_arpg")
    training = replace(recipe.training, steps=steps, eval_every=steps)
    grid = (images.shape[1] // STRIDE, images.shape[2] // STRIDE)
    generator = recipe.build(grid, tokenizer.vocab_size, int(labels.max()) + 1)
    targets: Tensor = torch.from_numpy(labels)
    train(generator, tokens[:, first], targets, None, training)
    return Pipeline(tokenizer, generator)


SETS: dict[str, Callable[[Path], ViewSet]] = {"fashion": fashion, "letters": letters}
