"""Probes on labelled features: stores and models, compared, attentive and online."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probing import SPEC, by_name, picture, probe
from records import load_all
from sklearn.datasets import load_digits

from randfeat import cli
from randfeat.commands.probe.inputs import open_data, part_of
from randfeat.data.builtin import make_digits, write_folder
from randfeat.features import store
from randfeat.features.store import FeatureStore

# inputs ---------------------------------------------------------------------------------------------------------------


def test_model_and_data_leave_records_and_tables(model, table, tmp_path, capsys):
    out = tmp_path / "out"
    assert probe("all", model, table, out=out, more=["--group", "photographer", "--spec", SPEC, "--shots", 2]) == 0
    shown = capsys.readouterr().out
    assert (out / "table.md").read_text() in shown
    page = (out / "report.html").read_text()
    assert page.count("<img ") == len(list((out / "plots").iterdir()))
    for part in ("Features as colours", "retrieval", "confusions"):
        assert part in page
    records = by_name(out)
    assert {task for task, _ in records} == {"knn", "linear", "fewshot", "retrieval", "cluster"}
    assert {name for _, name in records} == {f"small/tiny {SPEC}", "chance (noise)"}
    record = records["linear", f"small/tiny {SPEC}"]
    assert (record.settings["train images"], record.settings["test images"]) == (60, 30)
    assert record.settings["groups"] == {"train": 4, "test": 2}
    assert set(record.arrays["groups"]) == {"p4", "p5"}
    assert set(record.arrays["truth"]) == {"ant", "bee", "cat"}
    assert record.scores["accuracy"].value > records["linear", "chance (noise)"].scores["accuracy"].value + 0.2
    held = FeatureStore.open(next((out / "stores").iterdir()))
    assert held.specs == [SPEC]
    assert record.made_with["randfeat"]


def test_features_are_read_once(model, table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert probe("knn", model, table, out=out) == 0
    kept = {path: path.stat().st_mtime_ns for path in (out / "stores").rglob("*") if path.is_file()}
    monkeypatch.setattr(store, "write", lambda *of, **the: pytest.fail("read again"))
    assert probe("linear", model, table, out=out) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "stores").rglob("*") if path.is_file()} == kept
    monkeypatch.undo()
    assert probe("linear", model, table, out=out, more=["--spec", SPEC, "raster/causal/token/L1/max/mean"]) == 0
    assert len(list((out / "stores").iterdir())) == 4  # train and test of two readings


def test_stores_and_models_measure_the_same(model, table, stores, tmp_path):
    group = ["--group", "photographer"]
    assert probe("linear", model, table, out=tmp_path / "a", more=["--spec", SPEC, *group]) == 0
    assert probe("linear", "--train", stores / "train", "--test", stores / "test", out=tmp_path / "b", more=group) == 0
    assert (
        probe(
            "compare", f"{stores / 'train'},{stores / 'test'}", out=tmp_path / "c", more=["--tasks", "linear", *group]
        )
        == 0
    )
    found = [next(record for record in load_all(tmp_path / part) if not record.is_baseline) for part in ("a", "b", "c")]
    assert found[0].scores == found[1].scores == found[2].scores
    assert found[0].fingerprints == found[1].fingerprints == found[2].fingerprints
    assert found[1].name == f"{stores.name}/train,{stores.name}/test {SPEC}"
    FeatureStore.merge([stores / "train", stores / "test"], tmp_path / "whole")
    more = ["--data", table, "--tasks", "linear", "--spec", SPEC, *group]
    assert probe("compare", tmp_path / "whole", model, out=tmp_path / "d", more=more) == 0
    whole, ours = (record for record in load_all(tmp_path / "d") if not record.is_baseline)
    assert whole.scores == ours.scores == found[0].scores


def test_one_store_is_cut_by_the_seed_and_groups_stay_whole(model, folder, tmp_path):
    whole = tmp_path / "whole"
    extract = ["extract", str(model), str(folder), "-o", str(whole), "--spec", SPEC]
    assert cli.main([*extract, "--workers", "0", "--device", "cpu"]) == 0
    tests = []
    for number, more in enumerate(([], [], ["--seed", "1"], ["--test-share", "0.5"])):
        assert probe("knn", whole, out=tmp_path / str(number), more=more) == 0
        tests.append(load_all(tmp_path / str(number))[0].arrays["paths"].tolist())
    assert tests[0] == tests[1] != tests[2]
    assert len(tests[0]) == 20
    assert len(tests[3]) == 30
    assert probe("retrieval", whole, out=tmp_path / "all") == 0
    assert load_all(tmp_path / "all")[0].scores["map_at_r"].n == 60
    assert probe("knn", whole, out=tmp_path / "parent", more=["--group", "parent"]) == 0
    assert len(set(load_all(tmp_path / "parent")[0].arrays["truth"])) == 1  # of one folder, which is a class


# tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compare_puts_ours_timm_and_random_weights_beside_all_baselines(model, table, tmp_path, capsys):
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.pth")
    contenders = [model, f"timm:test_vit@{tmp_path / 'vit.pth'}", "random:timm:test_vit"]
    more = [
        "--data",
        table,
        "--group",
        "photographer",
        "--baselines",
        "--tasks",
        "linear",
        "knn",
        "--spec",
        SPEC,
        "L1/mean",
    ]
    assert probe("compare", *contenders, out=tmp_path / "out", more=more) == 0
    records = load_all(tmp_path / "out")
    linear = [record for record in records if record.task == "linear"]
    assert [record.name for record in linear if not record.is_baseline] == [
        f"small/tiny {SPEC}",
        f"timm:test_vit@{tmp_path.name}/vit.pth L1/mean",
        "random:timm:test_vit L1/mean",
    ]
    assert {record.name for record in linear if record.is_baseline} == {
        f"random:small/tiny {SPEC}",
        "pixels",
        "RBF-SVM on pixels",
        "recentred pixels",
        "HOG",
        "PCA of pixels",
        "patch counts",
        "colour histogram",
        "tokens of small/tiny",
        "chance (noise)",
    }
    assert len({tuple(record.arrays["paths"]) for record in records}) == 1
    pixels, ours = (next(r for r in linear if r.name == name) for name in ("pixels", f"small/tiny {SPEC}"))
    assert pixels.scores["accuracy"].value > 0.9
    assert len(pixels.search) == len(ours.search)  # the same search
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| *RBF-SVM on pixels* |" in text
    assert "p (Holm)" in text
    shown = capsys.readouterr().out
    assert text in shown


def test_random_weights_are_other_weights_and_the_same_each_time(model):
    from randfeat.commands.probe.inputs import open_model

    cpu = torch.device("cpu")
    images = [picture(label, 0) for label in range(3)]
    trained, fresh, again, other = (
        open_model(*of)
        for of in ((str(model), [SPEC], cpu), *((f"random:{model}", [SPEC], cpu, torch.float32, s) for s in (0, 0, 1)))
    )
    first = fresh.features(images)[0]
    np.testing.assert_array_equal(first, again.features(images)[0])
    for one in (trained, other):
        assert not np.allclose(first, one.features(images)[0])
    with pytest.raises(ValueError, match="timm has no model 'nonsense'"):
        open_model("random:timm:nonsense", [], cpu)


def test_attentive_reads_dense_maps_of_its_own_accord(model, table, tmp_path):
    assert probe("attentive", model, table, out=tmp_path, more=["--no-search", "--baselines"]) == 0
    records = {record.name: record for record in load_all(tmp_path)}
    assert set(records) == {
        "small/tiny raster/full/query/L1/none/mean",
        "random:small/tiny raster/full/query/L1/none/mean",
        "patch pixels",
        "HOG cells",
        "cell colours",
        "tokens of small/tiny",
        "chance (noise)",
        *(
            f"{name}, one cell"
            for name in ("pixels", "recentred pixels", "HOG", "PCA of pixels", "patch counts", "colour histogram")
        ),
        "tokens of small/tiny, one cell",
    }
    assert records["pixels, one cell"].scores["accuracy"].value > 0.9
    assert all(set(records[name].search) for name in ("patch pixels", "HOG cells"))  # as they are, or with the place
    solved = records["cell colours"].scores["accuracy"].value, records["patch pixels"].scores["accuracy"].value
    assert max(solved) > 0.9  # left, right and nowhere


def test_online_probes_read_crops(table, tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    import timm
    from randfeat.probes import HeadRecipe

    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.pth")
    short = replace(HeadRecipe.dinov2(), batch=16, iterations=4)
    monkeypatch.setattr(HeadRecipe, "dinov2", classmethod(lambda cls: short))
    model = f"timm:test_vit@{tmp_path / 'vit.pth'}"
    more = ["--recipe", "dinov2", "--online", "--spec", "L1/mean"]
    assert probe("linear", model, table, out=tmp_path / "out", more=more) == 0
    record = load_all(tmp_path / "out")[0]
    assert record.settings["online"]
    assert len(record.search) == 13
    assert record.chosen in record.search
    assert record.scores["accuracy"].n == 30
    assert probe("linear", model, table, out=tmp_path / "one", more=[*more, "--no-search"]) == 0
    assert load_all(tmp_path / "one")[0].search == {}
    capsys.readouterr()
    assert probe("knn", model, table, out=tmp_path / "no", more=more) == 1
    assert "--online is for `probe linear` with a --recipe" in capsys.readouterr().err


def test_the_digits_as_a_folder(tmp_path):
    write_folder(make_digits(), tmp_path / "digits", {"set": "digits"})
    parts = open_data(str(tmp_path / "digits"), None, None)
    assert [len(part) for part in parts] == [1157, 640]
    train, test = (part_of(part, "writer") for part in parts)
    assert set(train.groups) == {str(writer) for writer in range(9)}
    assert set(test.groups) == {str(writer) for writer in range(9, 14)}
    assert set(test.labels) == set(range(10))
    images = load_digits().images
    seen = np.asarray(parts[1].read(3)) / 255 * 16
    np.testing.assert_allclose(seen, images[1157 + 3], atol=0.04)
