"""One unit of the study: a model pretrained with one seed on one set, its features ranked on train, scored on test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from randfeat.pretrain import Objective, RuntimeConfig, Step, train
from randfeat.probes import PatchCounts, colour_histogram, hog, pixels, recentred, token_codes, token_counts
from safetensors.torch import load_file, save

from randfeat.inference import likelihood, readout
from randfeat.inference.readout import FeatureSpec
from randfeat.models import Generator, packed
from randfeat.utils import arrays, atomic, progress

from . import scoring
from .controls import Classifier
from .material import Material
from .material import read as read_material
from .models import (
    MODELS,
    SIZE,
    ModelSize,
    StudyModel,
    build,
    extraction_flops,
    inputs_of,
    labels_of,
    recipe,
    training_flops,
    training_inputs,
    tuned,
)

CONFIGS = Path(__file__).parent / "configs"
ORDERS = (1, 16)  # numbers of orders of likelihoods
RECORD, SCORES = "record.json", "scores.npz"
RANKED = "ranked.npz"  # of a unit: held-out scores of each training image, by "MEASURE|SPEC"
EQUAL = 64  # principal components in comparisons at equal dimension
SAME_COST = 1.02  # largest relative cost to count as equal: a causal pass leaves the last token out


@dataclass(frozen=True)
class Job:
    """Job of one unit. material: file of the set. folder: of the unit's results.

    steps: of RandAR; other models train for as many as cost the same. rate: learning rate found for the model. device:
    of training and feature extraction.
    """

    set: str
    model: str
    seed: int
    material: Path
    folder: Path
    steps: int = 0
    rate: float = 0.0
    size: ModelSize = SIZE
    device: str = "cpu"

    @property
    def name(self) -> str:
        """SET/MODEL/SEED."""
        return f"{self.set}/{self.model}/{self.seed}"


@cache
def feature_specs(family: str) -> tuple[str, ...]:
    """Return the feature specs of a family of models, from `configs/FAMILY.yaml`, the centre first."""
    lists = yaml.safe_load((CONFIGS / f"{family}.yaml").read_text("utf-8"))
    specs = [lists.pop("centre"), *(spec for part in lists.values() for spec in part)]
    if len(set(specs)) != len(specs) or len(specs) > 40:
        raise ValueError(f"{family}.yaml has {len(specs)} feature specs, expected at most 40 and none twice")
    return tuple(specs)


def pretrain(
    model: StudyModel, material: Material, job: Job, line: int, share: float = 1
) -> tuple[Generator, dict[str, Any]]:
    """Return a network with the weights of its best validation, and the record of its training, which is resumable.

    share: of the steps to train.
    """
    network = build(model, material, job.seed, job.size).to(job.device)
    if not model.trained:
        return network.eval(), {"flops": 0}
    how = recipe(model, material, job.steps, job.rate, job.seed, job.size)
    how = how if share == 1 else tuned(how, share)
    runtime = RuntimeConfig(precision="float32" if job.device == "cpu" else "bfloat16")
    seen, steps = inputs_of(model, material), job.folder / "checkpoints"
    labels, watched = (labels_of(model, material, rows) for rows in (material.fit, material.held_out))
    shown, pair = training_inputs(model, material, material.fit)
    held_out = seen[material.held_out].long(), watched
    paired = None if pair is None or model.objective is Objective else (pair, None)
    with progress.bar(how.steps, f"{job.set} {job.model} {job.seed}", "step", line) as bar:

        def tick(done: Step) -> None:
            bar.set_postfix_str(f"{done.loss:.3f}", refresh=False)
            bar.update()

        history = train(
            network,
            shown,
            labels,
            held_out,
            how,
            runtime,
            objective=model.objective,
            directory=steps,
            paired=paired,
            on_step=tick,
        )
    return network, {
        "training": asdict(how),
        "flops": training_flops(model, material, job.size) * how.batch_size * how.steps,
        "validation": history.validation,
        "kept_step": history.kept_step,
    }


def extraction_costs(model: StudyModel, material: Material, size: ModelSize) -> dict[str, int]:
    """Return the floating-point operations, for one image, of each feature spec of the model's family."""
    with torch.device("meta"):
        network = build(model, material, 0, size)
    values = inputs_of(model, material).shape[1]
    return {spec: extraction_flops(network, FeatureSpec.parse(spec), values) for spec in feature_specs(model.family)}


