"""What the page was given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from ..encoders import Encoder, PipelineEncoder
from ..pipeline import Pipeline


@dataclass(frozen=True)
class Opened:
    """encoder: what reads pictures, a model of randfeat or of timm, with the readings of its own default."""

    encoder: Encoder

    @property
    def model(self) -> Pipeline | None:
        """The generator with its tokenizer, None where a model of timm reads."""
        return self.encoder.pipeline if isinstance(self.encoder, PipelineEncoder) else None

    def generator(self) -> Pipeline:
        """`model`, for a tab that is there only because there is one."""
        if self.model is None:
            raise ValueError(self.no_generator())
        return self.model

    def no_generator(self) -> str:
        return f"{self.encoder.name} reads pictures and makes none: give a model of randfeat with --model."
