"""Class of an image by likelihood: the mean of log p(image | class) over K orders, and over moved and mirrored copies.

Classes are dropped by successive halving, so that K = 16 costs less than half: all ten are read in one order, the best
five in four, the best three in all (see `RUNGS`). Copies are read for the three that are likeliest in four orders.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randfeat import Pipeline
from randfeat.inference.likelihood import orders_of, token_log_prob
from randfeat.inference.readout import sub_patch_shifts
from randfeat.inference.successive_halving import Rung, SuccessiveHalving, rank_classes
from randfeat.models import Generator, packed
from randfeat.utils import arrays, progress
from randfeat.weights import fingerprint
from studies.reading.material import as_pixels

from .images import Fashion
from .units import Place, keep, kept, key_of

PART = "likelihood"
COUNTS = (1, 4, 16)  # orders
RUNGS = (Rung(1), Rung(4, 0.5), Rung(math.inf, 0.3))
COPIES = 8  # an image at 2 x 2 sub-patch shifts, as it is and mirrored
AT_ONCE = 250  # images between two files of what is done


def run(name: str, model: Pipeline, data: Fashion, place: Place, most: int | None = None) -> None:
    """Score a generator with labels. most: number of test images, the first ones; all by default.

    Images that were scored before the run was stopped are kept in `work`.
    """
    path, weights = place.record(PART, name), fingerprint(model.generator, model.tokenizer)[:12]
    key = f"{weights}-{key_of(COUNTS, RUNGS, COPIES)}"
    rows = data.test[:most]
    done = kept(path, key)
    if done is not None and done["test"] == len(rows):
        return
    parts = []
    with progress.bar(len(rows), f"likelihood {name}", "image") as bar:
        for number, start in enumerate(range(0, len(rows), AT_ONCE)):
            some = rows[start : start + AT_ONCE]
            parts.append(_part(place.work / PART / name / key / f"{number}-{len(some)}.npz", model, data.images[some]))
            bar.update(len(some))
    truth = data.labels[rows]
    names = [part for part in parts[0] if part not in ("passes", "seconds")]
    right = {each: np.concatenate([part[each] for part in parts]) == truth for each in names}
    record: dict[str, Any] = {
        "model": name,
        "key": key,
        "test": len(rows),
        "means": {each: float(one.mean()) for each, one in right.items()},
        "passes": float(np.concatenate([part["passes"] for part in parts]).mean()),
        "seconds": round(float(sum(part["seconds"] for part in parts)), 1),
    }
    keep(path, record, right)
    print(f"likelihood {name}: {record['means']}", flush=True)


def _part(path: Path, model: Pipeline, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the classes found for images, and the processor seconds it took, from the file where there is one."""
    if path.exists():
        with np.load(path) as file:
            return dict(file)
    began = time.process_time()
    found = classify(model, images)
    found["seconds"] = np.asarray(time.process_time() - began)
    arrays.write_npz(path, found, compressed=False)
    return found


@torch.no_grad()
def classify(model: Pipeline, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the class of each image, int64 (n,), by number of orders, as "k4", and over copies, as "k4_copies"; and
    "passes", those of the most orders without copies, float32 (n,).
    """
    network = packed.inference_copy(model.generator)
    pixels = as_pixels(images)
    tokens = model.tokenizer.encode(pixels).flatten(1)
    found, ranking = {}, torch.empty(0)
    for count in COUNTS:
        _, order, passes = rank_classes(network, tokens, None, count, SuccessiveHalving(RUNGS))
        found[f"k{count}"], found["passes"] = order[:, 0].numpy(), passes.numpy()
        ranking = order if count == COUNTS[1] else ranking
    leading = ranking[:, : RUNGS[-1].kept(network.num_classes)]
    copies = model.tokenizer.encode(of_copies(pixels, model.tokenizer.stride).flatten(0, 1)).flatten(1)
    each = copy_log_prob(network, copies.unflatten(0, (len(pixels), COPIES)), leading, COUNTS[-1])
    for count in COUNTS[1:]:
        best = each[..., :count].mean(2).argmax(1, keepdim=True)
        found[f"k{count}_copies"] = leading.gather(1, best)[:, 0].numpy()
    return found


def of_copies(pixels: Tensor, stride: int) -> Tensor:
    """Return the copies of images (n, 1, H, W), each next to a mirrored one at another place: (n, COPIES, 1, H, W)."""
    places = sub_patch_shifts(pixels, stride, 2)
    return torch.stack((places, places.flip(1).flip(4)), 2).flatten(1, 2)


def copy_log_prob(network: Generator, copies: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return log p of copies of images given some classes, float32 (n, c, count): order k reads copy k modulo COPIES.

    copies: tokens (n, COPIES, N). classes: int64 (n, c).
    """
    table = orders_of(network, count)
    images, kinds = classes.shape
    image, column, place = (
        index.flatten() for index in torch.meshgrid(*map(torch.arange, (images, kinds, len(table))), indexing="ij")
    )
    rows = image * COPIES + place % COPIES, classes[image, column], place
    sums = [part.sum(1) for part in token_log_prob(network, copies.flatten(0, 1), table, rows)]
    return torch.cat(sums).view(images, kinds, -1)