def classical(material: Material) -> dict[str, np.ndarray]:
    """Return the baseline features of all images, float32 (n, d) by name. k-means is fitted to training images only."""
    tokens = {"token counts": token_counts(material.tokens, len(material.codebook))}
    if material.codebook.shape[1]:
        tokens["token codes"] = token_codes(material.tokens, material.codebook)
    if material.images is None:
        return tokens
    images = material.images
    straight = recentred(images).reshape(images.shape)
    bag = PatchCounts(256, max(3, material.patch)).fit(images[material.probed])
    made = {
        "pixels": pixels(images),
        "recentred pixels": straight.reshape(len(images), -1),
        "HOG": hog(images),
        "HOG of recentred": hog(straight),
        "patch counts": bag.transform(images),
        **tokens,
    }
    return made | ({"colours": colour_histogram(images)} if images.ndim == 4 else {})


def extract(network: Generator, seen: torch.Tensor, specs: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the features of each spec, float32 (n, d). Specs that share passes are computed together."""
    groups: dict[tuple, list[str]] = {}
    for spec in specs:
        parsed = FeatureSpec.parse(spec)
        groups.setdefault((parsed.orders, parsed.context, parsed.stream), []).append(spec)
    for members in groups.values():
        made = readout.read(network, seen.long(), [FeatureSpec.parse(spec) for spec in members])
        yield from zip(members, (x.flatten(1).numpy() for x in made), strict=True)


def kinds(flops: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the kinds of feature specs, of each of which the best on train is scored on test.

    They are all specs; one causal pass; context on both sides; and that at the cost of one causal pass.
    """
    parsed = {spec: FeatureSpec.parse(spec) for spec in flops}
    single = [spec for spec, one in parsed.items() if len(one.passes) == 1 and one.context == "causal"]
    both = [spec for spec in parsed if spec not in single]
    if not single:
        return {"any": both}
    most = SAME_COST * max(flops[spec] for spec in single)
    return {"any": [*flops], "one": single, "both": both, "both, equal": [x for x in both if flops[x] <= most]}


def measure(
    read: Callable[[np.ndarray, Sequence[str]], Iterable[tuple[str, np.ndarray]]],
    compete: Mapping[str, Sequence[str]],
    material: Material,
    kept: Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the choices, and the score of each test image by "MEASURE|KIND", with "|64" in that many dimensions.

    read: yields names and features of some rows, for some feature specs. compete: feature specs by kind. kept: file of
    the scores of training images, which are made if it does not exist.
    """
    probed, tested = material.probed, material.tested
    task, ranking = (
        scoring.Task(material.labels[rows], material.groups[rows], material.labels[tested])
        for rows in (probed, material.ranked)
    )
    names = [*dict.fromkeys(name for kind in compete.values() for name in kind)]
    if not kept.exists():
        keep(kept, scoring.rank(read(material.ranked, names), ranking))
    with np.load(kept) as file:
        ranked = {how: {name: file[f"{how}|{name}"] for name in names} for how in scoring.MEASURES}
    chosen = {f"{how}|{kind}": scoring.best(ranked[how], among) for how in ranked for kind, among in compete.items()}
    made = dict(read(np.concatenate((probed, tested)), sorted({*chosen.values()})))

    @cache  # often one spec is the best of several kinds
    def scored(how: str, spec: str, pca: int | None) -> tuple[str, np.ndarray]:
        return scoring.score(how, *np.split(made[spec], [len(probed)]), task, pca)

    settings, test = {}, {}
    for name, spec in chosen.items():
        how, kind = name.split("|")
        for pca in (None, EQUAL) if kind == "any" else (None,):
            full = name if pca is None else f"{name}|{pca}"
            settings[full], test[full] = scored(how, spec, pca)
    return {"chosen": chosen, "settings": settings}, test


@torch.no_grad()
def classified(network: Generator, seen: torch.Tensor, material: Material) -> dict[str, np.ndarray]:
    """Return whether the network itself classifies each test image right, by method.

    A generator gives the class of the highest log-likelihood, in one order and as the mean over sixteen.
    """
    tokens, truth = seen[material.tested].long(), material.labels[material.tested]
    if isinstance(network, Classifier):
        return {"itself": network.logits(tokens).argmax(-1).numpy() == truth}
    found = likelihood.class_log_prob(network, tokens, count=max(ORDERS))
    return {f"likelihood, K = {k}": found[..., :k].mean(-1).argmax(-1).numpy() == truth for k in ORDERS}


def run(job: Job, line: int = 0) -> Path:
    """Train a model with one seed and score its features; finished parts are kept. line: of the progress bar."""
    if (done := job.folder / "record.json").exists():
        return done
    material, model = read_material(job.set, job.material), MODELS[job.model]
    reader, record = opened(model, material, job, line)
    seen = inputs_of(model, material)
    if model.labels:
        return write(job.folder, record, classified(reader, seen, material))
    costs = extraction_costs(model, material, job.size)
    kept = job.folder / RANKED
    found, test = measure(lambda rows, specs: extract(reader, seen[rows], specs), kinds(costs), material, kept)
    return write(job.folder, record | {"reading_flops": costs, **found}, test)


def opened(model: StudyModel, material: Material, job: Job, line: int = 0) -> tuple[Generator, dict[str, Any]]:
    """Return the network of a unit, ready for feature extraction, and its record; it is trained if need be."""
    weights, record_file = job.folder / "weights.safetensors", job.folder / "training.json"
    if weights.exists():
        network = build(model, material, job.seed, job.size)
        network.load_state_dict(load_file(weights))
        trained = json.loads(record_file.read_text("utf-8"))
    else:
        job.folder.mkdir(parents=True, exist_ok=True)
        network, trained = pretrain(model, material, job, line)
        atomic.write_bytes(record_file, json.dumps(trained).encode())
        atomic.write_bytes(weights, save(network.state_dict()))
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    record = {"job": job.name, **trained, "parameters": sum(one.numel() for one in network.parameters())}
    network.to(job.device).eval()
    return packed.inference_copy(network) if packed.can_prepack(network) else network, record


def run_classical(job: Job, line: int = 0) -> Path:
    """Score the baseline features in the same way."""
    if (done := job.folder / "record.json").exists():
        return done
    material = read_material(job.set, job.material)
    made = classical(material)
    compete = {"any": [*made], **{name: [name] for name in made}}  # the strongest on train, and each by itself
    kept = job.folder / RANKED
    found, test = measure(lambda rows, names: ((name, made[name][rows]) for name in names), compete, material, kept)
    return write(job.folder, {"job": job.name, **found}, test)


def write(
    folder: Path, made: Mapping[str, Any], scores: Mapping[str, np.ndarray], names: tuple[str, str] = (RECORD, SCORES)
) -> Path:
    """Write the scores of a unit's part, and then its record, which marks the part as done; return the record's path.

    names: of both files.
    """
    record, measured = names
    keep(folder / measured, scores)
    atomic.write_bytes(folder / record, json.dumps(made, indent=1).encode())
    return folder / record


def keep(path: Path, scores: Mapping[str, np.ndarray]) -> None:
    """Write scores from 0 to 1 in half precision, atomically."""
    arrays.write_npz(path, {name: right.astype(np.float16) for name, right in scores.items()})
