"""The form of a job: a generator of cases, each of which is one way of ours beside others that do the same work."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Value = TypeVar("Value")
Make = Callable[[], Callable[[], Any]]  # builds what a call needs, which is not timed, and returns the call
OURS = "ours"
SIZES = ("tiny", "XS", "S", "L", "XL")
LEVELS = ("tiny", "quick", "full")


@dataclass(frozen=True)
class Setting:
    """Sizes and peers of a run.

    size: of the networks, one of `SIZES`. dtypes: of the weights. level: of the work, one of `LEVELS`. peers:
    checkouts of official code by name. scratch: a folder for files, emptied after each job.
    """

    size: str
    dtypes: tuple[str, ...]
    level: str
    peers: Mapping[str, Path]
    scratch: Path

    def pick(self, tiny: Value, quick: Value, full: Value) -> Value:
        """Return the value of this run's level."""
        return (tiny, quick, full)[LEVELS.index(self.level)]


class Spent(NamedTuple):
    """Seconds and processor seconds that a call took, where its own clocks know better, as in another process."""

    seconds: float
    processor: float


class Axis(NamedTuple):
    """Place of a case in a series of growing size. at: the size that ImageNet has, None where it has none."""

    series: str
    unit: str
    value: float
    at: float | None = None


@dataclass(frozen=True)
class Case:
    """One measurement: `ours` and each of `peers` in turns.

    units: pieces of work in a call, such as images, which `unit` names; peers may do another number (`peer_units`).
    dtype: of the matrix products. facts: returns what is known without a clock, such as the share of equal results.
    axis: of a case whose cost is followed as it grows.
    """

    name: str
    ours: Make
    peers: Mapping[str, Make] = field(default_factory=dict)
    units: float = 1
    unit: str = "images"
    dtype: str = "float32"
    facts: Callable[[], Mapping[str, Any]] = dict
    peer_units: Mapping[str, float] = field(default_factory=dict)
    axis: Axis | None = None

    @property
    def variants(self) -> dict[str, Make]:
        return {OURS: self.ours, **self.peers}


class Job(NamedTuple):
    """A function of a module in `benchmarks.jobs` that yields cases for a `Setting`."""

    module: str
    function: str
    about: str

    def cases(self, setting: Setting) -> Iterator[Case]:
        return getattr(importlib.import_module(f"benchmarks.jobs.{self.module}"), self.function)(setting)


JOBS = {
    "sampling": Job("sampling", "sampling", "RandAR 88 and 256 steps, ARPG 20, 32 and 64; with guidance and without"),
    "extraction": Job("extraction", "extraction", "features of tokens by depth and context; the tokenizer beside them"),
    "likelihood": Job("likelihood", "classification", "classification by likelihood, and successive halving"),
    "exact": Job("exact", "exact", "exact sampling in fewer calls, on models of the package"),
    "training": Job("training", "training", "a training step of a generator"),
    "curves": Job("training", "curves", "losses of a small training beside the official ones; needs --peer"),
    "tokenizer": Job("tokenizer", "pictures", "encoding and decoding pictures by VQ-16"),
    "tokenizer-step": Job("tokenizer", "training", "a training step of VQ-16"),
    "tokens": Job("data", "token_cache", "reading a token cache of ImageNet's size"),
    "extract": Job("data", "extract", "`randfeat extract` of few pictures and of many: images/s, and memory"),
    "knn": Job("probes", "knn", "exact search and k-NN beside faiss and scikit-learn"),
    "linear": Job("probes", "linear", "a linear probe by L-BFGS beside scikit-learn"),
    "sweep": Job("probes", "sweep", "learning rates and decays of a linear probe in one pass"),
    "index": Job("index", "index", "building, opening and searching each index type beside plain faiss"),
    "lancedb": Job("index", "lancedb", "an index exported to LanceDB beside ours"),
    "serve": Job("service", "serve", "the service under many clients beside `extract`"),
    "growth": Job("growth", "growth", "time and memory over batch, tokens, orders, classes, images and vectors"),
    "startup": Job("startup", "startup", "`import randfeat` and commands beside Python, torch and timm"),
}
