"""One unit of the study: a contender pretrained with one seed on one set, read, ranked on train and scored on test."""

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
from randfeat.utils import atomic, progress

from . import scoring
from .contenders import (
    CONTENDERS,
    SIZE,
    Contender,
    Size,
    build,
    flops_of_reading,
    flops_of_training,
    labels_for,
    recipe,
    seen_by,
    shown_to,
    tuned,
)
from .controls import Classifier
from .material import Material
from .material import read as read_material

READINGS = Path(__file__).parent / "configs"
ORDERS = (1, 16)  # of likelihoods
RECORD, SCORES = "record.json", "scores.npz"
RANKED = "ranked.npz"  # of a unit: how right each image of train is, while held out, "MEASURE|READING"
EQUAL = 64  # dimensions of the comparison at equal dimension
SAME_COST = 1.02  # how much more a reading may cost than one causal pass, which leaves the last token unread


@dataclass(frozen=True)
class Job:
    """set, contender, seed: which unit. material: the file of the set. folder: where the unit is left.

    steps: of RandAR, whose cost all others are given. rate: of learning, as found for the contender. device: that
    trains and reads.
    """

    set: str
    contender: str
    seed: int
    material: Path
    folder: Path
    steps: int = 0
    rate: float = 0.0
    size: Size = SIZE
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.set}/{self.contender}/{self.seed}"


@cache
def readings(family: str) -> tuple[str, ...]:
    """Return the readings written down for a family of models, the centre first."""
    lists = yaml.safe_load((READINGS / f"{family}.yaml").read_text("utf-8"))
    specs = [lists.pop("centre"), *(spec for part in lists.values() for spec in part)]
    if len(set(specs)) != len(specs) or len(specs) > 40:
        raise ValueError(f"{family}.yaml has {len(specs)} readings, expected at most 40 and none twice")
    return tuple(specs)


def pretrain(
    contender: Contender, material: Material, job: Job, line: int, share: float = 1
) -> tuple[Generator, dict[str, Any]]:
    """Return a network with the weights of its best validation, and what to remember of its training, which goes on
    where it was stopped. share: of its steps."""
    network = build(contender, material, job.seed, job.size).to(job.device)
    if not contender.trained:
        return network.eval(), {"flops": 0}
    how = recipe(contender, material, job.steps, job.rate, job.seed, job.size)
    how = how if share == 1 else tuned(how, share)
    running = RuntimeConfig(precision="float32" if job.device == "cpu" else "bfloat16")
    seen, steps = seen_by(contender, material), job.folder / "checkpoints"
    labels, watched = (labels_for(contender, material, rows) for rows in (material.fit, material.held_out))
    shown, pair = shown_to(contender, material, material.fit)
    held_out = seen[material.held_out].long(), watched
    paired = None if pair is None or contender.objective is Objective else (pair, None)
    with progress.bar(how.steps, f"{job.set} {job.contender} {job.seed}", "step", line) as bar:

        def tick(done: Step) -> None:
            bar.set_postfix_str(f"{done.loss:.3f}", refresh=False)
            bar.update()

        history = train(
            network,
            shown,
            labels,
            held_out,
            how,
            running,
            objective=contender.objective,
            directory=steps,
            paired=paired,
            on_step=tick,
        )
    return network, {
        "training": asdict(how),
        "flops": flops_of_training(contender, material, job.size) * how.batch_size * how.steps,
        "validation": history.validation,
        "kept_step": history.kept_step,
    }


def reading_costs(contender: Contender, material: Material, size: Size) -> dict[str, int]:
    """Floating-point operations for one image, of each reading of the contender's family."""
    with torch.device("meta"):
        network = build(contender, material, 0, size)
    values = seen_by(contender, material).shape[1]
    return {spec: flops_of_reading(network, FeatureSpec.parse(spec), values) for spec in readings(contender.family)}


def classical(material: Material) -> dict[str, np.ndarray]:
    """Features that nobody trains, of all images: float32 (n, d) by name. k-means sees training images alone."""
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


