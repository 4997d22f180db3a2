"""Feature stores: directories with the features of many images, and with all that decided them.

    features.npy    float32 (n, F), or (n, D, h, w) for dense maps; with several specs features-0.npy, features-1.npy,
                    ... in their order
    rows.parquet    path and label of row i of all of these
    skipped.csv     path and reason of each image that could not be read
    inputs.npy      size, time of change and SHA-256 of the file of each image, see `data.states`
    meta.json       model, encoder, specs, source, counts, the numbers that skipped images have in inputs.npy, and shape
                    and SHA-256 of the other files

There are no other dates in it, so the same images in the same folder and the same settings make the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..data.store import META, ROWS, Store, first_twice, write_rows
from ..utils import arrays, atomic
from ..utils.checks import finite_rows
from ..utils.resume import difference

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from PIL import Image

    from ..inference.readout import FeatureSpec

# may differ between stores that are merged
OF_SOURCE = ("name", "images", "fingerprint", "root", "parts")
OWN = ("model", "count", "skipped", "left_out", "files", *(f"source.{name}" for name in OF_SOURCE))


class FeatureStore(Store):
    """Features on disk, as an extraction or `merge` wrote them. Row i of every array belongs to row i of `table`."""

    FORMAT = "features of randfeat, version 1"
    ROW_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.int64())])
    NAME, UNFINISHED = "feature store", "the extraction into {} is"

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.directory)!r}: {len(self)} images, {', '.join(self.specs)})"

    def __iter__(self) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """Iterate over path, label (None if there is none) and feature of each image; for a store with one spec."""
        return zip(self.paths, self.table["label"].to_pylist(), self.as_numpy(), strict=True)

    @property
    def specs(self) -> list[str]:
        """Feature specs, one for each array."""
        return self.meta["specs"]

    @property
    def classes(self) -> list[str] | None:
        return self.meta["source"]["classes"]

    @property
    def labels(self) -> np.ndarray | None:
        """Class indices, int64 (n,), -1 for an image without one; None if no image has one."""
        column = self.table["label"]
        return None if column.null_count == len(self) else column.fill_null(-1).to_numpy()

    @property
    def class_names(self) -> list[str | None]:
        """Name of each row's class, its number as text where classes have no names, None for a row without one."""
        labels, classes = self.table["label"].to_pylist(), self.classes
        return [None if i is None else str(i) if classes is None else classes[i] for i in labels]

    def absolute_paths(self, root: str | Path | None = None) -> list[str]:
        """Return the absolute path of each row's image file, in the folder that was read.

        root: that folder, where it lies now if it moved. Raises a ValueError for rows that are no files of a folder or
        a list, but lie in archives, tables or a data set.
        """
        roots = [(root, len(self))] if root is not None else self._roots()
        if any(folder is None for folder, _ in roots):
            raise ValueError(
                f"{self.directory} is of {self.meta['source']['name']}, no folder or list of image files that is "
                "known: name the folder, or open its images with randfeat.data.sources.open_source"
            )
        folders = chain.from_iterable([folder] * count for folder, count in roots)
        return [os.path.abspath(os.path.join(folder, path)) for folder, path in zip(folders, self.paths, strict=True)]  # type: ignore[arg-type]  # noqa: PTH100, PTH118

    def images(self, root: str | Path | None = None) -> Iterator[Image.Image]:
        """Iterate over the pictures of the rows, in their order, each opened when it is asked for: see `open_picture`.

        root: see `absolute_paths`. Raises an UnreadableImage for a file that is gone or holds no picture by now.
        """
        from ..data.decode import open_picture

        return map(open_picture, self.absolute_paths(root))

    def changed(self) -> list[str] | None:
        """Return the path of each row whose file has changed since it was read; files that are gone are left out.

        None where that cannot be told: rows of archives, tables and several stores, and those written before states of
        files were kept.
        """
        from ..data.sources.folder import FileSource
        from ..data.states import INPUTS, changed_rows, recorded, states_of  # imports torch, which a store does without

        left_out = self.meta.get("left_out", None if self.meta["skipped"] else [])
        roots = self._roots()
        if left_out is None or len(roots) > 1 or roots[0][0] is None:
            return None
        source = FileSource(self.meta["source"]["name"], Path(roots[0][0]), self.paths)
        before, now = recorded(self.directory / INPUTS, len(self) + len(left_out)), states_of(source)
        if before is None or now is None:
            return None
        gone = now["size"] < 0
        return [self.paths[row] for row in changed_rows(source, np.delete(before, left_out), now) if not gone[row]]

    def warn_of_changes(self, remedy: str) -> None:
        """Warn where files have changed since they were read. remedy: what to do then, a clause."""
        if changed := self.changed():
            warnings.warn(
                f"the features in {self.directory} are of {len(changed):,} images that have changed since, such as "
                f"{changed[0]}: {remedy}.",
                stacklevel=3,
            )

    def _roots(self) -> list[tuple[str | Path | None, int]]:
        """Return the folders that rows were read from, each with the number of its rows, in their order."""
        source = self.meta["source"]
        if "parts" in source:
            return [(part["root"], part["count"]) for part in source["parts"]]
        return [(source["root"] if "root" in source else _folder_of(source["name"]), len(self))]

    def as_numpy(self, spec: str | FeatureSpec | None = None) -> np.ndarray:
        """Return features, float32 (n, F) or (n, D, h, w), mapped from the disk and read-only.

        spec: needed where there are several, in any spelling that means the same.
        """
        name = array_names(len(self.specs))[self.number(spec)]
        return arrays.read(self.directory / name, tuple(self.meta["files"][name]["shape"]), np.float32)

    def as_dataset(self, spec: str | FeatureSpec | None = None) -> datasets.Dataset:
        """Return a dataset of the `datasets` library: `path`, `label` (with the names of the classes) and `feature`,
        which stays on the disk.
        """
        import datasets

        features = self.as_numpy(spec)
        column: pa.Array = pa.array(features.reshape(-1))
        for length in features.shape[:0:-1]:
            column = pa.FixedSizeListArray.from_arrays(column, length)
        table = self.table.append_column("feature", column)
        kinds = datasets.Features.from_arrow_schema(table.schema)
        if self.classes is not None:
            kinds["label"] = datasets.ClassLabel(names=self.classes)
        table = table.cast(kinds.arrow_schema)
        info = datasets.DatasetInfo(features=kinds)
        # without a fingerprint `datasets` would read all features to make one
        return datasets.Dataset(table, info, fingerprint=self.fingerprint(spec)[:16])

    def as_dataframe(self, spec: str | FeatureSpec | None = None) -> pd.DataFrame:
        """Return a data frame of pandas: `path`, `label` (nullable), `class_name` (nullable; only where the classes
        have names) and `feature`, arrays that stay on the disk. See also `absolute_paths`.
        """
        import pandas as pd

        frame = pd.DataFrame({"path": self.paths, "label": pd.array(self.table["label"].to_pylist(), dtype="Int64")})
        if self.classes is not None:
            frame["class_name"] = pd.Series(self.class_names, dtype="object")
        frame["feature"] = pd.Series(list(self.as_numpy(spec)), dtype=object)
        return frame

    def fingerprint(self, spec: str | FeatureSpec | None = None) -> str:
        """Return the SHA-256 of one feature of all images, its values and their rows, in hexadecimal digits."""
        own = self.meta["files"]
        parts = own[array_names(len(self.specs))[self.number(spec)]]["sha256"], own[ROWS]["sha256"]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def encoder_record(self, spec: str | FeatureSpec | None = None) -> dict[str, Any]:
        """Return what read one feature, as an index keeps it: model, spec, and all that decided its numbers."""
        resolved = self.specs[self.number(spec)]
        encoder = self.meta["encoder"] | {"specs": [resolved]}
        return {"model": self.meta["model"], "spec": resolved, "encoder": encoder}

    def to_lance(self, place: str, spec: str | FeatureSpec | None = None) -> Any:
        """Write one feature of all images to a new table of LanceDB at `lancedb:PATH`, and return it, LanceDB's.

        Ids are the numbers of the rows; see `lance.write`, also for the columns. spec: needed where there are several.
        """
        from . import lance

        features, names = self.as_numpy(spec), self.class_names
        if features.ndim != 2:
            raise ValueError(f"{self.directory} holds maps, {features.shape[1:]} an image: choose a spec with a pool")
        starts = range(0, len(self), lance.BLOCK)
        blocks = (
            lance.Block(np.arange(len(self))[rows], features[rows], self.paths[rows], names[rows])
            for rows in (slice(start, start + lance.BLOCK) for start in starts)
        )
        return lance.write(place, blocks, features.shape[1], "cosine", self.encoder_record(spec))

    def _check_arrays(self) -> None:
        for spec in self.specs:
            self.as_numpy(spec)

    def _verify_arrays(self) -> None:
        for spec in self.specs:
            row = 0
            for block in arrays.blocks(self.as_numpy(spec)):
                finite = finite_rows(block)
                if not finite.all():
                    path = self.table["path"][row + int(finite.argmin())]
                    raise ValueError(f"{self.directory}: the feature {spec} of {path} is not finite")
                row += len(block)

    @classmethod
    def merge(cls, stores: Sequence[FeatureStore | str | Path], directory: str | Path) -> FeatureStore:
        """Write the rows of several stores, one after the other, into a new one, and open it.

        Raises a ValueError that names the setting that differs between them (encoder, specs, classes), or an image that
        is in two.
        """
        opened = [store if isinstance(store, FeatureStore) else cls.open(store) for store in stores]
        if not opened:
            raise ValueError("there is nothing to merge: give at least one store")
        first, directory = opened[0], Path(directory)
        for store in opened[1:]:
            if other := difference(first.meta, store.meta, OWN):
                raise ValueError(f"{first.directory} holds features with {other}, as {store.directory} does")
        table = pa.concat_tables(store.table for store in opened).combine_chunks()
        if (twice := first_twice(table["path"].to_pylist())) is not None:
            raise ValueError(f"the image {twice} is in two of the stores: leave one of them out")
        record = {name: first.meta[name] for name in ("model", "encoder", "specs")}
        sources = [store.meta["source"] for store in opened]
        alike = {key: value for key, value in sources[0].items() if key not in ("root", "parts")}
        record["source"] = (
            alike
            | {
                "name": " + ".join(source["name"] for source in sources),
                "images": sum(source["images"] for source in sources),
                "fingerprint": hashlib.sha256(
                    "".join(source["fingerprint"] for source in sources).encode()
                ).hexdigest(),
            }
            | _joined_roots([part for store in opened for part in store._roots()])
        )
        features = [_joined([store.as_numpy(spec) for store in opened]) for spec in first.specs]
        shapes = [first.as_numpy(spec).shape[1:] for spec in first.specs]
        with atomic.replace_directory(directory, lambda there: False) as made:
            write(made, record, table, shapes, features, [row for store in opened for row in store.skipped])
        return cls.open(directory)

    def number(self, spec: str | FeatureSpec | None) -> int:
        """Return the place of a spec in `specs`. Raises a ValueError where it is not there, or not given."""
        if spec is None and len(self.specs) == 1:
            return 0
        if spec is None:
            raise ValueError(f"{self.directory} holds {len(self.specs)} features, say which: {', '.join(self.specs)}")
        for spelling in (str(spec), self._resolved(spec)):
            if spelling in self.specs:
                return self.specs.index(spelling)
        raise ValueError(f"{self.directory} holds no feature {spec}: there is {', '.join(self.specs)}")

    def _resolved(self, spec: str | FeatureSpec) -> str | None:
        """Return a spec of randfeat's own models with layers as numbers; None for those of others."""
        from ..inference.readout import FeatureSpec  # imports torch, which a store does without

        try:
            return str(FeatureSpec.parse(spec).resolved(self.meta["encoder"]["generator"]["depth"]))
        except (KeyError, ValueError):
            return None


