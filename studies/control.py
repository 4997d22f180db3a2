"""Control by edges: how well samples follow the edges of unseen pictures, and keep the class that was asked for.

    OMP_NUM_THREADS=1 python -m studies.control WORK --picture control.png --curve control_curve.png

In WORK, for digits and for letters of the typefaces installed: the set, split by writer or design; a small class-
conditional generator; and the same generator trained further with control by edges, adapter included. What exists is
used again. A judge, a small convolutional network, learns the classes from the training images. Then each held-out
image gives its class and its edges to a sample. F1 compares the edges of a sample with a condition, pixel by pixel:
its own, that of another image of the class, and its own again with a sample of the class by the generator before it
had control. The tokenizer's own loss is the F1 of an image's reconstruction. Accuracy is the judge's. Intervals are
over writers or designs, then images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from randfeat.pretrain import (
    CentreCrops,
    ControlConfig,
    ModelConfig,
    PretrainConfig,
    TrainingConfig,
    fit_patches,
    run_pretraining,
    tokenize_images,
)
from randfeat.probes import Interval, bootstrap, paired
from randfeat.probes.report.style import COLOURS, SOFT, axes, legend, png, titled
from torch import Tensor, nn

from randfeat import Guidance, Pipeline, Sampling, load
from randfeat.data import conditions
from randfeat.data.builtin import DATASETS, BuiltinDataset, write_folder
from randfeat.data.builtin.digits import with_shifts
from randfeat.data.images import to_pil
from randfeat.data.sources import Source, open_source
from randfeat.data.token_store import TokenStore
from randfeat.tokenizers import Tokenizer
from randfeat.utils import drawing

SCALES = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)  # of the condition
CLASS_SCALES = (1.0, 2.0)
CAPTIONS = ("held out", "condition", "sample", "its edges", "no control")
SHOWN = 6  # images per set in the picture
AT_ONCE, COLOURS_KEPT = 250, 64
LABELS = ("F1 of edges with the condition, %", "accuracy of a judge, %")
REAL, DECODED = "held-out images", "the same, decoded from their tokens"


@dataclass(frozen=True)
class Setting:
    """Settings of a set.

    patch, codes: of the tokenizer. shifts: train also on images moved by a pixel. depth, steps: of the generator.
    control_steps: training steps with control. decoding: sampling steps.
    """

    patch: int
    codes: int
    shifts: bool
    depth: int
    steps: int
    control_steps: int
    decoding: int


SETTINGS = {"digits": Setting(2, 128, True, 4, 3000, 1000, 16), "letters": Setting(4, 512, False, 3, 1200, 500, 18)}
SWEEPS = {"arpg": 1, "randar": 0}  # ARPG begins badly on a small grid, which sweeps correct, see `Sampling`


def recipe_of(model: str, setting: Setting) -> PretrainConfig:
    training = TrainingConfig(setting.steps, 64, learning_rate=2e-3, warmup=100, other_crops=0.8, eval_every=250)
    return PretrainConfig(model, True, ModelConfig(64, setting.depth, 4, ffn_dim=160, dropout=0.1), training)


def controlled(recipe: PretrainConfig, setting: Setting, alone: bool = False) -> PretrainConfig:
    training = replace(recipe.training, steps=setting.control_steps, learning_rate=1e-3, eval_every=200)
    return replace(recipe, training=training, control=ControlConfig("edges", 64, 2, 0.1, alone))


class Shifts(CentreCrops):
    """Crop rule: a picture, and the same moved by a pixel up, down, left and right."""

    count = 5

    def __call__(self, picture: Image.Image, number: int) -> np.ndarray:
        middle = torch.from_numpy(super().__call__(picture, number)[:1]).movedim(-1, 1)
        return with_shifts(middle)[0].movedim(1, -1).numpy()

    def __str__(self) -> str:
        return f"{super().__str__()}; and moved by a pixel"


@dataclass(frozen=True)
class Held:
    """Held-out images (n, 1, H, W) in [0, 1] with labels and groups (n,) and edges (n, 1, H, W).

    another: row of another image of the same class, for each image.
    """

    images: Tensor
    labels: np.ndarray
    groups: np.ndarray
    edges: Tensor
    another: np.ndarray


def hold_out(made: BuiltinDataset, count: int) -> Held:
    """Return `count` test images of a set, drawn at random."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(np.flatnonzero(made.test))[:count])
    images, labels = torch.from_numpy(made.images[rows])[:, None] / 255, made.labels[rows]
    another = np.empty(len(rows), dtype=int)
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        another[of_class] = np.roll(of_class, 1)
    return Held(images, labels, made.groups[rows], conditions.edges(images), another)


def agreement(ours: Tensor, theirs: Tensor) -> np.ndarray:
    """Return the F1 of edges (n, 1, H, W), 0 or 1, pixel by pixel: (n,)."""
    both, either = (ours * theirs).sum((1, 2, 3)), (ours + theirs).sum((1, 2, 3))
    return (2 * both / either.clamp_min(1)).numpy()


