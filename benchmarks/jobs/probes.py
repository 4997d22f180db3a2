"""k-NN, exact search and linear probes beside faiss, scikit-learn and plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import faiss
import numpy as np
import torch
from randfeat.probes import KNN, HeadRecipe, LinearProbe, top_k, train_heads
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cases import Case, Make, Setting

Material = tuple[np.ndarray, np.ndarray, np.ndarray]  # bank, labels and queries


@lru_cache(1)
def clustered(rows: int, queries: int, dim: int) -> Material:
    """Return features float32 around one centre for each of 1,000 classes or fewer, labels, and queries of the same."""
    rng, classes = np.random.default_rng(0), min(1000, rows // 20)
    centres = rng.standard_normal((classes, dim), dtype=np.float32)
    labels = rng.integers(classes, size=rows + queries)
    features = rng.standard_normal((rows + queries, dim), dtype=np.float32)
    features *= 4
    features += centres[labels]
    return features[:rows], labels[:rows], features[rows:]


def unit(rows: np.ndarray) -> np.ndarray:
    made = rows.copy()
    faiss.normalize_L2(made)
    return made


def by_faiss(size: tuple[int, int, int], k: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return a search that finds its vectors normalised, while our times include the normalisation."""
    bank, _, queries = clustered(*size)
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(unit(bank))
    return partial(index.search, unit(queries), k)


