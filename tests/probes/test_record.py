"""Records on disk, tables and claims."""

import csv
import json

import numpy as np
import pytest
from randfeat.probes import Record, bootstrap, compare, made_with, markdown, paired, strongest_baseline
from randfeat.probes.protocol import CHANCE
from randfeat.probes.report.names import candidate_name, metric_name
from records import load_all
from scipy.stats import binomtest

PATHS = np.array([f"{i:03}.png" for i in range(200)])


def record(name, share, task="knn", seed=0, held_out=None, paths=PATHS, **settings):
    right = np.random.default_rng(seed).random(len(paths)) < share
    arrays = {"right": right.astype(float), "paths": paths, "truth": np.arange(len(paths)) % 3}
    search = {} if held_out is None else {f"{name}/k=20": held_out}
    return Record(name, task, {"k=20": bootstrap(right)}, "", search, settings=settings, arrays=arrays)


def test_a_record_comes_back_as_it_was(tmp_path):
    before = Record(
        "ours raster/causal/token/L3/mean/mean",
        "linear",
        {"accuracy": bootstrap([1, 0, 1]), "other": bootstrap([0, 0, 1])},
        "ours/linear C=1",
        {"ours/linear C=1": 0.5},
        {"cat": 1.0},
        {"seed": 0, "pcas": [None, 64]},
        {"labels": "0" * 64},
        made_with(),
        1.25,
        {"right": np.array([1.0, 0, 1]), "paths": np.array(["a", "b", "ü"])},
    )
    path = before.save(tmp_path / "deep" / "out")
    after = Record.load(path)
    assert after == before
    assert {name: x.tolist() for name, x in after.arrays.items()} == {"right": [1, 0, 1], "paths": ["a", "b", "ü"]}
    assert json.loads(path.read_text())["scores"]["accuracy"]["n"] == 3
    assert (after.headline, after.is_baseline, path.suffix) == ("accuracy", False, ".json")
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.with_suffix(".npz").name, "results.csv"}


def test_results_hold_a_row_for_each_record_and_the_last_one_of_a_name(tmp_path):
    for name, share in (("a", 0.5), ("b", 0.6), ("a", 0.7)):
        record(name, share).save(tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["b", "a"]
    assert [loaded.name for loaded in load_all(tmp_path)] == ["b", "a"]
    assert (
        float(rows[1]["value"]) == load_all(tmp_path)[1].scores["k=20"].value == record("a", 0.7).scores["k=20"].value
    )


def test_names_that_differ_never_share_a_file():
    names = ["a/b", "a b", "a-b", "A/b", "*", "x" * 200, "x" * 201]
    assert len({record(name, 0.5).stem.lower() for name in names}) == len(names)


def test_a_crash_leaves_no_half_record(tmp_path, monkeypatch):
    record("a", 0.5).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("no room left")))
    with pytest.raises(OSError, match="no room"):
        record("b", 0.5).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "something else"}', "{"])
def test_a_file_that_is_no_record_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is no record"):
        Record.load(tmp_path / "x.json")


def test_claims_are_against_the_strongest_baseline_by_train_and_between_models():
    records = [
        record("ours", 0.9),
        record("theirs", 0.85, seed=1),
        record("weak", 0.95, seed=2, held_out=0.5, baseline=True),  # better on test by luck: not what is chosen by
        record("strong", 0.4, seed=3, held_out=0.9, baseline=True),
    ]
    assert strongest_baseline(records, "k=20").name == "strong"
    claims = compare(records)
    assert [(c.a, c.b) for c in claims] == [("ours", "theirs"), ("ours", "strong"), ("theirs", "strong")]
    assert [c.claim.holds for c in claims] == [False, True, True]
    a, b = records[0].arrays["right"], records[3].arrays["right"]
    assert claims[1].difference.value == pytest.approx((a - b).mean())
    assert claims[1].difference.p == paired(a, b, draws=2000).p
    assert claims[1].claim.adjusted >= claims[1].difference.p
    only_one = binomtest(int((a > b).sum()), int((a != b).sum())).pvalue  # another test sees the same
    assert only_one < 0.05


def test_nothing_is_compared_with_chance():
    records = [record("ours", 0.9), record(CHANCE, 0.95, held_out=0.9, baseline=True)]
    assert compare(records) == []
    assert strongest_baseline(records, "k=20") is None
    assert "†" not in markdown(records)
    records.append(record("pixels", 0.4, held_out=0.3, baseline=True))
    assert [(c.a, c.b) for c in compare(records)] == [("ours", "pixels")]
    assert compare(records[1:]) == []  # nor is one baseline among baselines


