"""Retrieval on revisited Oxford and Paris (Radenovic et al. 2018, arXiv 1803.11285).

The published ground truth is a pickle; `read_pickle` opens it without running anything that it names.
"""

import io
import pickle
import pickletools
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..arrays import as_matrix
from ..protocol import Protocol
from ..report.record import Record, made_with
from ..stats import bootstrap
from .retrieval import Relevant, Scores

SETUPS = {  # positives, and images removed from the ranking
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
HEADLINE = "medium average_precision"


@dataclass(frozen=True, eq=False)
class RevisitedQuery:
    """Query image, its box (left, top, right, bottom) in pixels, and gallery rows by difficulty."""

    name: str
    box: tuple[float, float, float, float]
    easy: NDArray[np.intp]
    hard: NDArray[np.intp]
    junk: NDArray[np.intp]

    def crop(self, picture: Image.Image) -> Image.Image:
        """Return the box of the query's picture, whose features are the query."""
        left, top, right, bottom = self.box
        return picture.crop((round(left), round(top), round(right), round(bottom)))

    def setup(self, name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return positive and ignored gallery rows of "easy", "medium" or "hard"."""
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


def evaluate_revisited(
    name: str,
    queries: ArrayLike,
    gallery: ArrayLike,
    truth: GroundTruth,
    ks: Sequence[int] = (1, 5, 10),
    how: Protocol = Protocol(),  # noqa: B008  immutable
    settings: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> Record:
    """Return the record of "retrieval" under all setups; the headline is the mAP of "medium".

    queries, gallery, ks: as in `revisited_scores`. settings, fingerprints: as in `Record`. The metrics are named
    "<setup> average_precision" and "<setup> precision_at_<k>". Arrays have a row for each query with positives in
    "medium"; a query without an easy or without a hard positive has no score there, so `easy` and `hard` have arrays
    only where they score the same queries.
    """
    start = time.perf_counter()
    found = revisited_scores(queries, gallery, truth, ks)
    right = {f"{setup} {metric}": values for setup, of in found.items() for metric, values in of.items()}
    right = {HEADLINE: right.pop(HEADLINE), **right}
    kept = {setup: [len(query.setup(setup)[0]) > 0 for query in truth.queries] for setup in SETUPS}
    if not any(kept["medium"]):
        raise ValueError(
            "no query has a positive image in the gallery, expected some; give the published ground truth."
        )
    arrays: dict[str, NDArray[Any]] = {"paths": np.array([query.name for query in truth.queries])[kept["medium"]]}
    for metric, values in right.items():
        if kept[metric.split()[0]] == kept["medium"]:
            arrays["right" if metric == HEADLINE else f"right {metric}"] = values
    counts = {"queries": len(truth.queries), "gallery images": len(truth.gallery)}
    counts["distractors"] = len(np.asarray(gallery)) - len(truth.gallery)
    return Record(
        name,
        "retrieval",
        {metric: bootstrap(values, None, how.draws, how.seed) for metric, values in right.items() if len(values)},
        settings={**how.as_dict(), **counts, **(settings or {})},
        fingerprints=dict(fingerprints or {}),
        made_with=made_with(),
        seconds=time.perf_counter() - start,
        arrays=arrays,
    )


def revisited_scores(
    queries: ArrayLike, gallery: ArrayLike, truth: GroundTruth, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[str, Scores]]:
    """Return per-query "average_precision" and "precision_at_{k}" under "easy", "medium" and "hard".

    Their means are the published mAP and mP@k. queries: (q, d), of the cropped queries of `truth` in order. gallery:
    (m, d), in the order of `truth.gallery`; further rows are distractors, which match no query. Images are ranked by
    cosine, of equals the earlier in the gallery first.

    Both scores are the benchmark's own: junk is removed from the ranking; average precision is the area under the
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
    """Return average precision, and precision at each k, of one ranking (m,)."""
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


# the pickle ---------------------------------------------------------------------------------------------------------


def read_pickle(path: str | Path) -> Any:
    """Return what the file holds: numbers, text, lists, tuples, dictionaries, sets and numpy arrays of these.

    Anything else in it is refused with a ValueError before it is looked up, so that a file from the network cannot run
    code. Text of Python 2 is read as Latin-1.
    """
    content = Path(path).read_bytes()
    try:
        _check_sizes(content)
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _Refused as refused:
        raise ValueError(
            f"{path} asks for {refused}, expected plain containers and numpy arrays only; do not trust this file."
        ) from None
    except Exception as error:  # broken bytes raise any of a dozen exceptions
        raise ValueError(f"{path} is no readable pickle, or damaged; download it again.") from error


def _check_sizes(content: bytes) -> None:
    """Raise a ValueError for lengths and places beyond the file, for which pickle takes memory before it looks."""
    for operation, place, _ in pickletools.genops(content):
        if operation.name.endswith("PUT") and place is not None and place > len(content):
            raise ValueError(f"place {place} of an object")


class _Refused(Exception):
    pass


class _Type:
    """Replacement of numpy.dtype, whose own __setstate__ trusts what a file says about memory."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufcSU]\d+", code):
            raise _Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Replacement of numpy.ndarray for the same reason; without arguments, so a file cannot request memory."""

    def __new__(cls) -> "_Array":
        return np.empty(0, dtype=np.uint8).view(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        values = _from_buffer(data, kind, shape, "F" if fortran else "C")
        believed: Any = (1, values.shape, values.dtype, False, values.tobytes())
        super().__setstate__(believed)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: bytes | str, kind: _Type, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    held = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote bytes as text
    return np.frombuffer(held, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Type, data: bytes | str) -> Any:
    return _from_buffer(data, kind, (1,), "C")[0]


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes, which protocol 2 holds as text."""
    if encoding != "latin1":
        raise _Refused("bytes in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


# names that numpy writes for arrays and numbers at protocols 2 to 5; numpy 2 renamed their modules
_NUMPY: dict[str, Any] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _from_buffer,
    "scalar": _scalar,
    "dtype": _Type,
    "ndarray": _Array,  # an argument of _reconstruct
}
_PLAIN: dict[str, Any] = {"set": set, "frozenset": frozenset, "complex": complex, "bytes": _no_bytes}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object outside of the file")
