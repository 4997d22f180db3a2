"""What the page was given to work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...features.encoder import Encoder
from ...features.generator_encoder import GeneratorEncoder
from ...features.opening import open_encoder
from ...index import Index
from ...pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class AppState:
    """encoder: the model that was asked for, of randfeat or of timm, or else the one that read the index. reader: the
    one that read the index, None where its rows came as numbers.
    """

    encoder: Encoder | None = None
    index: Index | None = None
    reader: Encoder | None = None

    @property
    def model(self) -> Pipeline | None:
        """The generator with its tokenizer, None where there is only a model that reads, or none at all."""
        return self.encoder.pipeline if isinstance(self.encoder, GeneratorEncoder) else None

    def generator(self) -> Pipeline:
        """`model`, for a tab that is there only because there is one."""
        assert self.model is not None
        return self.model

    def missing_model(self) -> str:
        """Why there is nothing that reads, or "" if there is."""
        return "" if self.encoder else "There is no model here: give one with --model."

    def missing_generator(self) -> str:
        """Why there is nothing that draws, or "" if there is."""
        if self.encoder is None or self.model:
            return self.missing_model()
        return f"{self.encoder.name} reads pictures and makes none: give a model of randfeat with --model."


def open_all(
    model: str | None = None, index: str | Path | None = None, device: str = "auto", dtype: torch.dtype = torch.float32
) -> AppState:
    """Open a model, an index, or both; the model of the index is opened once where it is the same.

    dtype: of a model that is not the index's. Raises what `open_encoder` and `Index.open` raise.
    """
    if index is None:
        return AppState(None if model is None else open_encoder(model, [], device, dtype))
    found = Index.open(index)
    if found.reading is None:
        return AppState(None if model is None else open_encoder(model, [], device, dtype), found)
    own = found.reading["model"]
    if model is not None and str(Path(model).resolve()) != own and model != own:
        try:
            return AppState(open_encoder(model, [], device, dtype), found, found.encoder(device))
        except FileNotFoundError:  # it was moved, perhaps to there
            own = model
    reader = found.encoder(device, own)
    return AppState(reader, found, reader)