def test_the_summary_of_a_record_is_what_was_chosen_on_train(tmp_path):
    found = record("ours", 0.9)
    assert found.summary == "k=20"
    found.scores["chosen"] = bootstrap(np.arange(200) % 2 == 0)
    assert (found.headline, found.summary) == ("k=20", "chosen")
    found.save(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["metric"], float(row["value"])) == ("chosen", 0.5)


@pytest.mark.parametrize(
    ("metric", "task", "name"),
    [
        ("k=20", "knn", "top-1, k = 20"),
        ("chosen", "knn", "top-1, chosen"),
        ("accuracy", "linear", "top-1 accuracy"),
        ("accuracy", "cluster", "clustering accuracy"),
        ("5 shots", "fewshot", "top-1, 5 shots"),
        ("K=1", "likelihood", "top-1, 1 order"),
        ("K=16", "likelihood", "top-1, 16 orders"),
        ("map_at_r", "retrieval", "MAP@R"),
        ("recall_at_10", "retrieval", "Recall@10"),
        ("medium average_precision", "retrieval", "medium mAP"),
        ("hard precision_at_1", "retrieval", "hard mP@1"),
        ("hard precision_at_10", "retrieval", "hard mP@10"),
        ("pck@0.1", "correspondence", "PCK@0.1"),
        ("mIoU", "segmentation", "mIoU"),
    ],
)
def test_metrics_have_the_names_of_papers(metric, task, name):
    assert metric_name(metric, task) == name


def test_a_metric_fixed_in_advance_has_its_own_strongest_baseline():
    fixed, searched = (record(name, 0.5, held_out=0.6, baseline=True) for name in ("fixed", "searched"))
    fixed.search["fixed/knn k=1"] = 0.6
    searched.search.update({"searched/k=20": 0.5, "searched/knn k=1": 0.9})
    for one in (fixed, searched):
        one.scores["chosen"] = one.scores["k=20"]
    assert strongest_baseline([fixed, searched], "k=20") is fixed
    assert strongest_baseline([fixed, searched], "chosen") is searched


def test_a_replacement_that_was_interrupted_hides_its_record_alone(tmp_path, monkeypatch):
    record("a", 0.5).save(tmp_path)
    path = record("b", 0.5).save(tmp_path)
    monkeypatch.setattr("json.dumps", lambda *of, **how: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        record("b", 0.6).save(tmp_path)
    monkeypatch.undo()
    assert not path.exists()
    assert [one.name for one in load_all(tmp_path)] == ["a"]


def test_other_test_images_are_never_compared():
    with pytest.raises(ValueError, match="scored on other test images"):
        compare([record("a", 0.5), record("b", 0.5, paths=PATHS[:-1])])
    assert compare([record("a", 0.5)]) == []


def test_groups_are_resampled_in_comparisons():
    a, b = record("a", 0.8), record("b", 0.6, seed=1)
    for one in (a, b):
        one.arrays["groups"] = np.arange(200) // 50
    found, wide = compare([a, b])[0].difference, paired(a.arrays["right"], b.arrays["right"], np.arange(200) // 50)
    assert (found.low, found.high) == (wide.low, wide.high)


def test_a_table_for_papers():
    records = [record("strong", 0.4, baseline=True), record("a|b", 0.9), record("a|b", 0.5, task="cluster")]
    text = markdown(records, compare(records))
    lines = text.splitlines()
    score = records[1].scores["k=20"]
    said = f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    assert lines[:4] == ["| k-NN | top-1, k = 20 |", "| --- | ---: |", f"| a/b | {said} |", lines[3]]
    assert lines[3].startswith("| *strong* | ")
    assert lines[3].endswith("]† |")
    assert "n = 200" in text
    assert "† the baseline with the highest score of the column, since none was held out of train" in text
    assert "| a/b − strong | k-NN: top-1, k = 20 | " in text
    searched = [record("strong", 0.4, held_out=0.5, baseline=True), record("a", 0.9)]
    assert "† the baseline chosen on train, by its score on held-out images there" in markdown(searched)
    assert "†" not in markdown(searched[1:])
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("linear standard C=0.1", "linear, each dimension of variance 1, C = 0.1"),
        ("linear none pca=64 C=1", "linear, as they are, 64 principal components, C = 1"),
        (
            "raster/full/L2/knn cosine whitened pca=64 k=5",
            "raster/full/L2/k-NN cosine, whitened to 64 components, k = 5",
        ),
        ("knn euclidean center-l2 k=20", "k-NN euclidean, centred, each image of norm 1, k = 20"),
        ("raster/full/query/L2/mean/mean", "raster/full/query/L2/mean/mean"),
    ],
)
def test_a_candidate_is_told_in_words(candidate, words):
    assert candidate_name(candidate) == words
