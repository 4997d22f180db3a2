"""Encoder of the images of an index: queries must be encoded the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..features.encoder import Encoder
from ..features.opening import open_encoder
from ..utils.resume import difference


def record_of(encoder: Encoder) -> dict[str, Any]:
    """Return what an index keeps of an encoder of one spec; a ValueError refuses one of several."""
    if len(encoder.specs) != 1:
        raise ValueError(f"an index holds one feature of each image, not {len(encoder.specs)}: choose one spec")
    return {"model": absolute(encoder.name), "spec": encoder.specs[0], "encoder": encoder.record()}


def absolute(name: str) -> str:
    """Return the name of a model with the path in it absolute: `dir`, `timm:NAME@FILE`, `open_clip:DIR`."""
    before, path = split_path(name)
    return f"{before}{Path(path).resolve()}" if path else name


def split_path(name: str) -> tuple[str, str]:
    """Return the name of a model as the part before the path of a file or directory in it, and that path or ""."""
    for start in (0, name.rfind("@") + 1, name.rfind(":") + 1):
        if name[start:] and Path(name[start:]).exists():
            return name[:start], name[start:]
    return name, ""


def open_encoder_of(record: Mapping[str, Any], device: str | torch.device = "cpu", model: str | None = None) -> Encoder:
    """Return the encoder that an index keeps this record of.

    model: its path now, if it was moved. Raises a ValueError where it is another by now.
    """
    dtype = getattr(torch, record["encoder"]["dtype"])
    encoder = open_encoder(model or record["model"], [record["spec"]], device, dtype)
    check(record, encoder)
    return encoder


def check(record: Mapping[str, Any] | None, encoder: Encoder) -> None:
    """Raise a ValueError for another encoder than that of the record; without a record, any will do."""
    if record is None:
        return
    now = record_of(encoder)
    if now["spec"] != record["spec"]:
        raise ValueError(f"the index was read as {record['spec']}, not as {now['spec']}: ask in its own reading")
    if other := difference(record["encoder"], now["encoder"]):
        raise ValueError(
            f"the index was read by {record['model']}, and {now['model']} is another: it was {other}; "
            "ask with the model that read it"
        )
