"""Monitor of a tokenizer's training: its steps, held-out errors, use of the codes and sheets of reconstructions."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from randfeat.data.images import preview
from randfeat.pretrain import Step
from randfeat.pretrain.vq import Reconstruction, TokenizerConfig
from randfeat.utils import drawing

from ..training.monitor import VALIDATION, StepMonitor, memory

RECONSTRUCTIONS = "reconstructions"
COLUMNS = 8  # images in a row of a sheet
TIMED = 10  # steps after which the time of the others is told


class TokenizerMonitor(StepMonitor[Step]):
    """Monitor of steps and validations. The first process writes."""

    title = "training the tokenizer"

    def __init__(self, directory: Path, recipe: TokenizerConfig, every: int, device: torch.device) -> None:
        super().__init__(directory, recipe.training.steps, every, device)
        self.ended: list[float] = []  # when each of the first steps ended

    def on_step(self, step: Step) -> None:
        if self.first and len(self.ended) <= TIMED:
            self.ended.append(time.perf_counter())
            if len(self.ended) > TIMED and step.step < self.steps:
                usual = float(np.median(np.diff(self.ended)))
                left = self.steps - step.step
                said = f"about {duration(usual * left)} for the other {left:,} steps, validations apart"
                tqdm.write(said, file=sys.stderr)
        super().on_step(step)

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
        originals, made = ([preview(image) for image in one] for one in (found.images, found.reconstructed))
        rows = []
        for start in range(0, len(originals), COLUMNS):
            rows += [*originals[start : start + COLUMNS], *made[start : start + COLUMNS]]
        columns = COLUMNS if len(originals) % COLUMNS == 0 else min(COLUMNS, len(originals))
        self.write_sheet(RECONSTRUCTIONS, found.step, drawing.grid(rows, columns))


def duration(seconds: float) -> str:
    """Return a duration in words: "40 seconds", "25 minutes", "3.5 hours"."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole > 1)}"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
