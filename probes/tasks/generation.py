"""Quality of samples: Fréchet distance, precision and recall, and Inception Score, of an evaluator's features.

The formulas are torch-fidelity's. FID is the Fréchet distance of Inception's features and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

SPLITS = 10  # of Inception Score
NEIGHBOURS = 3  # of precision and recall (Kynkäänniemi et al. 2019)


@dataclass(frozen=True)
class Quality:
    """Quality of samples beside a reference of real images.

    evaluator: name of the network that the features come from. samples, reference: numbers of images. frechet: Fréchet
    distance, which is FID if the evaluator is Inception. precision: share of samples that lie among the neighbours of
    the reference; recall: share of the reference that lies among those of the samples. inception_score,
    inception_score_std: mean and std over ten parts, None unless the evaluator is a classifier; with another classifier
    than Inception it is not the score that papers report.
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
        """Return the fields as JSON values."""
        return asdict(self)


def measure_quality(
    samples: np.ndarray | Tensor,
    reference: np.ndarray | Tensor,
    evaluator: str,
    logits: np.ndarray | Tensor | None = None,
) -> Quality:
    """Return the quality of samples: their features (n, F) compared with features of real images (m, F).

    evaluator: name of the network that both come from. logits: of the samples (n, C), if it is a classifier. Raises a
    ValueError for fewer than four samples or real images.
    """
    try:
        from torch_fidelity.metric_isc import isc_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric
    except ImportError:
        raise ValueError("the quality of samples needs torch-fidelity: pip install torch-fidelity") from None
    both = torch.as_tensor(samples), torch.as_tensor(reference)
    if min(map(len, both)) <= NEIGHBOURS:
        raise ValueError(f"{len(both[0])} samples and {len(both[1])} of reference: give {NEIGHBOURS + 1} at least")
    distance = frechet_distance(*both)
    found = prc_features_to_metric(*both, prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False)
    if logits is not None:
        found |= isc_features_to_metric(torch.as_tensor(logits), min(SPLITS, len(logits)))
    return Quality(
        evaluator,
        len(both[0]),
        len(both[1]),
        distance,
        found["precision"],
        found["recall"],
        found.get("inception_score_mean"),
        found.get("inception_score_std"),
    )


def frechet_distance(samples: np.ndarray | Tensor, reference: np.ndarray | Tensor) -> float:
    """Return the Fréchet distance of Gaussians with the mean and covariance of features (n, F) and (m, F).

    Raises a ValueError for fewer than two of either.
    """
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    except ImportError:
        raise ValueError("a Fréchet distance needs torch-fidelity: pip install torch-fidelity") from None
    both = torch.as_tensor(samples), torch.as_tensor(reference)
    if min(map(len, both)) < 2:
        raise ValueError(f"{len(both[0])} and {len(both[1])} images have no covariance: give two at least")
    statistics = [fid_features_to_statistics(features) for features in both]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def table(rows: Mapping[str, Quality], is_inception: bool) -> str:
    """Return a Markdown table with a row for each name. is_inception: whether the distance is FID."""
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