class Judge:
    """Classifier that judges samples: a small convolutional network trained on a set's training images.

    Half of them are as they are and half decoded from their tokens, all moved by up to a pixel.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: int, steps: int = 800, seed: int = 0) -> None:
        """images: (n, 1, H, W) in [0, 1]; labels: (n,)."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                *(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
                *(nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU()),
                *(nn.Conv2d(48, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU()),
                *(nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(classes)),
            )
            self.network(images[:2])
            optimizer = torch.optim.AdamW(self.network.parameters(), 3e-3, weight_decay=0.05)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
            for _ in range(steps):
                rows = torch.randint(len(images), (128,))
                across, down = torch.randint(-1, 2, (2,)).tolist()
                moved = images[rows].roll((down, across), (2, 3))
                nn.functional.cross_entropy(self.network(moved), labels[rows], label_smoothing=0.1).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        self.network.eval()

    @classmethod
    def of(cls, made: BuiltinDataset, model: Pipeline) -> Judge:
        images = torch.from_numpy(made.images[~made.test])[:, None] / 255
        labels = torch.from_numpy(made.labels[~made.test])
        decoded = torch.cat([model.decode(model.encode(part)) for part in images.split(AT_ONCE)])
        return cls(torch.cat((images, decoded.clamp(0, 1))), labels.repeat(2), len(made.classes))

    @torch.no_grad()
    def right(self, images: Tensor, labels: np.ndarray) -> np.ndarray:
        """Return whether images (n, 1, H, W) are classified as their labels: 0 or 1, (n,)."""
        return (self.network(images).argmax(1).numpy() == labels).astype(float)


Scores = dict[str, dict[str, np.ndarray]]  # way of sampling -> measure -> (n,)


def score(images: Tensor, held: Held, judge: Judge) -> dict[str, np.ndarray]:
    """Return each measure of images (n, 1, H, W) made for the held-out ones: (n,)."""
    edges = conditions.edges(images)
    return {
        "own": agreement(edges, held.edges),
        "another": agreement(edges, held.edges[held.another]),
        "right": judge.right(images, held.labels),
    }


def samples(plain: Pipeline, model: Pipeline, held: Held, sampling: Sampling) -> Iterator[tuple[str, Tensor]]:
    """Yield the compared images (n, 1, H, W) in [0, 1], with their names."""
    yield REAL, held.images
    yield DECODED, model.decode(model.encode(held.images)).clamp(0, 1)
    labels = held.labels.tolist()
    for guidance in CLASS_SCALES:
        how = replace(sampling, guidance=Guidance(guidance))
        yield way(None, guidance), plain.sample(labels, how, batch_size=AT_ONCE).clamp(0, 1)
        for scale in SCALES:
            given = {"control": held.edges, "control_type": "image", "control_scale": scale}
            yield way(scale, guidance), model.sample(labels, how, batch_size=AT_ONCE, **given).clamp(0, 1)


def way(scale: float | None, guidance: float) -> str:
    """Return the name of a way of sampling: its guidance by the condition, if there is one, and by the class."""
    return f"{'no control' if scale is None else f'control {scale:g}'}, class {guidance:g}"


def prepared(name: str, work: Path) -> tuple[BuiltinDataset, TokenStore, Tokenizer]:
    """Return a set, its training tokens and their tokenizer."""
    made, setting = DATASETS[name](), SETTINGS[name]
    write_folder(made, work / name, {"set": name})
    source = open_source(work / name, "train")
    assert isinstance(source, Source)
    size = made.images.shape[1], made.images.shape[2]
    tokenizer = fit_patches(source, size, setting.patch, setting.codes)
    crops = (Shifts if setting.shifts else CentreCrops)(size, 1, flip=False)
    return made, tokenize_images(tokenizer, source, work / f"{name}-tokens", crops, workers=0), tokenizer


def measure(name: str, model: str, work: Path, images: int, alone: bool) -> tuple[dict[str, Any], Image.Image]:
    """Train the models that do not exist yet and measure them; return the figures and the picture of a set."""
    made, store, tokenizer = prepared(name, work)
    setting, held = SETTINGS[name], hold_out(made, images)
    recipe, place = recipe_of(model, setting), work / f"{name}-{model}"
    on = {"held_out": 0.1, "device": "cpu"}
    plain = load(run_pretraining(recipe, store, tokenizer, place, **on))
    place = work / f"{name}-{model}-{'alone' if alone else 'control'}"
    follows = load(
        run_pretraining(controlled(recipe, setting, alone), store, tokenizer, place, init=plain.generator, **on)
    )
    judge, scores, shown = Judge.of(made, plain), {}, {}
    for called, made_of in samples(plain, follows, held, Sampling(setting.decoding, sweeps=SWEEPS[model])):
        scores[called], shown[called] = score(made_of, held, judge), made_of[:SHOWN]
    found = {called: summary(scores, called, held.groups) for called in scores}
    return found, sheet(held, shown[way(2.0, 1.0)], shown[way(None, 1.0)])


