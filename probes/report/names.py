"""Names of tasks and metrics for people; records and JSON files keep keys such as `map_at_r`."""

from __future__ import annotations

import re

_TASKS = {"knn": "k-NN", "fewshot": "Few-shot"}
_METRICS = {
    "map_at_r": "MAP@R",
    "precision_at_1": "P@1",
    "r_precision": "R-precision",
    "average_precision": "mAP",
    "nmi": "NMI",
    "ari": "ARI",
}
_TOP_1 = ("knn", "linear", "attentive", "fewshot", "likelihood")  # tasks whose metrics are shares of right images
_SCALINGS = {  # of `classifiers.scalings`
    "none": "as they are",
    "standard": "each dimension of variance 1",
    "center-l2": "centred, each image of norm 1",
    "l2": "each image of norm 1",
    "whitened": "whitened",
}
_SETUP = re.compile(r"(easy|medium|hard) (.+)")  # of revisited Oxford and Paris, where precision is a mean, mP@k


def task_name(task: str) -> str:
    """Return the name of a task as papers write it: "k-NN", "Retrieval"."""
    return _TASKS.get(task, task.capitalize())


def metric_name(metric: str, task: str = "") -> str:
    """Return the name of a metric as papers write it: "MAP@R", "top-1 accuracy", "top-1, k = 20".

    metric: a key of `Record.scores`. task: of the record; "accuracy" is that of clusters for "cluster".
    """
    if setup := _SETUP.fullmatch(metric):
        mean = re.fullmatch(r"precision_at_(\d+)", setup[2])
        return f"{setup[1]} {f'mP@{mean[1]}' if mean else metric_name(setup[2])}"
    if metric == "accuracy":
        return "clustering accuracy" if task == "cluster" else "top-1 accuracy"
    if task in _TOP_1:
        orders = re.fullmatch(r"K=(\d+)", metric)
        named = f"{orders[1]} order{'s' * (orders[1] != '1')}" if orders else metric.replace("=", " = ")
        return f"top-1, {named}"
    if metric.startswith("pck@"):
        return f"PCK@{metric[4:]}"
    return _METRICS.get(metric, metric.replace("recall_at_", "Recall@"))


def candidate_name(candidate: str) -> str:
    """Return what a candidate of a search does, in words.

    "linear standard pca=64 C=0.1" is "linear, each dimension of variance 1, 64 principal components, C = 0.1". Names of
    a feature, up to the last slash before, are kept.
    """
    feature, slash, setup = candidate.rpartition("/")
    words = setup.split(" ")
    if words[0] not in ("linear", "knn", "svm"):
        return candidate
    spelt = " ".join(words)
    spelt = re.sub(r" whitened pca=(\d+)", r", whitened to \1 components", spelt)
    spelt = re.sub(r" pca=(\d+)", r", \1 principal components", spelt)
    for scaling, means in _SCALINGS.items():
        spelt = re.sub(rf"(?<!,) {scaling}(?=[ ,]|$)", f", {means}", spelt, count=1)
    spelt = re.sub(r" (C|k|relative_gamma)=", r", \1 = ", spelt).replace("relative_gamma", "relative gamma")
    return feature + slash + re.sub(r"^(knn|svm)", lambda kind: {"knn": "k-NN", "svm": "SVM"}[kind[0]], spelt)
