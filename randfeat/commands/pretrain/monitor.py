"""Monitor of a pretraining run: its steps, held-out losses, k-NN accuracy, grids of samples, and decoded tokens."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from randfeat.data import conditions
from randfeat.data.images import preview
from randfeat.data.sources import Source
from randfeat.data.token_store import TokenStore
from randfeat.inference import readout
from randfeat.models import Generator
from randfeat.pipeline.pipeline import Pipeline
from randfeat.pipeline.sample_folder import control_sheet
from randfeat.pretrain import PretrainConfig, Step, Validation
from randfeat.pretrain.checks import class_labels, class_names, held_out_count
from randfeat.pretrain.data import shuffle
from randfeat.pretrain.generator import OTHER_ORDERS_ON, VALIDATION_ORDERS
from randfeat.pretrain.start import Start
from randfeat.probes import KNN
from randfeat.tokenizers import Tokenizer
from randfeat.utils import distributed, drawing, progress

from ..training.monitor import VALIDATION, StepMonitor, memory
from .decoded import COUNT, write_decoded
from .page import PLACES, SAMPLES, write_page
from .plan import FORWARD_AND_BACKWARD, cheaper, operations, plan_of, planned

BANK, QUERIES = 2000, 500  # images of the k-NN probe, at most
ALL = BANK + QUERIES
MATMUL = 2048  # side of the matrices whose product measures the peak of the device


class Monitor(StepMonitor[Step]):
    """Monitor of steps and validations. The first process writes; the others take part in what all must compute."""

    def __init__(
        self,
        args: argparse.Namespace,
        recipe: PretrainConfig,
        store: TokenStore,
        tokenizer: Tokenizer,
        data: TokenStore | Source,
        device: torch.device,
        *,
        validation: TokenStore | None,
        held_out: float,
        paired: TokenStore | None,
        init: Start | None,
    ) -> None:
        """store: the tokens. data: those, or the images that they were made of. The rest: see `run_pretraining`."""
        self.held_out = held_out_count(len(store), held_out) if held_out else 0
        held = self.held_out or len(validation or ())
        self.samples = args.samples if recipe.running.parallel == "ddp" or distributed.world_size() == 1 else 0
        self.knn = distributed.rank() == 0 and not args.no_knn and store.labels is not None and self.samples > 0
        made = planned(recipe, store, tokenizer)
        cost = _validation_cost(recipe, len(made.order_modes), held, self.samples, self.knn * min(ALL, len(store)))
        super().__init__(args.out, recipe.training, args.every, device, cost if held else None)
        self.args, self.recipe, self.store, self.tokenizer, self.paired = args, recipe, store, tokenizer, paired
        self.source = None if isinstance(data, TokenStore) else data
        self.operations = operations(recipe, store.grid, store.vocab_size)
        self.peak = _peak(device, recipe.running.precision) if self.first else 1.0
        if self.first:
            print(plan_of(recipe, store, made, held), file=sys.stderr)

    def write_page(self, state: str) -> Path:
        return write_page(self.directory, self.recipe, state)

    def cheaper(self) -> str:
        return cheaper(self.args, self.recipe, self.store, self.tokenizer)

    def on_step(self, step: Step) -> None:
        if self.first and self.done is None:
            self._decode()
        super().on_step(step)

    def _decode(self) -> None:
        """Write the sheet of images above their tokens, decoded: held-out ones where there are any."""
        rows = np.linspace(0, len(self.store) - 1, min(COUNT, len(self.store))).astype(int).tolist()
        if self.held_out:
            rows = shuffle(self.recipe.training.seed, -1, len(self.store))[: min(COUNT, self.held_out)].tolist()
        which = self.store, self.tokenizer, rows, self.held_out > 0
        progress.tell(write_decoded(self.directory, self.source, *which).about)

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
        self.refresh_page()

    def _sample(self, found: Validation) -> None:
        """Write a grid of samples."""
        names = (class_names(self.store) or ()) if self.recipe.labels else ()
        model = Pipeline(self.tokenizer, found.model, names)
        with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
            picture = self._grid(model) if found.model.control is None else self._controlled(model)
        self.write_sheet(SAMPLES, found.step, picture)

    def _grid(self, model: Pipeline) -> Image.Image:
        classes = model.generator.num_classes
        labels = [number % classes if classes else None for number in range(self.samples)]
        captions = [model.classes.short(label) for label in labels if label is not None] or None
        return drawing.grid([preview(image) for image in model.sample(labels, seed=0)], captions=captions)

    def _controlled(self, model: Pipeline) -> Image.Image:
        """Return samples with the labels and the conditions of the first images of DATA."""
        source = self.store if self.paired is None else self.paired
        tokens = torch.from_numpy(source.tokens[: self.samples, 0].astype(np.int64)).to(self.device)
        control = model.conditions(model.decode(tokens).float().cpu())
        known = class_labels(self.recipe, self.store, model.generator) if model.generator.num_classes else None
        none, labels = model.generator.num_classes, list[int | None]([None] * len(control))
        if known is not None:
            labels = [None if label == none else label for label in known[: len(control)].tolist()]
        made = model.sample(labels, seed=0, control=control, control_type=conditions.GIVEN)
        names = [model.classes.short(label) for label in labels if label is not None]
        return control_sheet(model, control, [preview(image) for image in made], names)

    def _probe(self, model: Generator) -> float:
        """Return the accuracy, in 0..1, of k-NN on features of the default spec: some images of DATA against others."""
        labels = np.array([-1 if label is None else label for label in self.store.labels or ()])
        rows = np.random.default_rng(0).permutation(np.flatnonzero(labels >= 0))[:ALL]
        tokens = torch.from_numpy(self.store.tokens[np.sort(rows), 0].astype(np.int64))
        (read,) = readout.read(model, tokens, [readout.default(model)])
        known, cut = labels[np.sort(rows)], min(QUERIES, len(rows) // 5)
        mixed = np.random.default_rng(1).permutation(len(rows))
        bank, queries = mixed[cut:], mixed[:cut]
        x = read.numpy()
        return float(KNN(20).fit(x[bank], known[bank]).score(x[queries], known[queries])) if cut else float("nan")


def _validation_cost(recipe: PretrainConfig, modes: int, held_out: int, samples: int, probed: int) -> float:
    """Return what a validation costs by its operations, in steps of the training. modes: order modes that are measured.
    held_out, samples, probed: numbers of images.
    """
    looked_at = VALIDATION_ORDERS * (held_out + (modes - 1) * min(held_out, OTHER_ORDERS_ON))
    return (looked_at + 2 * samples + probed) / (FORWARD_AND_BACKWARD * recipe.training.batch_size)


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
