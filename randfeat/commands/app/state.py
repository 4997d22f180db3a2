"""State of the page: the model and the index that are open."""

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
    """Model and index of the page.

    encoder: the model that was asked for, of any library, or else that of the index. reader: the model that the
    index was made with, None where its rows came as numbers.
    """

    encoder: Encoder | None = None
    index: Index | None = None
    reader: Encoder | None = None

    def __post_init__(self) -> None:
        for one in (self.encoder, self.reader):
            if one is not None:
                one.check_reads_pictures("the page")

    @property
    def model(self) -> Pipeline | None:
        """Generator with its tokenizer, None where the model is of timm or there is none."""
        return self.encoder.pipeline if isinstance(self.encoder, GeneratorEncoder) else None

    def generator(self) -> Pipeline:
        """Return `model` for a tab that is shown only where there is one."""
        assert self.model is not None
        return self.model

    def missing_model(self) -> str:
        """Return a sentence if there is no model, else ""."""
        return "" if self.encoder else "There is no model here: give one with --model."

    def missing_maps(self) -> str:
        """Return a sentence if there is no model, or one without features of positions, else ""."""
        if self.encoder is None:
            return self.missing_model()
        try:
            self.encoder.dense()
        except ValueError as error:
            return f"{error}."
        return ""

    def missing_generator(self) -> str:
        """Return a sentence if there is no generator, else ""."""
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
    if found.encoder_record is None:
        return AppState(None if model is None else open_encoder(model, [], device, dtype), found)
    own = found.encoder_record["model"]
    if model is not None and str(Path(model).resolve()) != own and model != own:
        try:
            return AppState(open_encoder(model, [], device, dtype), found, found.encoder(device))
        except FileNotFoundError:  # the index's model was moved, perhaps to `model`
            own = model
    reader = found.encoder(device, own)
    return AppState(reader, found, reader)