def write(
    directory: Path,
    record: Mapping[str, Any],
    table: pa.Table,
    shapes: Sequence[tuple[int, ...]],
    features: Sequence[Iterable[np.ndarray]],
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Write a store into a directory that exists, meta.json last.

    record: model, encoder, specs and source. table: of `FeatureStore.ROW_SCHEMA`. For each spec, shapes: the shape
    of one image's feature; features: an iterator over blocks of rows, so that one block is in memory at a time. The
    same call after a kill makes the same store.
    """
    written: dict[str, dict[str, Any]] = {}
    for name, one, blocks in zip(array_names(len(shapes)), shapes, features, strict=True):
        shape = (table.num_rows, *one)
        digest = arrays.write(directory / name, shape, "<f4", blocks)
        written[name] = {"sha256": digest, "shape": list(shape)}
    for name, digest in write_rows(directory, table, skipped).items():
        written[name] = {"sha256": digest}
    counts = {"count": table.num_rows, "skipped": len(skipped)}
    meta = {"format": FeatureStore.FORMAT, **record, **counts, "files": written}
    atomic.write_json(directory / META, meta)


def is_store(directory: str | Path) -> bool:
    """Return whether a directory is a feature store, and not one of images or anything else."""
    try:
        return atomic.read_json(Path(directory) / META, FeatureStore.FORMAT) is not None
    except (ValueError, OSError):
        return False


def array_names(specs: int) -> list[str]:
    """Return the file names of the arrays of this number of specs."""
    return ["features.npy"] if specs == 1 else [f"features-{number}.npy" for number in range(specs)]


def _folder_of(name: str) -> Path | None:
    """Return the folder of a source by its name alone, which is what stores kept before they kept the folder."""
    path = Path(name)
    return path if path.is_dir() else path.parent if path.is_file() else None


def _joined_roots(parts: Sequence[tuple[str | Path | None, int]]) -> dict[str, Any]:
    """Return `root` of rows from one folder, `parts` of those from several."""
    roots = [None if root is None else str(root) for root, _ in parts]
    if len({*roots}) == 1:
        return {"root": roots[0]}
    return {"parts": [{"root": root, "count": count} for root, (_, count) in zip(roots, parts, strict=True)]}


def _joined(parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the rows of several arrays in blocks."""
    return chain.from_iterable(map(arrays.blocks, parts))
