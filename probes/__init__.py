"""Measure features: k-NN, linear, few-shot and retrieval scores, with intervals, on plain numpy arrays.

Importing this package imports neither scikit-learn nor torch; each name below is loaded when first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "AttentiveProbe": "attentive",
    "Claim": "stats",
    "Components": "scalings",
    "Difference": "stats",
    "GroundTruth": "revisited",
    "Heads": "sweep",
    "Interval": "stats",
    "KNN": "knn",
    "LabelledFolder": "segmentation",
    "LabelledList": "class_splits",
    "LinearProbe": "linear",
    "LinearSegmenter": "segmentation",
    "Nested": "selection",
    "PCK": "correspondence",
    "Pair": "correspondence",
    "PatchCounts": "baselines",
    "Placement": "placements",
    "RBFSVM": "svm",
    "Recipe": "heads",
    "RevisitedQuery": "revisited",
    "Segmentation": "segmentation",
    "Selection": "selection",
    "Spread": "stats",
    "Sweep": "sweep",
    "TrainedHead": "sweep",
    "Trial": "sweep",
    "augmentation": "online",
    "average_precision": "retrieval",
    "bootstrap": "stats",
    "centre_crop": "online",
    "centre_cropped": "placements",
    "cluster_scores": "cluster",
    "colour_histogram": "baselines",
    "copies": "splits",
    "cross": "selection",
    "deal_rows": "shares",
    "draw_shots": "fewshot",
    "few_shot": "fewshot",
    "folds": "splits",
    "has_positive": "retrieval",
    "hog": "baselines",
    "hold_out": "splits",
    "holm": "stats",
    "kmeans": "cluster",
    "knn_space": "selection",
    "label_maps": "segmentation",
    "linear_space": "selection",
    "map_at_r": "retrieval",
    "match": "matching",
    "merge_scores": "shares",
    "nested": "selection",
    "padded": "placements",
    "paired": "stats",
    "patch_labels": "segmentation",
    "pck": "correspondence",
    "pixels": "baselines",
    "precision_at_1": "retrieval",
    "r_precision": "retrieval",
    "read_cars": "class_splits",
    "read_cub": "class_splits",
    "read_ground_truth": "revisited",
    "read_label_map": "segmentation",
    "read_sop": "class_splits",
    "read_spair": "correspondence",
    "recall_at_k": "retrieval",
    "recentred": "baselines",
    "refit": "selection",
    "retrieval_scores": "retrieval",
    "revisited_scores": "revisited",
    "scaling": "scalings",
    "score_online": "online",
    "second_half": "class_splits",
    "select": "selection",
    "spread": "stats",
    "stretched": "placements",
    "strongest": "selection",
    "svm_space": "selection",
    "sweep_heads": "sweep",
    "sweep_online": "online",
    "token_codes": "baselines",
    "token_counts": "baselines",
    "token_one_hot": "baselines",
    "top_k": "neighbors",
    "train_heads": "sweep",
    "train_online": "online",
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