def read_in(network: Generator, seen: torch.Tensor, specs: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Features of each reading, float32 (n, d). Readings that share passes are computed together and come together."""
    groups: dict[tuple, list[str]] = {}
    for spec in specs:
        parsed = FeatureSpec.parse(spec)
        groups.setdefault((parsed.orders, parsed.context, parsed.stream), []).append(spec)
    for members in groups.values():
        made = readout.read(network, seen.long(), [FeatureSpec.parse(spec) for spec in members])
        yield from zip(members, (x.flatten(1).numpy() for x in made), strict=True)


def kinds(flops: Mapping[str, int]) -> dict[str, list[str]]:
    """Readings that compete with each other, the best of each kind on train is scored on test: all; one causal pass;
    context on both sides; and that for what one causal pass through all blocks costs."""
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
    """What was chosen, and how right each image of test is under it ("MEASURE|KIND", with "|64" cut down to that many
    dimensions).

    read: features of some rows, for some readings by name. compete: kinds of readings. kept: the file of how right each
    image of train is, taken from there if it is made.
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

    @cache  # often one reading is the best of several kinds
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
    """Return whether each tested image is given its class, by the network itself: a classifier's, or the likeliest one
    of a generator, by the log-likelihood in one order and by its mean over sixteen."""
    tokens, truth = seen[material.tested].long(), material.labels[material.tested]
    if isinstance(network, Classifier):
        return {"itself": network.logits(tokens).argmax(-1).numpy() == truth}
    found = likelihood.class_log_prob(network, tokens, count=max(ORDERS))
    return {f"likelihood, K = {k}": found[..., :k].mean(-1).argmax(-1).numpy() == truth for k in ORDERS}


def run(job: Job, line: int = 0) -> Path:
    """Trains, reads and scores a contender with one seed; what lies there already is kept. line: of its bar."""
    if (done := job.folder / "record.json").exists():
        return done
    material, contender = read_material(job.set, job.material), CONTENDERS[job.contender]
    reader, record = opened(contender, material, job, line)
    seen = seen_by(contender, material)
    if contender.labels:
        return write(job.folder, record, classified(reader, seen, material))
    costs = reading_costs(contender, material, job.size)
    kept = job.folder / RANKED
    found, test = measure(lambda rows, specs: read_in(reader, seen[rows], specs), kinds(costs), material, kept)
    return write(job.folder, record | {"reading_flops": costs, **found}, test)


def opened(contender: Contender, material: Material, job: Job, line: int = 0) -> tuple[Generator, dict[str, Any]]:
    """Return the network of a unit, ready to be read, and what its record says of it; trained now if that is not done
    yet."""
    weights, told = job.folder / "weights.safetensors", job.folder / "training.json"
    if weights.exists():
        network = build(contender, material, job.seed, job.size)
        network.load_state_dict(load_file(weights))
        trained = json.loads(told.read_text("utf-8"))
    else:
        job.folder.mkdir(parents=True, exist_ok=True)
        network, trained = pretrain(contender, material, job, line)
        atomic.write_bytes(told, json.dumps(trained).encode())
        atomic.write_bytes(weights, save(network.state_dict()))
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    record = {"job": job.name, **trained, "parameters": sum(one.numel() for one in network.parameters())}
    network.to(job.device).eval()
    return packed.inference_copy(network) if packed.can_prepack(network) else network, record


def run_classical(job: Job, line: int = 0) -> Path:
    """Return the same for features that nobody trains."""
    if (done := job.folder / "record.json").exists():
        return done
    material = read_material(job.set, job.material)
    made = classical(material)
    compete = {"any": [*made], **{name: [name] for name in made}}  # the strongest on train, and each by itself
    kept = job.folder / RANKED
    found, test = measure(lambda rows, names: ((name, made[name][rows]) for name in names), compete, material, kept)
    return write(job.folder, {"job": job.name, **found}, test)


def write(
    folder: Path, said: Mapping[str, Any], scores: Mapping[str, np.ndarray], names: tuple[str, str] = (RECORD, SCORES)
) -> Path:
    """Return the scores, and then what is said of them, which says as well that this part of the unit is done. names:
    of both files."""
    record, arrays = names
    keep(folder / arrays, scores)
    atomic.write_bytes(folder / record, json.dumps(said, indent=1).encode())
    return folder / record


def keep(path: Path, scores: Mapping[str, np.ndarray]) -> None:
    """Numbers from 0 to 1, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez_compressed(unfinished, **{name: right.astype(np.float16) for name, right in scores.items()})
    unfinished.replace(path)
