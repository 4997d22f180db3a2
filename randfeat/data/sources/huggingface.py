"""Data sets of Hugging Face's `datasets`, from the hub or saved with `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...utils.network import hub_or_cache
from ..decode import File, file_of_cell
from . import splits
from .base import NO_FILE, EncodedSource, Labels, State, numbered, of_named, state_of
from .parquet import IMAGES, label_column
from .table import column


class HuggingFaceSource(EncodedSource):
    """Split of a data set with a column of images. They are decoded here, so a damaged one affects its row only."""

    def __init__(self, name: str, dataset: Any, split: str | None) -> None:
        """dataset: a `datasets.Dataset`. split: prefix of the numbers that name the rows."""
        import datasets

        images = [key for key, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
        found = column(images, IMAGES) or next(iter(images), None)
        if found is None:
            raise ValueError(f"{name} has no column of images: it has {', '.join(dataset.column_names)}")
        self.column = found
        labels, classes = _labels(dataset)
        prefix = f"{split}/" if split else ""
        super().__init__(name, [f"{prefix}{row}" for row in range(len(dataset))], labels, classes)
        self.images = dataset.select_columns([found]).cast_column(found, datasets.Image(decode=False))

    def file(self, i: int) -> File:
        return file_of_cell(self.images[i][self.column], Path())

    def sizes(self) -> Iterable[int]:
        return (size for size, *_ in self.states())

    def states(self) -> Iterable[State]:
        """Yield of each row its size, and the latest times of the files of the data set; of a path, its own."""
        changed = max((state_of(one["filename"])[1:] for one in self.images.cache_files), default=NO_FILE[1:])
        for table in self.images.with_format("arrow").iter(1000):
            yield from _states(table[self.column], changed)


def open_saved(root: Path, split: str | None = None) -> HuggingFaceSource:
    """Return the source of a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(root))
    except Exception as error:  # the library raises exceptions of any type for a damaged file
        raise ValueError(f"{root} is no data set that save_to_disk wrote whole: {_first_line(error)}") from error
    if isinstance(saved, datasets.DatasetDict):
        chosen = splits.choose(str(root), saved, split)
        return HuggingFaceSource(str(root), saved[chosen], chosen)
    own = str(saved.split) if saved.split else None
    if split is not None:
        splits.choose(str(root), [own] if own else [], split)
    return HuggingFaceSource(str(root), saved, own)


def open_hub(name: str, split: str | None = None) -> HuggingFaceSource:
    """Return a data set of the hub, downloaded into the cache of `datasets` if it is not there."""
    import datasets
    import huggingface_hub
    from datasets.exceptions import DatasetNotFoundError

    huggingface_hub.logging.set_verbosity_error()  # a failure is one error below, not a message for each attempt
    try:
        with hub_or_cache():
            there = datasets.get_dataset_split_names(name)
            chosen = splits.choose(name, there, split)
            dataset = datasets.load_dataset(name, split=chosen)
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"there is neither a file or folder {name} here nor a data set of this name on the hub that you may read: "
            "check the name, or log in with `hf auth login`"
        ) from error
    except Exception as error:
        if type(error) in (ValueError, splits.SeveralSplits) and str(error).startswith(f"{name} has "):
            raise
        raise ConnectionError(
            f"there is no {name} here, and the data set {name} of the hub could not be loaded "
            f"({type(error).__name__}: {_first_line(error)}): "
            "check the name and the connection, or give the folder of a copy"
        ) from error
    return HuggingFaceSource(name, dataset, chosen)


def _states(cells: pa.ChunkedArray, changed: tuple[int, int]) -> Iterable[State]:
    """Yield the bytes of each encoded image, from offsets alone, so that none is read, and `changed`; of a path, the
    state of its file.
    """
    sizes = pc.binary_length(pc.struct_field(cells, "bytes")).to_pylist()
    paths = pc.struct_field(cells, "path").to_pylist() if None in sizes else [None] * len(sizes)
    for size, path in zip(sizes, paths, strict=True):
        yield (size, *changed) if size is not None else state_of(path) if path else NO_FILE


def _labels(dataset: Any) -> tuple[Labels, list[str] | None]:
    import datasets

    names = {key: kind.names for key, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)}
    key = label_column(dataset.column_names, names)
    if key is None:
        return None, None
    values = dataset.select_columns([key]).with_format("arrow")[:][key].to_pylist()
    return (of_named(values, names[key]), names[key]) if key in names else numbered(values)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
