"""The reading study as its commands run it: all of it on a few digits, resumed, tabled and drawn."""

from __future__ import annotations

import json
import runpy
import sys

import numpy as np
import pytest
from study import ROOT, part

from randfeat import cli
from randfeat.utils import parallel


@pytest.fixture
def one_by_one(monkeypatch):
    """Jobs run in this process."""

    def run_all(jobs, workers=None):
        return {name: job(0) for name, job in jobs.items()}

    for module in (parallel, *(part(name) for name in ("__main__", "tuning", "scaling"))):
        monkeypatch.setattr(module, "run_all", run_all)


@pytest.fixture
def program(monkeypatch, capsys, one_by_one):
    """Runs a module of the study with its arguments, in this process and with few readings: what it prints."""
    for name in ("units", "warped"):
        monkeypatch.setattr(part(name), "feature_specs", part("attended").SPECS.get)
    monkeypatch.setattr(part("attended"), "SETTINGS", ((3e-3, 2), (1e-3, 2)))
    for name, draws in (("DRAWS", 4), ("SEARCHED_DRAWS", 2)):
        monkeypatch.setattr(part("scoring"), name, draws)
    all_settings = part("scoring")._settings  # of which `test_the_search_never_looks_at_test` tries all
    monkeypatch.setattr(part("scoring"), "_settings", lambda measure: dict([*all_settings(measure).items()][-2:]))
    monkeypatch.setattr(part("results"), "DRAWS", 200)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        part(name).main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_all_of_it_goes_on_and_becomes_tables(tmp_path, program):
    how = "--sets", "digits", "--steps", 4, "--images", 600, "--width", 16, "--depth", 2, "--rates", 1e-3, 4e-3
    who = "--models", "classical", "randar", "masked", "randar-agree-crops", "randar-labels"
    program("__main__", tmp_path, *how, *who, "--seeds", 0)
    folder = tmp_path / "data1-split1"
    records = sorted(folder.glob("digits/*/*/record.json"))
    done = ["masked", "randar", "randar-agree-crops", "randar-labels"]
    assert [path.parts[-3:-1] for path in records] == [(name, "0") for name in done]
    before = {path: path.stat().st_mtime_ns for path in records}
    program("__main__", tmp_path, *how, *who, "--seeds", 0)
    program("__main__", tmp_path, *how, "--models", "classical", "randar", "--seeds", 1)
    assert before == {path: path.stat().st_mtime_ns for path in records}
    assert json.loads(records[1].read_text())["flops"] > 0
    text = program("tables", folder, "--specs")
    for words in (
        "| digits, 400 test images, 2 seeds | linear | knn | 5-shot | map@r | attentive | PCK@0.1 |",
        "] (1 seed) | ",  # of masked tokens
        "| RandAR − masked tokens | ",
        "| RandAR − strongest baseline | ",
        "*HOG*",
        "both sides − one pass",
        "`raster/causal/query/L-1/grid4/mean` |",
        "*same place*",
        "| digits, 64 dimensions, 2 seeds | linear | knn | 5-shot | map@r |",
        "| *strongest baseline* | ",
        "| RandAR, 2 x 2 shifts | ",
        "| HOG, in the middle | ",
        "| RandAR: 2 x 2 shifts − as it is | ",
        "| RandAR − HOG, each at its best view | ",
        "| RandAR, crops agree − plain | ",
        "| RandAR, crops agree − plain, each at its best view | ",
        "| RandAR with labels: likelihood, K = 16, 1 seed | ",
    ):
        assert words in text, words
    kept = tmp_path / "kept"
    assert program("archive", folder, kept) == f"{kept / 'digits'}: 6 units\n"
    assert program("tables", kept, "--specs") == program("tables", folder)
    assert not [path for path in kept.rglob("*.npz") if any(n.startswith("train") for n in np.load(path).files)]
    program("figures", kept, kept)
    assert {path.name for path in kept.glob("*.png")} == {"reading_digits.png", "reading_moved_digits.png"}
    program("figures", folder, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "reading_digits.png",
        "reading_costs_digits.png",
        "reading_moved_digits.png",
    }


def test_differences_are_between_the_same_seeds():
    results, made = part("results"), np.random.default_rng(0).random((3, 40))
    folder = results.Results(ROOT)
    folder.__dict__["groups"] = np.arange(40)
    one, other = ({seed: made[i] for i, seed in enumerate(seeds)} for seeds in ((0, 1, 4), (4, 0)))
    difference = folder.difference(one, other)
    expected = np.mean([made[0] - made[1], made[2] - made[0]])  # seeds 0 and 4
    assert (difference.difference.value, difference.seeds) == (pytest.approx(expected), 2)
    assert folder.difference(one, {None: made[0]}).difference.value == pytest.approx((made - made[0]).mean())
    assert folder.difference(one, {7: made[0]}) is None


@pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning")  # imported by other tests
def test_what_is_wrong_is_one_sentence(tmp_path, monkeypatch, capsys, one_by_one):
    for name, words, message in (
        ("reading", [tmp_path / "out", "--tokens", tmp_path, tmp_path, "--steps", 3], "is no token store"),
        ("reading.tables", [tmp_path], "holds no finished unit"),
        ("reading.archive", [tmp_path, tmp_path], "is the folder to archive: give another one"),
    ):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"studies.{name}", run_name="__main__")
        shown = capsys.readouterr()
        assert (ended.value.code, shown.out) == (1, "")
        assert message in shown.err
        assert shown.err.count("\n") == 1


@pytest.mark.slow
def test_scaling_is_tabled_and_drawn(tmp_path, monkeypatch, program):
    scaling = part("scaling")
    monkeypatch.setattr(scaling, "WIDTHS", (16, 32))
    monkeypatch.setattr(scaling, "STEPS", (2, 4))
    monkeypatch.setattr(scaling, "DEPTH", 2)
    monkeypatch.setattr(part("material"), "IMAGES", 120)
    monkeypatch.setattr(scaling.tuning, "rates", lambda *how: {"arpg": 1e-3})
    said = program("scaling", tmp_path, "--set", "digits", "--draw", tmp_path)
    assert "| width 32, 4 steps | " in said
    assert said.count("\n") == 6
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {f"reading_scaling_{name}.png" for name in ("linear", "knn", "5-shot", "map_r")}


@pytest.mark.slow
def test_the_same_of_token_stores(tmp_path, program):
    """Stores of `randfeat tokenize` are sets, too, as ImageNet would be."""
    data, train, test = (tmp_path / name for name in ("digits", "train", "test"))
    cut = "--size", "8", "--crops", "centre"
    fitted = "--tokenizer", "patch", "--patch", "2", "--vocab", "64"
    for command in (
        ["make", "digits", "-o", data],
        ["tokenize", data, "--split", "train", "-o", train, *fitted, *cut],
        ["tokenize", data, "--split", "test", "-o", test, "--tokenizer", train, *cut],
    ):
        assert cli.main([*map(str, command)]) == 0
    size = "--width", 32, "--depth", 2, "--batch", 16, "--steps", 4, "--rates", 1e-3, "--images", 500
    who = "--seeds", 0, "--models", "classical", "randar"
    program("__main__", tmp_path / "out", "--tokens", train, test, *size, *who)
    table = program("tables", tmp_path / "out" / "data1-split1")
    for words in ("tokens, 333 test images", "| RandAR − strongest baseline | ", "| RandAR | "):
        assert words in table
    made = part("material").read("tokens", tmp_path / "out" / "data1-split1" / "tokens" / "material.npz")
    assert (len(made.tokens), len(made.fit) + len(made.held_out), min(made.tested) >= 1157) == (1797, 1157, True)
    with pytest.raises(ValueError, match="there are no pictures in the set tokens, only tokens"):
        made.patches  # noqa: B018


FOUND = ROOT / "studies" / "reading" / "found" / "data1-split1"


def test_the_scaling_curve_is_what_was_found():
    """Scores kept in the repository make the rows of docs/reading.md."""
    scaling, job, page = part("scaling"), part("units").Job, (ROOT / "docs" / "reading.md").read_text("utf-8")
    kept = FOUND / "cluttered"
    made = {
        (width, steps, 0): job(
            "cluttered",
            "arpg",
            0,
            kept / "material.npz",
            kept / "scaling" / "arpg" / f"width{width}-steps{steps}" / "0",
        )
        for width in scaling.WIDTHS
        for steps in scaling.STEPS
    }
    found = scaling.intervals(made, [0])
    for width, steps, _ in made:
        cells = [part("tables").percent(found[measure][width][steps]) for measure in scaling.MEASURES]
        assert f"| width {width}, {steps} steps | {' | '.join(cells)} | " in page


@pytest.mark.slow
def test_the_page_of_tables_is_what_was_found(capsys, monkeypatch):
    """Scores kept in the repository make the tables of docs/reading-tables.md, number for number."""
    monkeypatch.setattr(sys, "argv", ["tables", str(FOUND)])
    part("tables").main()
    found, page = capsys.readouterr().out, (ROOT / "docs" / "reading-tables.md").read_text("utf-8")
    tables = [block for block in found.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 6
    for table in tables:
        assert table.strip() in page
