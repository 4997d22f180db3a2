"""Model and index of a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..features.encoder import Encoder
from ..features.generator_encoder import GeneratorEncoder
from ..features.opening import open_encoder
from ..index import Index
from ..index.reader import check
from ..pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class Service:
    """Models of a service.

    encoders: one for each feature spec that a request may name, under its name, the default first. index: to be
    searched, or None. reader: the encoder that read it.
    """

    encoders: Mapping[str, Encoder]
    index: Index | None = None
    reader: Encoder | None = None

    @property
    def default(self) -> Encoder:
        """Encoder of the default spec."""
        return next(iter(self.encoders.values()))

    @property
    def model(self) -> Pipeline | None:
        """Generator with its tokenizer, None where the model is of another library."""
        return self.default.pipeline if isinstance(self.default, GeneratorEncoder) else None

    @property
    def classifier(self) -> Pipeline | None:
        """`model` where it reads pictures and knows classes."""
        able = self.model is not None and self.model.classes.count and self.model.tokenizer.value_range is None
        return self.model if able else None


def open_service(
    model: str | Pipeline,
    specs: Sequence[str] = (),
    index: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Service:
    """Open a model, at the specs that requests may name, and an index; its model is opened once where it is the same.

    Raises what `open_encoder` and `Index.open` raise, and a ValueError for an index of numbers that no model read.
    """
    encoder = open_encoder(model, specs, device, dtype)
    alone = {spec: encoder.with_specs([spec]) for spec in encoder.specs}
    # a spec may be named as it was given, too: -1 for the last layer
    named = {str(given): alone[spec] for given, spec in zip(specs, encoder.specs, strict=False)}
    encoders = {**alone, **named}
    if index is None:
        return Service(encoders)
    found = Index.open(index)
    if found.encoder_record is None:
        raise ValueError(f"{index} holds numbers that no model read: images cannot be searched for in it")
    try:
        reader = encoder.with_specs([found.encoder_record["spec"]])
        check(found.encoder_record, reader)
    except ValueError:  # another model read it
        reader = found.encoder(str(device))
    return Service(encoders, found, reader)
