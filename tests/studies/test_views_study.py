"""The study of views: letters that are learned, parts that are kept, and the table."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from randfeat import Pipeline
from studies.views import __main__ as study
from studies.views import sets, tables


def small(model: Pipeline, count: int = 7) -> sets.ViewSet:
    images = np.random.default_rng(0).integers(0, 255, (count, 8, 8)).astype(np.uint8)
    return sets.ViewSet(model, images, np.arange(count) % 2, np.arange(count))


def test_a_part_is_measured_once_and_the_table_pairs_it(tmp_path, monkeypatch):
    images = np.random.default_rng(1).integers(0, 255, (40, 8, 8)).astype(np.uint8)
    with torch.random.fork_rng(devices=[]):
        model = sets.train_letters(images, np.arange(40) % 2, steps=2)
    assert model.generator.grid == (2, 2)
    monkeypatch.setitem(sets.SETS, "letters", lambda work: small(model))
    monkeypatch.setattr(study, "AT_ONCE", 3)
    args = argparse.Namespace(work=tmp_path, found=tmp_path / "found", images=7, arms=None)
    study.measure("letters", args)
    kept = sorted(path for path in (tmp_path / "parts").rglob("*.npz"))
    assert len(kept) == 3 * len(study.ARMS["letters"])
    times = [path.stat().st_mtime_ns for path in kept]
    study.measure("letters", args)
    assert [path.stat().st_mtime_ns for path in kept] == times
    head, plain, *others = tables.rows(tmp_path / "found")
    assert plain[0] == f"letters in unseen typefaces, {study.PLAIN}"
    assert plain[1] == "7"
    assert plain[3] == ""
    assert len(others) == len(study.ARMS["letters"]) - 1
    assert all("[" in row[3] for row in others)
    assert len(head) == len(plain)
