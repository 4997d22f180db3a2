"""How good samples are: Fréchet distance, precision and recall, and Inception Score, over the features of an evaluator.

The formulas are torch-fidelity's. FID is the Fréchet distance over Inception's features and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from randfeat.data.images import UnreadableImage
from randfeat.data.sources import Source, open_source
from randfeat.utils import arrays, progress

from ...features.evaluators import Evaluator, EvaluatorOutput

SPLITS = 10  # of Inception Score
NEIGHBOURS = 3  # of precision and recall (Kynkäänniemi et al. 2019)


@dataclass(frozen=True)
class Quality:
    """samples, reference: pictures of each. frechet: FID where the evaluator is Inception. precision: share of samples
    among the reference's neighbours; recall: share of the reference among the samples'. inception_score: with its
    deviation over ten parts, where the evaluator is a classifier (of another classifier than Inception a score of its
    own). evaluator: where all of this comes from.
    """

    evaluator: str
    samples: int
    reference: int
    frechet: float
    precision: float
    recall: float
    inception_score: float | None = None
    inception_score_std: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def see(evaluator: Evaluator, pictures: Iterable[Image.Image], count: int, batch_size: int = 64) -> EvaluatorOutput:
    """What an evaluator sees in the first `count` pictures."""
    following = islice(iter(pictures), count)
    parts = []
    with progress.bar(count, "evaluating", "image") as bar:
        while batch := list(islice(following, batch_size)):
            parts.append(evaluator(batch))
            bar.update(len(batch))
    if not parts:
        raise ValueError("there are no pictures to evaluate: give some")
    logits = [part.logits for part in parts if part.logits is not None]
    return EvaluatorOutput(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)


def measure_quality(samples: EvaluatorOutput, reference: EvaluatorOutput, evaluator: str) -> Quality:
    """Return the numbers, of samples beside a reference that the same evaluator saw. Raises a ValueError for fewer than
    four pictures of either."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    both = samples.features, reference.features
    if min(map(len, both)) <= NEIGHBOURS:
        raise ValueError(f"{len(both[0])} samples and {len(both[1])} of reference: give {NEIGHBOURS + 1} at least")
    statistics = [fid_features_to_statistics(features) for features in both]
    found: dict[str, float] = fid_statistics_to_metric(*statistics, verbose=False)
    found |= prc_features_to_metric(*both, prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False)
    if samples.logits is not None:
        found |= isc_features_to_metric(samples.logits, min(SPLITS, len(samples.logits)))
    return Quality(
        evaluator,
        len(both[0]),
        len(both[1]),
        found["frechet_inception_distance"],
        found["precision"],
        found["recall"],
        found.get("inception_score_mean"),
        found.get("inception_score_std"),
    )


def pictures_of(data: str | Path, split: str | None = None) -> tuple[int, Iterator[Image.Image]]:
    """Number of pictures and the pictures of a `.npz` as ADM's (`arr_0`, uint8 (N, H, W, 3)), or of whatever
    `open_source` opens. Raises as that does, and an UnreadableImage for a damaged picture."""
    if str(data).endswith(".npz"):
        pictures = arrays.read_images(Path(data))
        first = next(pictures)  # raises for what is none
        return arrays.count_images(Path(data)), chain([first], pictures)
    source = open_source(data, split)
    if not isinstance(source, Source):
        raise ValueError(f"{data} holds tokens, not pictures: give the pictures")
    return len(source), _read(source)


def _read(source: Source) -> Iterator[Image.Image]:
    for row, path in enumerate(source.paths):
        try:
            yield source.read(row)
        except UnreadableImage as error:
            raise UnreadableImage(f"{path} of {source.name} cannot be read ({error}): take it out") from None


def table(rows: Mapping[str, Quality], is_inception: bool) -> str:
    """Markdown, a row for each name."""
    distance = "FID" if is_inception else "Fréchet distance"
    score = "IS" if is_inception else "score of its classes"
    lines = [f"| | {distance} | precision | recall | {score} | samples |", "|---|---:|---:|---:|---:|---:|"]
    for name, one in rows.items():
        own = "" if one.inception_score is None else f"{one.inception_score:.2f} ± {one.inception_score_std:.2f}"
        numbers = f"{one.frechet:.3f} | {one.precision:.3f} | {one.recall:.3f} | {own} | {one.samples:,}"
        lines.append(f"| {name} | {numbers} |")
    first = next(iter(rows.values()))
    lines += ["", f"Evaluator: {first.evaluator}; reference: {first.reference:,} pictures."]
    return "\n".join(lines)
