"""Monitor of a tokenizer's training: its steps, held-out errors, use of the codes and sheets of reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from randfeat.pretrain import Step
from randfeat.pretrain.vq import Reconstruction, TokenizerConfig

from ..training.monitor import VALIDATION, StepMonitor, memory
from ..training.sheet import reconstructions
from .training_page import RECONSTRUCTIONS, write_page

FORWARD = 1 / 3  # cost of an image that is looked at, of one that is trained on


class TokenizerMonitor(StepMonitor[Step]):
    """Monitor of steps and validations. The first process writes."""

    title = "training the tokenizer"

    def __init__(
        self, directory: Path, recipe: TokenizerConfig, every: int, device: torch.device, held_out: int
    ) -> None:
        """recipe: with the channels of the images. held_out: number of held-out images."""
        validation = FORWARD * held_out / recipe.training.batch_size
        super().__init__(directory, recipe.training, every, device, validation if held_out else None)
        self.recipe = recipe

    def write_page(self, state: str) -> Path:
        return write_page(self.directory, self.recipe, state)

    def row(self, window: Sequence[Step], speed: float) -> dict[str, float]:
        return {
            "loss": float(np.mean([one.loss for one in window])),
            **{name: float(np.mean([one.terms[name] for one in window])) for name in window[-1].terms},
            "learning_rate": window[-1].learning_rate,
            "gradient_norm": window[-1].gradient_norm,
            "images_per_second": speed,
            "memory_gib": memory(self.device),
        }

    def summary(self, row: Mapping[str, float]) -> str:
        return f"loss {row['loss']:.4f}, {row['images_per_second']:.1f} images/s"

    def on_validation(self, found: Reconstruction) -> None:
        """Write the held-out errors, and a sheet of originals above their reconstructions."""
        if not self.first:
            return
        self.write(VALIDATION, found.step, {"loss": found.loss, **found.terms})
        self.write_sheet(RECONSTRUCTIONS, found.step, reconstructions([*found.images], [*found.reconstructed]))
        self.refresh_page()
