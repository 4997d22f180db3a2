"""Measure features: k-NN, linear, few-shot and retrieval scores, with intervals, on plain numpy arrays.

Importing this package imports neither scikit-learn nor torch; each name below is loaded when first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "AttentiveProbe": "attentive",
    "Heads": "sweep",
    "KNN": "knn",
    "RBFSVM": "svm",
    "Interval": "stats",
    "LabelledFolder": "segmentation",
    "LinearProbe": "linear",
    "LinearSegmenter": "segmentation",
    "Recipe": "heads",
    "Segmentation": "segmentation",
    "Selection": "selection",
    "Sweep": "sweep",
    "TrainedHead": "sweep",
    "Trial": "sweep",
    "augmentation": "online",
    "average_precision": "retrieval",
    "bootstrap": "stats",
    "centre_crop": "online",
    "cross": "selection",
    "draw_shots": "fewshot",
    "few_shot": "fewshot",
    "has_positive": "retrieval",
    "knn_space": "selection",
    "label_maps": "segmentation",
    "linear_space": "selection",
    "map_at_r": "retrieval",
    "paired": "stats",
    "patch_labels": "segmentation",
    "precision_at_1": "retrieval",
    "r_precision": "retrieval",
    "read_label_map": "segmentation",
    "recall_at_k": "retrieval",
    "refit": "selection",
    "retrieval_scores": "retrieval",
    "scaling": "scalings",
    "score_online": "online",
    "select": "selection",
    "svm_space": "selection",
    "sweep_heads": "sweep",
    "sweep_online": "online",
    "train_heads": "sweep",
    "train_online": "online",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