def summary(scores: Scores, called: str, groups: np.ndarray) -> dict[str, dict[str, float]]:
    """Return each measure of a way of sampling, and its differences from samples of the class without control."""
    ours, base = scores[called], scores[way(None, float(called.rsplit(" ", 1)[-1])) if "class" in called else REAL]
    found: dict[str, Interval] = {measure: bootstrap(values, groups) for measure, values in ours.items()}
    found["own - without control"] = paired(ours["own"], base["own"], groups)
    found["own - another"] = paired(ours["own"], ours["another"], groups)
    found["right - without control"] = paired(ours["right"], base["right"], groups)
    return {measure: interval.as_dict() for measure, interval in found.items()}


def sheet(held: Held, followed: Tensor, plain: Tensor) -> Image.Image:
    """Return a sheet of held-out images, their edges, samples with these, the samples' edges, and samples without."""
    columns = held.images, held.edges, followed, conditions.edges(followed), plain
    each = [drawing.magnified(to_pil(column[row])) for row in range(SHOWN) for column in columns]
    return drawing.grid(each, len(columns), CAPTIONS * SHOWN)


def written(found: dict[str, Any]) -> str:
    """Return a Markdown table, in per cent."""
    lines = ["| | F1, its condition | F1, another's | accuracy | accuracy - without control |", "|---|---|---|---|---|"]
    for called, row in found.items():
        cells = [cell(row[measure]) for measure in ("own", "another", "right", "right - without control")]
        lines.append(f"| {called} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(interval: dict[str, float]) -> str:
    value, low, high = (100 * interval[end] for end in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]".replace("-", "−")


def curve(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw F1 and accuracy over the guidance by the condition, a column for each set; dashed lines: without control."""
    figure = Figure(figsize=(2.6 * len(results) + 1.6, 4.8), layout="constrained")
    panels = figure.subplots(2, len(results), squeeze=False)
    for column, (title, found) in enumerate(results.items()):
        for panel, measure, label in zip(panels[:, column], ("own", "right"), LABELS, strict=True):
            ax = axes(panel, "y")
            for guidance, colour in zip(CLASS_SCALES, COLOURS, strict=False):
                line = [found[way(scale, guidance)][measure] for scale in SCALES]
                value, low, high = (np.array([100 * one[end] for one in line]) for end in ("value", "low", "high"))
                ax.plot(SCALES, value, "o-", color=colour, ms=3.5, lw=1.6, label=f"class guidance {guidance:g}")
                ax.fill_between(SCALES, low, high, color=colour, alpha=0.13, lw=0)
                ax.axhline(100 * found[way(None, guidance)][measure]["value"], color=colour, ls="--", lw=1)
            ax.axhline(100 * found[DECODED][measure]["value"], color=SOFT, ls=":", lw=1)
            ax.set_ylabel(label, fontsize=8)
            titled(ax, title if measure == "own" else "")
        ax.set_xlabel("guidance of the condition", fontsize=8)
    legend(panels[0, -1], len(CLASS_SCALES))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of sets and models")
    parser.add_argument("--sets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--models", nargs="+", choices=("arpg", "randar"), default=["arpg", "randar"])
    parser.add_argument("--images", type=int, default=640, help="held-out images of a set, at most (640)")
    parser.add_argument("--alone", action="store_true", help="train the adapter only")
    parser.add_argument("--picture", type=Path, help="where to write samples beside their conditions")
    parser.add_argument("--curve", type=Path, help="where to plot the guidance of the condition")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    sheets: dict[str, Image.Image] = {}  # of a set's first model
    for name in args.sets:
        for model in args.models:
            title = f"{name}, {model}"
            results[title], made = measure(name, model, args.work, args.images, args.alone)
            sheets.setdefault(name, made)
            print(f"\n{title}\n\n{written(results[title])}", flush=True)
    (args.work / "control.json").write_text(json.dumps(results, indent=1))
    if args.picture:
        args.picture.write_bytes(drawing.png(beside(list(sheets.values()))))
    if args.curve:
        with Image.open(BytesIO(png(curve(results)))) as drawn:
            args.curve.write_bytes(drawing.png(drawn.convert("RGB").quantize(COLOURS_KEPT)))


def beside(sheets: list[Image.Image]) -> Image.Image:
    """Return pictures side by side."""
    whole = Image.new("RGB", (sum(one.width for one in sheets), max(one.height for one in sheets)), "white")
    for number, one in enumerate(sheets):
        whole.paste(one, (sum(before.width for before in sheets[:number]), 0))
    return whole.quantize(COLOURS_KEPT)


if __name__ == "__main__":
    main()
