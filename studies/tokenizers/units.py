"""One unit of the study: a tokenizer and a generator on its tokens, of one seed on one set, read and scored on test.

Each part is kept in the unit's folder when it is done. A training goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randfeat.pretrain import RuntimeConfig, Step, TrainingConfig, train
from safetensors.torch import load_file, save

from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec, sub_patch_shifts
from randfeat.models import Generator, packed
from randfeat.tokenizers import Tokenizer
from randfeat.utils import atomic, progress
from studies.reading import attended, scoring, warped
from studies.reading.material import Material, as_pixels
from studies.reading.models import MODELS, ModelSize, build
from studies.reading.units import extract, keep, measure

from .arms import BATCH, SECONDS, encoded, tokenizer
from .sets import Pictures

RECORD, SCORES, TOKENIZER = "record.json", "scores.npz", "tokenizer"
RATE = 2e-3  # of the generator
SIZE = ModelSize(width=64, depth=4, batch=32)  # ARPG has half of the blocks in each part
READINGS = tuple(f"raster/full/query/L-1/{pool}/mean" for pool in ("mean", "grid2", "grid4"))
DENSE = tuple(f"raster/full/query/{layer}/none/mean" for layer in ("L-1", "L0.67"))
PLACES = 2  # sub-patch shifts per axis
VIEWS = "as it is", "2 x 2 shifts"
ATTENTIVE = ((3e-3, 20), (1e-3, 20))  # learning rates and epochs, the first to choose a feature spec by


@dataclass(frozen=True)
class Unit:
    """A unit of the study. folder: of its parts. found: where its results are kept. steps: of the generator."""

    pictures: Pictures
    arm: str
    seed: int
    folder: Path
    found: Path
    steps: int
    size: ModelSize = field(default_factory=lambda: SIZE)

    @property
    def name(self) -> str:
        """SET/ARM/SEED."""
        return f"{self.pictures.name}/{self.arm}/{self.seed}"


@dataclass(frozen=True)
class Coded:
    """A set in tokens.

    material: with the tokens of the images as they are. shifted: int64 (n, 4, N), at the sub-patch shifts, of the rows
    that are read; elsewhere 0.
    """

    material: Material
    shifted: torch.Tensor
    tokenizer: Tokenizer

    def read(self, network: Generator, rows: np.ndarray, specs: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield names and features (n, d) of some rows, of each spec by the tokens of the places that it reads."""
        plain = [spec for spec in specs if FeatureSpec.parse(spec).shifts == 1]
        yield from extract(network, torch.from_numpy(self.material.tokens[rows]), plain)
        yield from extract(network, self.shifted[rows], [spec for spec in specs if spec not in plain])


def coded(pictures: Pictures, made: Tokenizer) -> Coded:
    """Return a set in the tokens of a tokenizer."""
    pixels = as_pixels(pictures.images)
    tokens = encoded(made, pixels)
    read = np.union1d(pictures.probed, pictures.tested)
    places = sub_patch_shifts(pixels[read], made.stride, PLACES)
    shifted = tokens.new_zeros(len(pixels), PLACES**2, tokens.shape[1])
    shifted[read] = encoded(made, places.flatten(0, 1)).unflatten(0, (len(read), -1))
    rows = {name: getattr(pictures, name) for name in ("labels", "groups", "fit", "held_out", "probed", "tested")}
    book = np.empty((made.vocab_size, 0), np.float32)
    material = Material(pictures.name, pictures.grid, tokens.numpy(), book, images=pictures.images, **rows)
    return Coded(material, shifted, made)


