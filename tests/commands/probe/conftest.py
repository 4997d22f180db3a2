"""A tiny model, and pictures by six photographers, for the tests of `randfeat probe`."""

from __future__ import annotations

import csv

import pytest
from pipelines import make_sampler
from probing import SPEC, fill
from randfeat.probes.selection import knn_space, linear_space
from randfeat.probes.tasks import classification

from randfeat import cli


@pytest.fixture(autouse=True)
def fewer_candidates(monkeypatch):
    """Each search tries fewer penalties and neighbours, for speed; tests of the probes themselves try all."""

    def linear(scalings=("none", "standard"), Cs=(0.01, 1), pcas=(None,)):
        return linear_space(scalings, Cs, pcas)

    monkeypatch.setattr(classification, "linear_space", linear)
    monkeypatch.setattr(classification, "knn_space", lambda ks, pcas: knn_space(ks=(1, 10), pcas=pcas))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small" / "tiny"
    make_sampler().save(path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """90 pictures by six photographers, of whom two are in test."""
    root = fill(tmp_path_factory.mktemp("data") / "photos", 90)
    rows = [
        (path.relative_to(root).as_posix(), path.parent.name, f"p{int(path.stem) // 15}")
        for path in sorted(root.rglob("*.png"))
    ]
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "photographer", "split"])
        writer.writerows([*row, "test" if row[2] in ("p4", "p5") else "train"] for row in rows)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("plain") / "photos", 60)


@pytest.fixture(scope="module")
def stores(model, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores")
    for part in ("train", "test"):
        extract = ["extract", str(model), str(table), "-o", str(out / part), "--split", part, "--spec", SPEC]
        assert cli.main([*extract, "--workers", "0", "--device", "cpu"]) == 0
    return out
