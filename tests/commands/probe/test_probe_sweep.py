"""Sweeps over feature specs."""

from __future__ import annotations

import csv
import re

import pytest
from probing import SPEC, by_name, probe

from randfeat import cli, load
from randfeat.commands.probe.sweep import cell_of
from randfeat.features.store import FeatureStore

GRID = ["--orders", "raster", "random*2", "--layers", "L1", "L-1", "--pools", "mean", "grid2"]


@pytest.mark.slow
def test_sweep_ranks_on_train_and_scores_the_best_once(model, table, tmp_path, capsys):
    out = tmp_path / "out"
    more = [*GRID, "--contexts", "causal", "after", "--group", "photographer", "--folds", "3"]
    assert probe("sweep", model, table, out=out, more=more) == 0
    shown = capsys.readouterr().out
    with (out / "specs.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file)]
    assert "Feature specs of small/tiny: k-NN" in (out / "report.html").read_text()
    assert len(list((out / "plots").glob("Feature-specs-*"))) == 4  # heat maps and curves of two tasks
    depth = load(model).generator.depth
    specs = [row["spec"] for row in rows if row["task"] == "knn"]
    # two orders, two layers, two pools; causal has both streams, after the query stream alone
    assert len(specs) == len(set(specs)) == 2 * 2 * 2 * 3
    assert {spec.split("/")[3] for spec in specs} == {"L1", f"L{depth}"}
    for task in ("knn", "linear"):
        own = [row for row in rows if row["task"] == task]
        best = max(own, key=lambda row: float(row["value"]))
        assert [row["spec"] for row in own if row["best"] == "True"] == [best["spec"]]
        assert best["spec"] in shown
        record = by_name(out)[task, f"small/tiny {best['spec']}"]
        assert record.chosen.startswith(f"{best['spec']}/")
        assert record.search[best["spec"]] == pytest.approx(float(best["value"]), abs=1e-5)
        assert record.settings["best on train"]
        assert int(best["n"]) == record.settings["train images"] == 60
        assert record.scores[record.headline].n == 30
        width = FeatureStore.open(next((out / "stores").iterdir())).as_numpy(best["spec"]).shape[1]
        assert int(best["dimension"]) == width


def test_sweep_of_a_store_is_that_of_its_vectors(model, table, tmp_path):
    specs = [SPEC, "raster/causal/token/L1/mean/mean", "raster/causal/token/L2/none/mean"]
    for part in ("train", "test"):
        extract = ["extract", str(model), str(table), "-o", str(tmp_path / part), "--split", part, "--spec", *specs]
        assert cli.main([*extract, "--workers", "0", "--device", "cpu"]) == 0
    out = tmp_path / "out"
    assert probe("sweep", f"{tmp_path / 'train'},{tmp_path / 'test'}", out=out, more=["--tasks", "knn"]) == 0
    with (out / "specs.csv").open(newline="") as file:
        assert [row["spec"] for row in csv.DictReader(file)] == specs[:2]


def test_sweep_of_a_model_of_timm_is_over_layers_and_pools(table, tmp_path):
    name = "random:timm:test_vit"
    more = ["--tasks", "knn", "--layers", "L1", "L-1", "--pools", "mean", "cls", "--shifts", "1", "2", "--no-search"]
    assert probe("sweep", name, table, out=tmp_path / "out", more=more) == 0
    with (tmp_path / "out" / "specs.csv").open(newline="") as file:
        found = {row["spec"].partition("/")[2] for row in csv.DictReader(file)}
    assert found == {"mean", "cls", "mean/shifts2", "cls/shifts2"}


def test_shifts_of_a_sweep_have_maps_of_their_own():
    assert cell_of("raster/full/query/L2/grid2/mean") == ("raster full", "query grid2 mean", "L2")
    assert cell_of("raster/full/query/L2/grid2/mean/shifts2") == ("raster full shifts2", "query grid2 mean", "L2")
    assert (cell_of("L2/cls"), cell_of("L2/cls/shifts2")) == (("", "cls", "L2"), ("shifts2", "cls", "L2"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--orders", "spiral"], "--orders spiral: order 'spiral' is none of raster"),
        (["--contexts", "causal", "future"], "--contexts future: context 'future' is none of"),
        (["--layers", "L99"], "--layers L99: .*layers are numbered 1 to"),
        (["--pools", "none"], "is a dense map: choose pools that give vectors"),
        (["--shifts", "1", "0"], "--shifts 0: shifts are counted from 1"),
        (["--recipe", "mae"], "leave --recipe and --online out"),
    ],
)
def test_sweep_refuses_what_no_reading_has(more, message, model, table, tmp_path, capsys):
    assert probe("sweep", model, table, out=tmp_path / "out", more=more) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_sweep_takes_one_model(model, table, tmp_path, capsys):
    assert probe("sweep", model, model, table, out=tmp_path / "out") == 1
    assert "one MODEL and DATA, or one STORE" in capsys.readouterr().err
    assert probe("sweep", "random:timm:test_vit", table, out=tmp_path / "out", more=["--orders", "raster"]) == 1
    assert "leave --orders out" in capsys.readouterr().err
