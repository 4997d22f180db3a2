"""Retrieval on revisited Oxford and Paris (Radenovic et al. 2018, arXiv 1803.11285): truth, query crops, scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..arrays import as_matrix
from .pickles import read_pickle
from .retrieval import Relevant, Scores

SETUPS = {  # positives, and what is taken out of the ranking
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


@dataclass(frozen=True, eq=False)
class RevisitedQuery:
    """A query image, the box (left, top, right, bottom) in its pixels that is searched for, and gallery numbers."""

    name: str
    box: tuple[float, float, float, float]
    easy: NDArray[np.intp]
    hard: NDArray[np.intp]
    junk: NDArray[np.intp]

    def crop(self, picture: Image.Image) -> Image.Image:
        """Return the part of the query's picture that is to be read."""
        left, top, right, bottom = self.box
        return picture.crop((round(left), round(top), round(right), round(bottom)))

    def setup(self, name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Positives and ignored gallery numbers of "easy", "medium" or "hard"."""
        positives, ignored = (np.concatenate([getattr(self, part) for part in parts]) for parts in SETUPS[name])
        return positives, ignored


@dataclass(frozen=True)
class GroundTruth:
    """Names of the gallery images, without suffix, and the queries."""

    gallery: tuple[str, ...]
    queries: tuple[RevisitedQuery, ...]


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Return the published `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`, read by `read_pickle`."""
    held = read_pickle(path)
    try:
        gallery = tuple(str(name) for name in held["imlist"])
        queries = tuple(
            _query(str(name), entry, len(gallery)) for name, entry in zip(held["qimlist"], held["gnd"], strict=True)
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no ground truth of revisited Oxford or Paris ({error}); "
            "expected imlist, qimlist and gnd with bbx, easy, hard and junk for each query."
        ) from error
    return GroundTruth(gallery, queries)


def revisited_scores(
    queries: ArrayLike, gallery: ArrayLike, truth: GroundTruth, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[str, Scores]]:
    """Per-query "average_precision" and "precision_at_{k}" under "easy", "medium" and "hard"; their means are the
    published mAP and mP@k.

    queries: (q, d), of the cropped queries of `truth` in order. gallery: (m, d) in the order of `truth.gallery`;
    further rows are distractors, which nothing matches. Ranked by cosine, of equals the earlier in the gallery first.

    Both scores are the benchmark's own: junk is taken out of the ranking; average precision is the area under the
    precision-recall curve by trapezoids, so it differs from `average_precision`; precision is over the first k images
    or those up to the last positive, whichever are fewer. A query without positives in a setup has no score there and
    is left out. That depends on the truth alone, so scores of two features stay paired.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={tuple(ks)}: expected whole numbers from 1.")
    x, bank = as_matrix(queries, "queries"), as_matrix(gallery, "gallery")
    if len(x) != len(truth.queries) or len(bank) < len(truth.gallery) or x.shape[1] != bank.shape[1]:
        raise ValueError(
            f"queries are {x.shape}, gallery {bank.shape}; expected {len(truth.queries)} queries and at least "
            f"{len(truth.gallery)} gallery images of one dimension, in the order of the ground truth."
        )
    norms = np.sqrt(np.einsum("md,md->m", bank, bank))
    likeness = (x @ bank.T) / np.where(norms > 0, norms, 1)
    names = ["average_precision", *(f"precision_at_{k}" for k in ks)]
    scores: dict[str, dict[str, list[float]]] = {setup: {name: [] for name in names} for setup in SETUPS}
    for query, row in zip(truth.queries, likeness, strict=True):
        order = np.argsort(-row, kind="stable")
        for setup in SETUPS:
            positives, ignored = query.setup(setup)
            if len(positives):
                relevant = np.isin(order, positives)[~np.isin(order, ignored)]
                for name, value in zip(names, _of_ranking(relevant, ks), strict=True):
                    scores[setup][name].append(value)
    return {setup: {name: np.array(values) for name, values in of.items()} for setup, of in scores.items()}


def _of_ranking(relevant: Relevant, ks: Sequence[int]) -> list[float]:
    """Average precision, and precision at each k, of one ranking (m,)."""
    ranks = np.flatnonzero(relevant) + 1  # from 1
    found = np.arange(1, len(ranks) + 1)
    before = np.divide(found - 1, ranks - 1, out=np.ones(len(ranks)), where=ranks > 1)
    cuts = [min(k, ranks[-1]) for k in ks]
    return [float((before + found / ranks).mean() / 2), *(float(relevant[:cut].mean()) for cut in cuts)]


def _query(name: str, entry: Mapping[str, Any], images: int) -> RevisitedQuery:
    left, top, right, bottom = (float(edge) for edge in entry["bbx"])
    parts = {part: np.asarray(entry[part]).reshape(-1) for part in ("easy", "hard", "junk")}
    for part, numbers in parts.items():
        if len(numbers) and (numbers.dtype.kind not in "ui" or numbers.min() < 0 or numbers.max() >= images):
            raise ValueError(f"{part} of query {name} holds other than numbers of the {images} gallery images")
    return RevisitedQuery(
        name, (left, top, right, bottom), **{part: numbers.astype(np.intp) for part, numbers in parts.items()}
    )
