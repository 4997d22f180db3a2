"""Features of a data set's rows, for `map` of Hugging Face's datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from warnings import warn

import numpy as np
import torch
from PIL import Image

from ..data.errors import NoneReadable, OnError, SkippedImages
from ..inference.readout import FeatureSpec


def features_of_rows(model: Any, spec: FeatureSpec, image: str, output: str, on_error: OnError, rows: Any) -> Any:
    """Return the features of a batch of rows by a pipeline, for its `as_map_fn`."""
    names = getattr(rows, "column_names", rows)  # of a table, as a data set in the format "arrow" gives it
    if image not in names:
        raise ValueError(f"there is no column {image!r}: name one of {', '.join(names)}")
    if hasattr(rows, "iloc"):
        raise ValueError("of a data set in the format pandas `map` drops all other columns: give with_format(None)")
    given = rows[image]
    if isinstance(given, (Image.Image, str, bytes, Mapping)):
        raise ValueError("this function reads batches of rows: give map(..., batched=True)")
    given = given.to_pylist() if hasattr(given, "to_pylist") else given
    count = len(given)
    try:
        found = model.features(given, spec, batch_size=count, on_error=on_error)
    except NoneReadable as error:  # of this batch; there are others
        if on_error == "skip":
            warn(SkippedImages(error.skipped, count), stacklevel=2)
        blank = torch.zeros(1, model.tokenizer.channels, *model.image_size, device=model.generator.device)
        shape = model.features_of_pixels(blank, [spec])[0].shape[1:]
        found = np.full((count, *shape), np.nan, np.float32)
    return _with_column(rows, output, found)


def _with_column(rows: Any, name: str, values: np.ndarray) -> Any:
    """Return a new column as `map` takes it: alone, or of an Arrow table, of which it keeps nothing else, with all."""
    if hasattr(rows, "append_column"):
        import pyarrow as pa

        kind = pa.float32()
        for _ in values.shape[1:]:
            kind = pa.list_(kind)
        kept = rows.select([one for one in rows.column_names if one != name])
        return kept.append_column(name, pa.array(values.tolist(), kind))
    return {name: values}
