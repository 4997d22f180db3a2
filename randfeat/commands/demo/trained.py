"""Stages of the demo that trains on digits: training, features and probes, likelihood, samples, search."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randfeat import Guidance, Index, Pipeline, Sampling, load
from randfeat.data.builtin import make_digits, write_folder
from randfeat.data.builtin.digits import FIT, TEST, VALIDATION, Digits, load_digits, with_shifts
from randfeat.data.images import as_images
from randfeat.pretrain import PretrainConfig, read_recipe
from randfeat.probes import Interval, bootstrap, paired
from randfeat.tokenizers import PatchTokenizer
from randfeat.utils import progress, rng

from ...utils.parallel import run_all, use_threads
from . import features, generation
from .features import MEASURES, Plan, SourceScores, Task
from .results import Results as StagedResults
from .training import train_all

MODELS = ("randar_free", "raster_free", "randar", "arpg")
PATCH, CODES = 2, 128
ORDERS = (
    "raster", "reversed", "columns", "hierarchical", "bidirectional", "random*1", "random*4", "random*4:per-image"
)  # fmt: skip
CLASSIFIERS = {"linear": "logistic regression on pixels", "knn": "k-NN on pixels", "svm": "RBF-SVM on pixels"}
METRICS = {"retrieval": "map_at_r"}  # of a measure, where it is not top1
SOURCES = {
    "best": "label-free RandAR, best feature spec",
    "raster_control": "label-free raster-order control, best feature spec",
    "random_weights": "RandAR with random weights, best feature spec",
    "pixels": "raw pixels",
    "pca": "PCA of pixels",
    "patch_counts": "k-means patch counts",
}


@dataclass(frozen=True)
class Preset:
    """Effort of a run.

    train_share: of each recipe's steps. test_every: likelihood scores every n-th test image. samples_each: samples of a
    class. guidance_each: samples of a class for each guidance tried. counts: numbers of orders of the likelihood.
    """

    train_share: float
    plan: Plan
    samples_each: int
    guidance_each: int
    test_every: int
    counts: tuple[int, ...] = (1, 2, 4, 8, 16)


PLAN = Plan(ORDERS, (1, 2, 3, 4, 5, 6))
QUICK_PLAN = Plan(
    ("raster", "bidirectional", "random*2"), (3, 6), ("query",), contexts=("causal", "full"), pools=("mean", "grid2")
)
PRESETS = {
    "fast": Preset(0.05, QUICK_PLAN, samples_each=20, guidance_each=5, test_every=5, counts=(1, 4, 16)),
    "default": Preset(0.3, PLAN, samples_each=100, guidance_each=20, test_every=1),
    "full": Preset(1.0, PLAN, samples_each=100, guidance_each=50, test_every=1),
}


@dataclass
class Results(StagedResults):
    """Results of the demo that trains, and the models that it trained."""

    stages = 5
    preset: str = ""
    models: dict[str, Pipeline] = field(default_factory=dict)
    sources: dict[str, SourceScores] = field(default_factory=dict)
    curves: dict[str, dict[int, Interval]] = field(default_factory=dict)


def run(preset_name: str, preset: Preset, out: Path) -> Results:
    """Run all stages. Models are left in out/models, digits in out/digits; those that lie there are kept."""
    use_threads(1)  # several threads wait for each other wherever another process computes
    digits = load_digits()
    write_folder(make_digits(), out / "digits", {"set": "digits", "seed": 0, "split_seed": None})
    results = Results(preset=preset_name)
    train, test = digits.written_by(FIT, VALIDATION), digits.written_by(TEST)
    task = Task(train.labels.numpy(), torch.isin(train.writers, torch.tensor(VALIDATION)).numpy(), test.labels.numpy())
    with results.stage(1, "fitting the tokenizer and training four generators"):
        tokenizer = PatchTokenizer.fit(with_shifts(digits.written_by(FIT).images).flatten(0, 1), CODES, PATCH)
        recipes = {name: shortened(read_recipe(f"digits_{name}"), preset.train_share) for name in MODELS}
        results.models = train_all(recipes, digits, tokenizer, out / "models")
    with results.stage(2, "reading features in every order mode, and the baselines"):
        sources = run_all(
            {
                "best": partial(probe_saved, out / "models" / "randar_free", preset.plan, task),
                "raster_control": partial(probe_saved, out / "models" / "raster_free", preset.plan, task),
                "random_weights": partial(probe_untrained, recipes["randar_free"], tokenizer, preset.plan, task),
                "baselines": partial(probe_baselines, tokenizer, task),
            }
        )
        results.sources = sources.pop("baselines") | sources
        compare_sources(results, test)
    with results.stage(3, "scoring the likelihood of every class"):
        right = run_all(
            {
                name: partial(score_likelihood, out / "models" / name, preset.test_every, preset.counts)
                for name in ("randar", "arpg")
            }
        )
        compare_likelihood(results, right, test, preset.test_every)
    with results.stage(4, "sampling, inpainting and judging the samples"):
        sample_and_judge(results, preset, train, test)
    with results.stage(5, "indexing the training digits and searching with test digits"):
        search_index(results, out, train, test)
    return results


def shortened(recipe: PretrainConfig, share: float) -> PretrainConfig:
    """Return the recipe with a share of its steps."""
    training = recipe.training
    steps = round(training.steps * share)
    return dataclasses.replace(
        recipe,
        training=dataclasses.replace(
            training,
            steps=steps,
            warmup=min(training.warmup, steps // 5),
            eval_every=min(training.eval_every, max(steps // 5, 1)),
        ),
    )


# jobs that run in a process of their own --------------------------------------------------------------------------


def train_then_test(tokenizer: PatchTokenizer) -> tuple[Digits, Tensor]:
    """Return all digits, those of train first, and their tokens (n, N)."""
    digits = load_digits()
    both = digits.written_by(FIT, VALIDATION, TEST)
    return both, tokenizer.encode(both.images).flatten(1)


def probe_saved(directory: Path, plan: Plan, task: Task, line: int) -> SourceScores:
    pipeline = load(directory)
    _, tokens = train_then_test(pipeline.tokenizer)  # type: ignore[arg-type]
    with progress.bar(features.TICKS, f"reading {directory.name}", "step", line) as bar:
        return features.probe_generator(pipeline.generator, tokens, task, plan, bar.update)


def probe_untrained(
    recipe: PretrainConfig, tokenizer: PatchTokenizer, plan: Plan, task: Task, line: int
) -> SourceScores:
    _, tokens = train_then_test(tokenizer)
    grid = tokenizer.encode(load_digits().images[:1]).shape[1:]
    generator = recipe.build((grid[0], grid[1]), tokenizer.vocab_size, 0).eval()
    with progress.bar(features.TICKS, "reading random weights", "step", line) as bar:
        return features.probe_generator(generator, tokens, task, plan, bar.update)


def probe_baselines(tokenizer: PatchTokenizer, task: Task, line: int) -> dict[str, SourceScores]:
    both, tokens = train_then_test(tokenizer)
    with progress.bar(4, "baselines", "step", line) as bar:
        made = {}
        for name, variants in (
            ("pixels", {"pixels": both.pixels}),
            ("pca", features.pca(both.pixels, task)),
            ("patch_counts", features.patch_counts(tokens, tokenizer.vocab_size)),
        ):
            made[name] = features.probe_baseline(variants, task)
            bar.update()
        made["classifiers"] = features.classify_pixels(both.pixels, task)
        bar.update()
    return made


def score_likelihood(directory: Path, every: int, counts: tuple[int, ...], line: int) -> dict[int, np.ndarray]:
    pipeline, test = load(directory), load_digits().written_by(TEST)
    classes, total = pipeline.generator.num_classes, max(counts)
    tokens = pipeline.encode(test.images[::every])
    with progress.bar(len(tokens) * classes * total, f"likelihood {directory.name}", "pass", line) as bar:
        return generation.likelihood_curve(pipeline.generator, tokens, test.labels[::every].numpy(), counts, bar.update)


# what is measured ---------------------------------------------------------------------------------------------------


def compare_sources(results: Results, test: Digits) -> None:
    groups, numbers = test.writers.numpy(), results.numbers

    def row(made: features.Score, metric: str = "top1") -> dict[str, Any]:
        return {metric: bootstrap(made.correct, groups), "chosen": made.chosen, "held_out": made.held_out}

    for measure in MEASURES:
        metric = METRICS.get(measure, "top1")
        scores = {name: results.sources[name].scores[measure] for name in SOURCES}
        numbers[measure] = {name: row(made, metric) for name, made in scores.items()}
        difference = paired(scores["best"].correct, scores["raster_control"].correct, groups)
        numbers[measure]["best_minus_raster_control"] = {metric: difference}
    classifiers = results.sources["classifiers"].scores
    numbers["svm"] = {"pixels": row(classifiers["svm"])}
    numbers["classifiers"] = {CLASSIFIERS[measure]: row(made) for measure, made in classifiers.items()}


def compare_likelihood(
    results: Results, right: Mapping[str, Mapping[int, np.ndarray]], test: Digits, every: int
) -> None:
    groups = test.writers.numpy()[::every]
    numbers: dict[str, Any] = {}
    for name, curve in right.items():
        results.curves[name] = {k: bootstrap(scores, groups) for k, scores in curve.items()}
        numbers[name] = {f"k{k}": {"top1": interval} for k, interval in results.curves[name].items()}
    most = right["randar"][16]
    numbers["randar"]["k16_minus_k1"] = {"top1": paired(most, right["randar"][1], groups)}
    for measure, made in results.sources["classifiers"].scores.items():
        difference = paired(most, made.correct[::every], groups)
        numbers["randar"][f"k16_minus_{CLASSIFIERS[measure]}"] = {"top1": difference}
    results.numbers["likelihood"] = numbers


def sample_and_judge(results: Results, preset: Preset, train: Digits, test: Digits) -> None:
    """Draw samples of every class, judged by the SVM that was chosen, fitted on real digits of train only."""
    judge = features.CLASSIFIERS["svm"][results.numbers["svm"]["pixels"]["chosen"].rpartition("/")[2]]
    judge.fit(train.pixels, train.labels.numpy())
    fit = torch.isin(train.writers, torch.tensor(FIT)).numpy()
    for name in ("randar", "arpg"):
        pipeline = results.models[name]
        how, tried = generation.choose_sampling(
            pipeline, judge, train.pixels[fit], train.pixels[~fit], preset.guidance_each
        )
        judged = {}
        for title, variant in {
            "chosen": how,
            "in_6_steps": dataclasses.replace(how, steps=6),
            "without_sweeps": dataclasses.replace(how, sweeps=0),
        }.items():
            samples, labels = generation.draw_by_class(pipeline, preset.samples_each, variant, seed=0)
            judged[title] = generation.score_samples(samples, labels, judge, train.pixels, test.pixels)
            if variant is how:
                results.pictures[f"samples_{name}"] = samples.unflatten(0, (-1, preset.samples_each))[:, :16]
        results.numbers.setdefault("samples", {})[name] = {
            "agreement": bootstrap(judged["chosen"].agreement),
            "recall": bootstrap(judged["chosen"].recall, test.writers.numpy()),
            "nearest_train_ratio": bootstrap(judged["chosen"].nearest_train_ratio),
            "agreement_in_6_steps": bootstrap(judged["in_6_steps"].agreement),
            "agreement_without_sweeps": bootstrap(judged["without_sweeps"].agreement),
            "chosen": {"guidance": how.guidance.scale, "sweeps": how.sweeps},
            "tried": {what: round(value, 4) for what, value in tried.items()},
        }
    samples_of = results.numbers["samples"]
    samples_of.update({k: v for k, v in samples_of["randar"].items() if isinstance(v, Interval)})
    guidance = Guidance(samples_of["randar"]["chosen"]["guidance"])
    watched = results.models["randar"], list(range(10)), Sampling(guidance=guidance)
    results.pictures["watch"] = generation.watch(*watched, seed=0)
    rows = rng.bits(torch.tensor(5), len(test)).argsort()[:12]
    mask = np.zeros((8, 8), dtype=bool)
    mask[4:] = True
    hidden = torch.where(torch.from_numpy(mask), torch.tensor(0.5), test.images[rows])
    results.pictures["inpainting"] = [test.images[rows], hidden] + [
        as_images(
            results.models[name].inpaint(test.images[rows], mask, sampling=Sampling(), seed=100 * draw), 1, (8, 8)
        )
        for name in ("randar", "arpg")
        for draw in (1, 2)
    ]


def search_index(results: Results, out: Path, train: Digits, test: Digits) -> None:
    """Index train by the feature spec that was chosen for retrieval, and search with some test digits."""
    model = results.models["randar_free"]
    spec = results.sources["best"].scores["retrieval"].chosen.rpartition("/")[0]
    index = Index(model.features(train.images, spec), [str(i) for i in range(len(train))])
    index.save(out / "index")
    rows = rng.bits(torch.tensor(6), len(test)).argsort()[:8]
    found = Index.open(out / "index").search(model.features(test.images[rows], spec), 9)
    results.pictures["neighbours"] = [
        (test.images[row], train.images[[int(match.path) for match in matches]])
        for row, matches in zip(rows, found, strict=True)
    ]


def settings(results: Results) -> dict[str, Any]:
    """Return what is needed to repeat the run: preset, versions, split, tokenizer, training."""
    packages = ("randfeat", "torch", "numpy", "scikit-learn", "faiss-cpu")
    return {
        "preset": results.preset,
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in packages},
        },
        "processor": platform.processor() or platform.machine(),
        "split": {"fit": [w + 1 for w in FIT], "held_out": [w + 1 for w in VALIDATION], "test": [w + 1 for w in TEST]},
        "tokenizer": {"patch": PATCH, "codes": CODES},
        "training": {
            name: {
                "recipe": model.training_record["recipe"],
                "parameters": sum(p.numel() for p in model.generator.parameters()),
                "kept_step": model.training_record["history"]["kept_step"],
                "seconds": round(model.training_record["history"]["seconds"], 1),
            }
            for name, model in results.models.items()
        },
        "seconds": results.seconds,
    }
