"""Which network read the images of an index, and how: queries must be read the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..features.encoder import Encoder
from ..features.opening import open_encoder
from ..utils.resume import difference


def reading_of(encoder: Encoder) -> dict[str, Any]:
    """What an index keeps of an encoder; a ValueError for one of several specs."""
    if len(encoder.specs) != 1:
        raise ValueError(f"an index holds one feature of each image, not {len(encoder.specs)}: choose one spec")
    name = str(Path(encoder.name).resolve()) if Path(encoder.name).exists() else encoder.name
    return {"model": name, "spec": encoder.specs[0], "encoder": encoder.record()}


def open_reader(reading: Mapping[str, Any], device: str | torch.device = "cpu", model: str | None = None) -> Encoder:
    """Return the encoder that read the images. model: where it lies now, if it was moved.

    Raises a ValueError where it is another by now.
    """
    dtype = getattr(torch, reading["encoder"]["dtype"])
    encoder = open_encoder(model or reading["model"], [reading["spec"]], device, dtype)
    check(reading, encoder)
    return encoder


def check(reading: Mapping[str, Any] | None, encoder: Encoder) -> None:
    """A ValueError that names both for an encoder that reads otherwise than that of the index."""
    if reading is None:
        return
    now = reading_of(encoder)
    if now["spec"] != reading["spec"]:
        raise ValueError(f"the index was read as {reading['spec']}, not as {now['spec']}: ask in its own reading")
    if other := difference(reading["encoder"], now["encoder"]):
        raise ValueError(
            f"the index was read by {reading['model']}, and {now['model']} is another: it was {other}; "
            "ask with the model that read it"
        )