def generator(unit: Unit, material: Material) -> tuple[Generator, dict[str, Any]]:
    """Return a label-free ARPG trained on the tokens, with the weights of its best validation, and a record."""
    weights, record = unit.folder / "generator.safetensors", unit.folder / "generator.json"
    network = build(MODELS["arpg"], material, unit.seed, unit.size)
    if weights.exists():
        network.load_state_dict(load_file(weights))
        return network.eval(), json.loads(record.read_text("utf-8"))
    how = TrainingConfig(
        steps=unit.steps,
        batch_size=unit.size.batch,
        learning_rate=RATE,
        warmup=max(1, unit.steps // 10),
        eval_every=max(1, unit.steps // 3),
        seed=unit.seed,
    )
    tokens, checkpoints = torch.from_numpy(material.tokens), unit.folder / "checkpoints"
    with progress.bar(how.steps, unit.name, "step") as bar:

        def tick(done: Step) -> None:
            bar.set_postfix_str(f"{done.loss:.3f}", refresh=False)
            bar.update()

        history = train(
            network,
            tokens[material.fit],
            None,
            (tokens[material.held_out], None),
            how,
            RuntimeConfig(save_every=max(1, unit.steps // 6)),
            directory=checkpoints,
            on_step=tick,
        )
    made = {"steps": how.steps, "kept_step": history.kept_step, "nats": history.best, "seconds": history.seconds}
    atomic.write_json(record, made)
    atomic.write_bytes(weights, save(network.state_dict()))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return network.eval(), made


def run(unit: Unit) -> Path:
    """Make the results of a unit where they are not there: SCORES, of each test image, and then RECORD; its path."""
    if (done := unit.found / RECORD).exists():
        return done
    unit.folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer(unit.arm, unit.pictures, unit.seed, unit.folder / TOKENIZER)
    whole = coded(unit.pictures, made)
    trained, record = generator(unit, whole.material)
    reader = packed.inference_copy(trained) if packed.can_prepack(trained) else trained
    began = time.process_time()
    parts = [
        part(unit.folder, name, scored, whole, reader)
        for name, scored in (("probed", probed), ("attended", attend), ("warped", warp))
    ]
    chosen = {key: value for found, _ in parts for key, value in found.items()}
    scores = {key: value for _, found in parts for key, value in found.items()}
    counts = np.bincount(whole.material.tokens[unit.pictures.tested].ravel(), minlength=made.vocab_size)
    seconds = json.loads((unit.folder / TOKENIZER / SECONDS).read_text("utf-8"))["seconds"]
    keep(unit.found / SCORES, scores)
    told = {
        "unit": unit.name,
        "tokens": int(np.prod(unit.pictures.grid)),
        "codes": made.vocab_size,
        "codes_used_on_test": int((counts > 0).sum()),
        "mse_on_test": error(unit.pictures, whole),
        "tokenizer_parameters": sum(one.numel() for one in made.parameters()),
        "tokenizer_seconds": seconds,
        "generator": record,
        "generator_parameters": sum(one.numel() for one in trained.parameters()),
        "reading_seconds": round(time.process_time() - began, 1),
        "chosen": chosen,
        "means": {name: float(right.mean(dtype=np.float64)) for name, right in scores.items()},
    }
    atomic.write_json(done, told)
    return done


@torch.no_grad()
def error(pictures: Pictures, whole: Coded) -> float:
    """Return the mean squared error of the test images' reconstructions, of values in [0, 1]."""
    tokens = torch.from_numpy(whole.material.tokens[pictures.tested]).unflatten(1, pictures.grid)
    made = torch.cat([whole.tokenizer.decode(part) for part in tokens.split(BATCH)])
    return float((made - as_pixels(pictures.images[pictures.tested])).square().mean())


def part(
    folder: Path, name: str, scored: Any, whole: Coded, network: Generator
) -> tuple[dict[str, str], Mapping[str, np.ndarray]]:
    """Return choices and scores of a part, from its files where it is done."""
    record, scores = folder / f"{name}.json", folder / f"{name}.npz"
    if not record.exists():
        chosen, right = scored(whole, network, folder)
        keep(scores, right)
        atomic.write_json(record, chosen)
    with np.load(scores) as file:
        return json.loads(record.read_text("utf-8")), dict(file)


def probed(whole: Coded, network: Generator, folder: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the spec and probe chosen for each measure and view, and the scores of linear, k-NN and 5-shot."""
    compete = {VIEWS[0]: READINGS, VIEWS[1]: [f"{spec}/shifts{PLACES}" for spec in READINGS]}

    def read(rows: np.ndarray, specs: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        return whole.read(network, rows, specs)

    found, test = measure(read, compete, whole.material, folder / "ranked.npz")
    return {name: f"{spec}, {found['settings'][name]}" for name, spec in found["chosen"].items()}, test


def attend(whole: Coded, network: Generator, folder: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the same of AIM's attentive probe, which reads the images as they are."""
    tokens = torch.from_numpy(whole.material.tokens)

    def maps(spec: str) -> attended.Maps:
        return lambda rows: readout.read(network, tokens[rows], [FeatureSpec.parse(spec)])[0].numpy()

    compete = {VIEWS[0]: DENSE}
    found, test = attended.measure({spec: maps(spec) for spec in DENSE}, compete, whole.material, ATTENTIVE)
    name = f"{attended.MEASURE}|{VIEWS[0]}"
    return {name: f"{found['chosen'][VIEWS[0]]}, {found['settings'][VIEWS[0]]}"}, {name: test[VIEWS[0]]}


def warp(whole: Coded, network: Generator, folder: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the same of correspondence: points found again in the image turned, zoomed and moved."""
    material, made = whole.material, whole.tokenizer
    chosen, test = {}, {}

    def maps(spec: str) -> warped.Maps:
        parsed = FeatureSpec.parse(spec)

        def read(images: np.ndarray) -> np.ndarray:
            pixels = as_pixels(images)
            if parsed.shifts == 1:
                return readout.read(network, encoded(made, pixels), [parsed])[0].numpy()
            places = sub_patch_shifts(pixels, made.stride, parsed.shifts)
            tokens = encoded(made, places.flatten(0, 1)).unflatten(0, (len(pixels), -1))
            return readout.read(network, tokens, [parsed])[0].numpy()

        return read

    for view, shifts in zip(VIEWS, (1, PLACES), strict=True):
        specs = [str(replace(FeatureSpec.parse(spec), shifts=shifts)) for spec in DENSE]
        right = {spec: warped.found(maps(spec), material, material.ranked) for spec in specs}
        spec = chosen[f"PCK|{view}"] = scoring.best(right)
        test[f"PCK|{view}"] = warped.found(maps(spec), material, material.tested)
    return chosen, test
