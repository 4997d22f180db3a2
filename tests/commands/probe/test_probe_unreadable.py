"""Probes on a folder with files that cannot be read: skipped, counted, listed, exit code 3."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import torch
from pipelines import make_sampler
from probing import FAST, SPEC, fill, probe
from records import load_all

from randfeat import Pipeline, cli, load, weights
from randfeat.commands.probe import inputs, tables
from randfeat.data.sources import open_source
from randfeat.data.sources.folder import FileSource

NOTE = "a note that somebody renamed"


@pytest.fixture
def messy(tmp_path):
    """60 pictures of three classes, and two files that are none."""
    root = fill(tmp_path / "photos", 60)
    for name in ("ant/note.png", "cat/note.png"):
        (root / name).write_text(NOTE)
    return root


def listed(out):
    with (out / "skipped.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


EXPECTED = [("path", "reason"), ("ant/note.png", "text, no picture"), ("cat/note.png", "text, no picture")]


@pytest.mark.parametrize("more", [["knn"], ["sweep", "--tasks", "knn", "--orders", "raster", "--layers", "L1"]])
def test_probes_skip_count_and_list(model, messy, tmp_path, capsys, more):
    name, *rest = more
    out = tmp_path / "out"
    rest = rest if name == "sweep" else ["--spec", SPEC, "--baselines"]
    assert probe(name, model, messy, out=out, more=rest) == 3
    assert listed(out) == EXPECTED
    assert f"2 skipped, since they cannot be read, listed in {out / 'skipped.csv'}: 2 text" in capsys.readouterr().err
    assert all(not path.endswith("note.png") for path in load_all(out)[0].arrays["paths"].tolist())
    for name in EXPECTED[1:]:
        (messy / name[0]).unlink()
    assert probe(more[0], model, messy, out=out, more=rest) == 0
    assert not (out / "skipped.csv").exists()


def test_a_likelihood_is_of_the_same_images_as_the_probes_beside_it(messy, tmp_path, capsys):
    made = make_sampler()
    Pipeline(made.tokenizer, made.generator, ["bee", "ant", "cat"]).save(tmp_path / "named")
    command = ["probe", "likelihood", str(tmp_path / "named"), str(messy), "-o", str(tmp_path / "out"), "--orders", "1"]
    assert cli.main([*command, "--tasks", "knn", *FAST]) == 3
    assert listed(tmp_path / "out") == EXPECTED
    one, other = load_all(tmp_path / "out")[:2]
    assert {one.task, other.task} == {"likelihood", "knn"}
    assert one.arrays["paths"].tolist() == other.arrays["paths"].tolist()
    assert "photos/ant/note.png" not in one.arrays["paths"]
    assert cli.main([*command[:4], "-o", str(tmp_path / "alone"), "--orders", "1", "--tasks", *FAST]) == 3
    assert listed(tmp_path / "alone") == EXPECTED
    assert "ant/note.png: text, no picture" in capsys.readouterr().err


def test_all_of_a_folder_with_splits(model, tmp_path):
    for number, part in enumerate(("train", "val", "test")):
        fill(tmp_path / "photos" / part, 30, 30 * number)
    found = {}
    for name, splits in (("all", ["all", "all"]), ("two", ["train,val", "test"])):
        out = tmp_path / name
        assert probe("knn", model, tmp_path / "photos", out=out, more=["--spec", SPEC, "--split", *splits]) == 0
        found[name] = {path.partition("/")[0] for path in load_all(out)[0].arrays["paths"].tolist()}
    assert found == {"all": {"train", "val", "test"}, "two": {"test"}}  # a share of all, or the test images


def test_an_image_that_test_could_not_read_stays_in_train_under_the_same_name():
    names = ["0.png", "1.png", "2.png", "3.png"]
    sources = [FileSource(part, part, names, [0, 1, 0, 1], ["ant", "bee"]) for part in ("train", "test")]
    args = SimpleNamespace(test_share=None, group=None, seed=0)
    train, test = tables.split(sources, None, ["knn"], args, {"1.png"})
    assert train.paths.tolist() == names
    assert test.paths.tolist() == ["0.png", "2.png", "3.png"]


def test_two_images_of_one_name_in_two_splits_are_two():
    train, test = (SimpleNamespace(skipped=skipped) for skipped in ([("a.png", "empty")], [("a.png", "empty")]))
    models = [SimpleNamespace(encoder="some", stores=(train, test)), SimpleNamespace(encoder="some", stores=(test,))]
    assert inputs.skipped_of(models) == [("a.png", "empty")] * 2
    assert inputs.skipped_of(models, [("a.png", "empty"), ("b.png", "text")]) == [
        ("a.png", "empty"),
        ("b.png", "text"),
        ("a.png", "empty"),
    ]


def test_two_spellings_of_a_split_are_read_once(tmp_path):
    for number, part in enumerate(("train", "val")):
        fill(tmp_path / part, 9, 30 * number)
    once = open_source(tmp_path, "val")
    assert open_source(tmp_path, "val,validation").paths == once.paths
    assert len(open_source(tmp_path, "validation,train,val")) == 18
    (one,) = inputs.open_data(str(tmp_path), ["val", "validation"], None)
    assert one.paths == once.paths
    assert len(inputs.open_data(str(tmp_path), ["train", "validation"], None)) == 2
    for train, test, common in (("train,val", "validation", "val"), ("all", "val", "all")):
        with pytest.raises(ValueError, match=f"--split {train} {test} has {common} in train and in test"):
            inputs.open_data(str(tmp_path), [train, test], None)


def test_random_weights_of_a_likelihood_are_those_of_the_probes_beside_it(messy, tmp_path):
    made = make_sampler()
    path = tmp_path / "named"
    Pipeline(made.tokenizer, made.generator, ["bee", "ant", "cat"]).save(path)
    command = ["probe", "likelihood", f"random:{path}", str(messy), "-o", str(tmp_path / "out"), "--orders", "1"]
    assert cli.main([*command, "--tasks", "knn", "--spec", SPEC, "--seed", "3", *FAST]) == 3
    one, other = load_all(tmp_path / "out")[:2]
    expected = weights.fingerprint(load(f"random:{path}", seed=3).generator)
    assert one.fingerprints["weights"] == expected != weights.fingerprint(load(f"random:{path}").generator)
    read = inputs.open_model(f"random:{path}", [SPEC], torch.device("cpu"), seed=3)
    assert weights.fingerprint(read.pipeline.generator) == expected
    (store,) = (tmp_path / "out" / "stores").iterdir()
    assert read.record()["weights"] in (store / "meta.json").read_text()
    assert (one.name, other.name) == (f"random:{tmp_path.name}/named", f"random:{tmp_path.name}/named {SPEC}")
