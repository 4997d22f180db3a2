"""Measure features: k-NN, linear, few-shot and retrieval scores, with intervals, on plain numpy arrays.

Importing this package imports neither scikit-learn nor torch; each name below is loaded when first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Claim": "stats",
    "Comparison": "record",
    "Components": "scalings",
    "Difference": "stats",
    "FeatureSet": "evaluation",
    "GroundTruth": "revisited",
    "Interval": "stats",
    "KNN": "knn",
    "Labelled": "evaluation",
    "LabelledList": "class_splits",
    "LinearProbe": "linear",
    "Nested": "selection",
    "PCK": "correspondence",
    "Pair": "correspondence",
    "PatchCounts": "baselines",
    "Placement": "placements",
    "Protocol": "evaluation",
    "RBFSVM": "svm",
    "Record": "record",
    "RevisitedQuery": "revisited",
    "Selection": "selection",
    "Spread": "stats",
    "average_precision": "retrieval",
    "bootstrap": "stats",
    "centre_cropped": "placements",
    "cluster_scores": "cluster",
    "colour_histogram": "baselines",
    "compare": "record",
    "copies": "splits",
    "cross": "selection",
    "deal_rows": "shares",
    "draw_shots": "fewshot",
    "evaluate": "evaluation",
    "evaluate_pairs": "evaluation",
    "few_shot": "fewshot",
    "folds": "splits",
    "has_positive": "retrieval",
    "hog": "baselines",
    "hold_out": "splits",
    "holm": "stats",
    "kmeans": "cluster",
    "knn_space": "selection",
    "linear_space": "selection",
    "load_all": "record",
    "made_with": "record",
    "map_at_r": "retrieval",
    "markdown": "record",
    "match": "matching",
    "merge_scores": "shares",
    "nested": "selection",
    "noise": "evaluation",
    "padded": "placements",
    "paired": "stats",
    "pck": "correspondence",
    "pixels": "baselines",
    "precision_at_1": "retrieval",
    "r_precision": "retrieval",
    "read_cars": "class_splits",
    "read_cub": "class_splits",
    "read_ground_truth": "revisited",
    "read_sop": "class_splits",
    "read_spair": "correspondence",
    "recall_at_k": "retrieval",
    "recentred": "baselines",
    "refit": "selection",
    "retrieval_scores": "retrieval",
    "revisited_scores": "revisited",
    "scaling": "scalings",
    "second_half": "class_splits",
    "select": "selection",
    "spread": "stats",
    "stretched": "placements",
    "strongest": "selection",
    "strongest_baseline": "record",
    "svm_space": "selection",
    "token_codes": "baselines",
    "token_counts": "baselines",
    "token_one_hot": "baselines",
    "top_k": "neighbors",
    "warped_pck": "warps",
    "well_clustered": "cluster",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
