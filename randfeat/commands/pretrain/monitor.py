"""Monitor of a pretraining run: its steps, held-out losses, k-NN accuracy and grids of samples."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from randfeat.data import conditions
from randfeat.data.images import preview
from randfeat.data.token_store import TokenStore
from randfeat.inference import readout
from randfeat.models import Generator
from randfeat.pipeline.pipeline import Pipeline
from randfeat.pipeline.sample_folder import control_sheet
from randfeat.pretrain import PretrainConfig, Step, Validation
from randfeat.probes import KNN
from randfeat.tokenizers import Tokenizer
from randfeat.utils import devices, distributed, drawing

from ..training.monitor import VALIDATION, StepMonitor, memory

PLACES, SAMPLES = "by_place.csv", "samples"
BANK, QUERIES = 2000, 500  # images of the k-NN probe, at most
FORWARD_AND_BACKWARD = 3  # operations of a training step over those of a forward pass
MATMUL = 2048  # side of the matrices whose product measures the peak of the device


class Monitor(StepMonitor[Step]):
    """Monitor of steps and validations. The first process writes; the others take part in what all must compute."""

    def __init__(
        self,
        args: argparse.Namespace,
        recipe: PretrainConfig,
        store: TokenStore,
        tokenizer: Tokenizer,
        paired: TokenStore | None,
        device: torch.device,
    ) -> None:
        super().__init__(args.out, recipe.training.steps, args.every, device)
        self.recipe, self.store, self.tokenizer, self.paired = recipe, store, tokenizer, paired
        self.samples = args.samples if recipe.running.parallel == "ddp" or distributed.world_size() == 1 else 0
        self.knn = self.first and not args.no_knn and store.labels is not None and self.samples > 0
        self.operations = _operations(recipe, store)
        self.peak = _peak(device, recipe.running.precision) if self.first else 1.0

    def row(self, window: Sequence[Step], speed: float) -> dict[str, float]:
        return {
            "loss": float(np.mean([one.loss for one in window])),
            "learning_rate": window[-1].learning_rate,
            "gradient_norm": window[-1].gradient_norm,
            "images_per_second": speed,
            "tokens_per_second": speed * self.store.grid[0] * self.store.grid[1],
            "share_of_peak": speed * self.operations / (self.peak * distributed.world_size()),
            "memory_gib": memory(self.device),
        }

    def summary(self, row: Mapping[str, float]) -> str:
        return f"{row['loss']:.3f} nats/token, {row['images_per_second']:.1f} images/s"

    def on_validation(self, found: Validation) -> None:
        """Measure the loss by order mode, in all processes; write it, sample and probe in the first one."""
        modes = {mode: float(found.measure(mode).mean()) for mode in found.model.order_modes}
        if not self.first:
            return
        row: dict[str, float] = {"loss": found.loss, **modes}
        if self.knn:
            row["knn_accuracy"] = self._probe(found.model)
        self.write(VALIDATION, found.step, row)
        self.write(PLACES, found.step, {str(place): float(x) for place, x in enumerate(found.by_place)}, board=False)
        if self.samples:
            self._sample(found)

    def _sample(self, found: Validation) -> None:
        """Write a grid of samples."""
        names = self.store.classes if self.recipe.labels and self.store.classes else ()
        model = Pipeline(self.tokenizer, found.model, names)
        with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
            picture = self._grid(model) if found.model.control is None else self._controlled(model)
        self.write_sheet(SAMPLES, found.step, picture)

    def _grid(self, model: Pipeline) -> Image.Image:
        classes = model.generator.num_classes
        labels = [number % classes if classes else None for number in range(self.samples)]
        return drawing.grid([preview(image) for image in model.sample(labels, seed=0)])

    def _controlled(self, model: Pipeline) -> Image.Image:
        """Return samples with the labels and the conditions of the first images of DATA."""
        source = self.store if self.paired is None else self.paired
        tokens = torch.from_numpy(source.tokens[: self.samples, 0].astype(np.int64)).to(self.device)
        control = model.conditions(model.decode(tokens).float().cpu())
        known = self.store.labels if model.generator.num_classes else None
        labels = [None] * len(control) if known is None else known[: len(control)]
        made = model.sample(labels, seed=0, control=control, control_type=conditions.GIVEN)
        return control_sheet(model, control, [preview(image) for image in made])

    def _probe(self, model: Generator) -> float:
        """Return the accuracy, in 0..1, of k-NN on features of the default spec: some images of DATA against others."""
        labels = np.array([-1 if label is None else label for label in self.store.labels or ()])
        rows = np.random.default_rng(0).permutation(np.flatnonzero(labels >= 0))[: BANK + QUERIES]
        tokens = torch.from_numpy(self.store.tokens[np.sort(rows), 0].astype(np.int64))
        (read,) = readout.read(model, tokens, [readout.default(model)])
        known, cut = labels[np.sort(rows)], min(QUERIES, len(rows) // 5)
        mixed = np.random.default_rng(1).permutation(len(rows))
        bank, queries = mixed[cut:], mixed[:cut]
        x = read.numpy()
        return float(KNN(20).fit(x[bank], known[bank]).score(x[queries], known[queries])) if cut else float("nan")


def _operations(recipe: PretrainConfig, store: TokenStore) -> float:
    """Return the floating-point operations of a training step for one image: matrix products and attention."""
    with devices.meta():
        # the counter fails on views of parameters that require gradients, such as ARPG's mask token
        model = recipe.build(store.grid, store.vocab_size, 1 if recipe.labels else 0).requires_grad_(False)
        tokens = torch.zeros(1, store.grid[0] * store.grid[1], dtype=torch.int64)
        order = torch.arange(tokens.shape[1]).unsqueeze(0)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(tokens, torch.zeros(1, dtype=torch.int64, device="meta"), order)
    return FORWARD_AND_BACKWARD * counter.get_total_flops()


def _peak(device: torch.device, precision: str) -> float:
    """Return the operations a second that a large matrix product reaches on this device."""
    side = MATMUL if device.type == "cpu" else 4 * MATMUL
    a, b = (torch.randn(side, side, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        (a @ b)[0, 0].item()
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best
