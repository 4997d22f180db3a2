"""Images of Fashion-MNIST and the rows that the study fits, chooses and scores on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from randfeat.pretrain.checks import held_out_count
from randfeat.pretrain.data import shuffle

from randfeat.data.builtin import make_fashion

HELD_OUT = 0.0833  # share of the training images that `randfeat pretrain` holds out, of which settings are chosen
SEARCHED = 15_000  # training images that probes are fitted to while settings are chosen
TRAIN = 60_000


@dataclass(frozen=True)
class Fashion:
    """Images, and rows of them.

    images: uint8 (n, 28, 28). labels: int64 (n,). classes: names. fit: rows that networks learn from. searched: of
    these, the rows that probes are fitted to while settings are chosen. chosen: rows that settings are chosen on.
    train: all of them, which the chosen probe is fitted to. test: rows that are scored, once.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    fit: np.ndarray
    searched: np.ndarray
    chosen: np.ndarray
    train: np.ndarray
    test: np.ndarray


def read(rehearse: bool = False, seed: int = 0) -> Fashion:
    """Return the 60,000 + 10,000 images, of the training images last those that generators did not see.

    They are the ones that `randfeat pretrain --held-out 0.0833` holds out by the recipes' seed, 0.

    rehearse: the validation part stands in for the test images, and the last images before it for the validation part;
    test images are left out. seed: of the rows that are searched on.
    """
    made = make_fashion()
    mixed, held = shuffle(0, -1, TRAIN).numpy(), held_out_count(TRAIN, HELD_OUT)
    rows = np.concatenate((np.sort(mixed[held:]), np.sort(mixed[:held]), np.arange(TRAIN, len(made))))
    return divide(made.images[rows], made.labels[rows], made.classes, TRAIN, held, SEARCHED, rehearse, seed)


def divide(
    images: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    train: int,
    validation: int,
    searched: int,
    rehearse: bool = False,
    seed: int = 0,
) -> Fashion:
    """Return images of which the first `train` are for training, `validation` of them to choose on."""
    end, stop = (train - validation, train) if rehearse else (train, len(images))
    fit = np.arange(end - validation)
    drawn = np.sort(np.random.default_rng(seed).permutation(fit)[:searched])
    return Fashion(
        images[:stop],
        labels[:stop],
        classes,
        fit,
        drawn,
        np.arange(end - validation, end),
        np.arange(end),
        np.arange(end, stop),
    )