def by_top_k(size: tuple[int, int, int], k: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    bank, _, queries = clustered(*size)
    return partial(top_k, queries, bank, k)


def by_knn(size: tuple[int, int, int]) -> Callable[[], Any]:
    bank, labels, queries = clustered(*size)
    return partial(KNN().fit(bank, labels).predict_each, queries)


def single_knn(size: tuple[int, int, int], ours: bool) -> Callable[[], np.ndarray]:
    bank, labels, queries = clustered(*size)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    return partial((KNN(20) if ours else theirs).fit(bank, labels).predict, queries)


def knn(setting: Setting) -> Iterator[Case]:
    size = setting.pick((300, 20, 16), (20_000, 1_000, 256), (200_000, 10_000, 768))
    small = setting.pick((300, 20, 16), (5_000, 500, 256), (20_000, 1_000, 768))

    def equal(ours: Make, theirs: Make, what: str, place: int | None) -> Mapping[str, Any]:
        both = [make()() if place is None else make()()[place] for make in (ours, theirs)]
        return {what: float((both[0] == both[1]).mean())}

    label, count = f"{size[1]:,} queries, {size[0]:,} x {size[2]}", float(size[1])
    sides = partial(by_top_k, size, 20), partial(by_faiss, size, 20)
    facts = partial(equal, *sides, "neighbours as faiss", 1)
    yield Case(f"top_k 20, {label}", sides[0], {"faiss IndexFlatIP": sides[1]}, count, "queries", facts=facts)
    several = {"faiss IndexFlatIP, k = 200": partial(by_faiss, size, 200)}
    yield Case(f"KNN of k = 10, 20, 100, 200, {label}", partial(by_knn, size), several, count, "queries")
    sides = partial(single_knn, small, True), partial(single_knn, small, False)
    facts = partial(equal, *sides, "labels as scikit-learn", None)
    label = f"KNN of k = 20, {small[1]:,} queries, {small[0]:,} x {small[2]}"
    yield Case(label, sides[0], {"scikit-learn": sides[1]}, float(small[1]), "queries", facts=facts)


# linear probes --------------------------------------------------------------------------------------------------------


@lru_cache(1)
def features(n: int, classes: int, spectrum: float, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, d) of principal variances i^-spectrum, and labels that a probe recognises in part."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    x = rng.standard_normal((n, d), np.float32) + 0.1 * rng.standard_normal((classes, d), np.float32)[labels]
    scale = np.arange(1, d + 1) ** (-spectrum / 2)
    basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return x @ ((scale / np.sqrt((scale**2).mean()))[:, None] * basis).astype(np.float32), labels


def loss(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """Return the loss that both minimize at C = 1, in float64."""
    logits = x.astype(np.float64) @ weight + bias
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean() + (weight**2).sum() / (2 * len(y)))


def fitting(ours: bool, size: tuple[int, int, float, int], tol: float) -> Callable[[], Any]:
    model = LinearProbe(tol=tol) if ours else LogisticRegression(tol=tol, max_iter=5000)
    return partial(model.fit, *features(*size))


def linear(setting: Setting) -> Iterator[Case]:
    """Yield L-BFGS at scikit-learn's default tolerance and at ours, on isotropic features and on correlated ones."""
    n, classes, d = setting.pick((300, 5, 16), (5_000, 20, 256), (50_000, 100, 768))
    for spectrum, name in ((0.0, "isotropic"), (1.0, "variances as 1/i")):
        size = (n, classes, spectrum, d)

        def facts(size: tuple[int, int, float, int], tol: float) -> Mapping[str, Any]:
            x, y = features(*size)
            ours, theirs = fitting(True, size, tol)(), fitting(False, size, tol)()
            losses = loss(x - ours.centre_, y, ours.weight_, ours.bias_), loss(x, y, theirs.coef_.T, theirs.intercept_)
            above = {"our loss above scikit-learn's, relative": losses[0] / losses[1] - 1}
            return above | {"iterations": [ours.n_iter_, int(theirs.n_iter_[0])]}

        for tol in (1e-4, 1e-5):
            yield Case(
                f"L-BFGS, tol {tol:g}, {n:,} x {d}, {classes} classes, {name}",
                partial(fitting, True, size, tol),
                {"scikit-learn": partial(fitting, False, size, tol)},
                unit="fits",
                facts=partial(facts, size, tol),
            )


def sweep(setting: Setting) -> Iterator[Case]:
    """Yield heads of 16 learning rates and 3 decays in one stacked pass over features in a file."""
    n, classes, d = setting.pick((300, 5, 16), (5_000, 20, 256), (50_000, 100, 768))
    rates = tuple(np.geomspace(1e-3, 1, setting.pick(2, 4, 16)))
    recipe = HeadRecipe("sgd", rates, (0.0, 1e-4, 1e-3), batch=setting.pick(64, 1024, 1024), epochs=1, batch_norm=True)
    file = setting.scratch / "x.npy"

    def make(side: str) -> Callable[[], None]:
        x, y = features(n, classes, 1.0, d)
        np.save(file, x)

        def separate() -> None:
            for rate, decay in recipe.pairs:
                one = replace(recipe, learning_rates=(rate,), weight_decays=(decay,))
                train_heads({"x": np.load(file, mmap_mode="r")}, y, one)

        def plain() -> None:
            for rate, decay in recipe.pairs:
                _plain(np.load(file), y, rate, decay, recipe.batch)

        def together() -> None:
            train_heads({"x": np.load(file, mmap_mode="r")}, y, recipe)

        return {"one by one": separate, "plain torch": plain}.get(side, together)

    peers = {side: partial(make, side) for side in ("one by one", "plain torch")}
    yield Case(f"{len(recipe.pairs)} heads of {d} x {classes}, {n:,} rows", partial(make, "ours"), peers, unit="sweeps")


def _plain(x: np.ndarray, y: np.ndarray, rate: float, decay: float, batch: int) -> nn.Module:
    """Return one head trained in plain torch: a DataLoader, modules, autograd and an optimizer."""
    model = nn.Sequential(nn.BatchNorm1d(x.shape[1], affine=False), nn.Linear(x.shape[1], int(y.max()) + 1))
    optimizer = torch.optim.SGD(model.parameters(), rate * batch / 256, momentum=0.9, weight_decay=decay)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch, shuffle=True, drop_last=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    for features, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features), labels).backward()
        optimizer.step()
        schedule.step()
    return model
