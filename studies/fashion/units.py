"""Units of the study: one reader in one measure, kept as a record and the score of each test image."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from randfeat.utils import arrays, atomic

from .features import Features, Reader
from .images import Fashion
from .probing import MEASURES, Measure, Pair


class MissingModel(FileNotFoundError):
    """Model that was not trained yet, whose parts of the study are left out."""


@dataclass(frozen=True)
class Place:
    """Folders of a run: `work` for features and weights, `found` for results."""

    work: Path
    found: Path

    def record(self, part: str, name: str) -> Path:
        """Return the path of a record."""
        return self.found / part / f"{name}.json"


def keep(path: Path, record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
    """Write scores beside a record, and then the record, which marks both as done. Fractions are kept in half
    precision.
    """
    halved = {name: x.astype(np.float16) if x.dtype.kind == "f" else x for name, x in scores.items()}
    arrays.write_npz(path.with_suffix(".npz"), halved)
    atomic.write_bytes(path, json.dumps(record, indent=1).encode() + b"\n")


def key_of(*settings: object) -> str:
    """Return a fingerprint of settings, tuples of numbers and strings."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:12]


def kept(path: Path, key: str, search: str | None = None) -> dict[str, Any] | None:
    """Return a record that was made with this key, such as a fingerprint of weights, None where there is none.

    search: fingerprint of the settings that were searched; a record without one is of before they were kept.
    """
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return record if record["key"] == key and record.get("search", search) == search else None


def measure(
    name: str,
    reader: Reader,
    data: Fashion,
    place: Place,
    measures: Sequence[Measure] = MEASURES,
    features: str | None = None,
) -> None:
    """Score a reader in every measure that it has variants for; finished ones are left as they are.

    features: name of the features on disk, by default that of the reader.
    """
    source = Features(features or name, reader, data.images, place.work / "features")
    for one in measures:
        path, variants = place.record(name, one.name), reader.dense if one.dense else reader.variants
        search = key_of(variants, len(data.searched), len(data.chosen), *one.settings)
        if not variants or kept(path, reader.key, search):
            continue
        began = time.process_time()
        record, right = _measured(one, variants, source, data)
        record = {"reader": name, "measure": one.name, "key": reader.key, "search": search, **record}
        keep(path, record | {"seconds": round(time.process_time() - began, 1)}, {"right": right})
        print(f"{name} {one.name}: {record['variant']} {record['setting']} {100 * right.mean():.2f} %", flush=True)


def _measured(
    one: Measure, variants: Sequence[str], source: Features, data: Fashion
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the record of a measure, and the score of each test image."""
    few = np.concatenate((data.searched, data.chosen))
    source.of(variants, few, "searched")  # all at once: variants share passes of a network

    def pair(variant: str) -> Pair:
        x = source.of([variant], few, "searched")[variant]
        return x[: len(data.searched)], x[len(data.searched) :]

    reads: dict[str, Callable[[], Pair]] = {variant: partial(pair, variant) for variant in variants}
    choice = one.search(reads, data.labels[data.searched], data.labels[data.chosen])
    train, test = (
        source.of([choice.variant], rows, part)[choice.variant]
        for rows, part in ((data.train, "train"), (data.test, "test"))
    )
    right = one.score(choice.setting, train, data.labels[data.train], test, data.labels[data.test])
    told = asdict(choice) | {"dimensions": int(np.prod(train.shape[1:])), "mean": float(right.mean())}
    return told | {"train": len(data.train), "test": len(data.test)}, right
