"""`randfeat classify` and `randfeat surprise` on a tiny model and pictures made here."""

from __future__ import annotations

import csv
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from pipelines import make_sampler

from randfeat import Views, cli, load

FAST = ["--device", "cpu", "--orders", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    for name in ("b/two.png", "a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (9, 14, 3)).astype(np.uint8)).save(path)
    return tmp_path / "photos"


def test_classify_names_what_classify_finds(model, photos, capsys):
    pipeline, paths = load(model), [photos / "a.png", photos / "b" / "two.png"]
    expected = pipeline.classify(paths, orders=2).top(2)
    assert cli.main(["classify", str(model), str(photos), *FAST, "--top", "2", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in shown] == list(map(str, paths))
    assert [[one["name"] for one in row["classes"]] for row in shown] == [[one.name for one in row] for row in expected]
    assert shown[0]["classes"][0]["log_prob"] == pytest.approx(expected[0][0].log_prob, rel=1e-4)
    assert shown[0]["passes"] == 2 * pipeline.generator.num_classes
    assert cli.main(["classify", str(model), *map(str, paths), *FAST]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(str(paths[1]))
    assert f"{expected[1][0].name} {100 * expected[1][0].probability:.1f} %" in lines[1]


def test_a_race_and_a_choice_of_classes(model, photos, capsys):
    names = load(model).class_names[:2]
    assert (
        cli.main(["classify", str(model), str(photos), "--classes", *names, "--halving", *FAST, "--format", "json"])
        == 0
    )
    for row in json.loads(capsys.readouterr().out):
        assert {one["name"] for one in row["classes"]} == set(names)
        assert row["passes"] <= 2 * 2
        assert row["classes"][0]["log_prob"] is not None


def test_orders_read_views(model, photos, capsys):
    flags = ["--shifts", "2", "--flip", "--crop", ".8", "--jitter", ".1"]
    assert cli.main(["classify", str(model), str(photos), *flags, *FAST, "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    pipeline, views = load(model), Views(2, True, 0.8, 0.1)
    expected = pipeline.classify([photos / "a.png"], orders=2, views=views).top(1)[0][0]
    assert shown[0]["classes"][0]["log_prob"] == pytest.approx(expected.log_prob, rel=1e-4)
    assert cli.main(["classify", str(model), str(photos), "--crop", "2", *FAST]) == 1
    assert "share of a side" in capsys.readouterr().err


def test_surprise_leaves_maps_and_pictures(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["surprise", str(model), str(photos), "-o", str(out), *FAST]) == 0
    assert "sheet.png first" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"0000-a.png", "0001-two.png", "sheet.png", "surprise.npz"}
    pipeline, paths = load(model), [photos / "a.png", photos / "b" / "two.png"]
    with np.load(out / "surprise.npz") as saved:
        assert saved["paths"].tolist() == list(map(str, paths))
        np.testing.assert_allclose(saved["maps"], pipeline.surprisal(paths, orders=2).numpy(), rtol=1e-4)
    assert cli.main(["surprise", str(model), str(photos), "-o", str(out), *FAST, "--exact", "--class", "1"]) == 0
    with np.load(out / "surprise.npz") as saved:
        expected = pipeline.surprisal(paths, [1, 1], orders=2, exact=True).numpy()
        np.testing.assert_allclose(saved["maps"], expected, rtol=1e-4)


@pytest.mark.parametrize("command", [["classify"], ["surprise", "-o", "out"]])
def test_what_cannot_be_read_is_named(command, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for image, says in (
        ("none.png", "there is no none.png"),
        ("empty", "holds no image"),
        ("broken.png", "broken"),
    ):
        assert cli.main([command[0], str(model), image, *command[1:], *FAST]) == 1
        message = capsys.readouterr().err
        assert says in message
    assert not (tmp_path / "out").exists()


def test_wrong_classes_are_refused(model, photos, capsys):
    assert cli.main(["classify", str(model), str(photos), "--classes", "0", "0", *FAST]) == 1
    assert "named once each" in capsys.readouterr().err
    assert cli.main(["classify", str(model), str(photos), "--top", "0", *FAST]) == 1
    assert "top needs" in capsys.readouterr().err


# labelled folders, and files that cannot be read ---------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """Pictures of two classes of the model and one that it does not know, in splits; one file is none."""
    for number, name in enumerate(("train/cat/a.png", "train/dog/b.png", "test/Cat/c.png", "test/ape/d.png")):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (9, 14, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "data" / "train" / "cat" / "note.png").write_text("a note that somebody renamed")
    return tmp_path / "data"


def test_a_labelled_folder_gives_an_accuracy_and_a_table(model, labelled, tmp_path, capsys):
    out = tmp_path / "new" / "answers.csv"
    assert cli.main(["classify", str(model), str(labelled), *FAST, "-o", str(out)]) == 3
    shown = capsys.readouterr()
    with out.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert set(rows) == {str(path) for path in labelled.rglob("*.png")}
    pipeline = load(model)
    right = 0
    for path, row in rows.items():
        assert row["label"] == path.split("/")[-2]
        if path.endswith("note.png"):
            assert (row["class"], row["right"], row["reason"]) == ("", "", "text, no picture")
            continue
        ((expected,),) = pipeline.classify([path], orders=2).top(1)
        assert row["class"] == expected.name
        assert float(row["probability"]) == pytest.approx(expected.probability, rel=1e-3)
        known = row["label"] != "ape"
        assert row["right"] == (str(int(row["label"].lower() == expected.name)) if known else "")
        right += row["right"] == "1"
    assert shown.out.splitlines()[-1] == (
        f"accuracy {100 * right / 3:.1f} % ({right} of 3 images; 1 more without a label among the classes)"
    )
    assert "1 skipped, since they cannot be read: 1 text, no picture\n" in shown.err
    assert "train/cat/note.png: text, no picture" in shown.err


def test_a_pattern_of_archives_is_data_too(model, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        (tmp_path / f"{number}.cls").write_text(str(number))
        with tarfile.open(tmp_path / f"shard-{number}.tar", "w") as archive:
            archive.add(path, f"{number}.png")
            archive.add(tmp_path / f"{number}.cls", f"{number}.cls")
    assert cli.main(["classify", str(model), "shard-{0..1}.tar", *FAST, "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert [row["label"] for row in json.loads(shown.out)] == [0, 1]
    assert "of 2 images)" in shown.err
    assert cli.main(["classify", str(model), "no/such/folder", *FAST]) == 1
    assert "there is no no/such/folder" in capsys.readouterr().err


def test_a_split_as_json(model, labelled, capsys):
    command = ["classify", str(model), str(labelled), *FAST, "--format", "json"]
    assert cli.main([*command, "--split", "test"]) == 0
    shown = capsys.readouterr()
    assert [row["label"] for row in json.loads(shown.out)] == ["Cat", "ape"]
    assert "accuracy" in shown.err
    assert cli.main([*command, "--split", "dev2"]) == 1
    assert "has the splits test, train, not 'dev2'" in capsys.readouterr().err
    assert cli.main([*command, "--classes", "cow"]) == 3
    assert "no accuracy: no image has a label that is one of the classes cow" in capsys.readouterr().err
    assert cli.main([*command, "-o", str(labelled)]) == 1
    assert "is a folder: name a file in it" in capsys.readouterr().err
    files = [str(path) for path in sorted(labelled.rglob("?.png"))]
    assert cli.main(["classify", str(model), *files, *FAST, "--split", "test"]) == 1
    assert "are for one data set" in capsys.readouterr().err
    assert cli.main(["classify", str(model), *files, *FAST]) == 0
    assert "accuracy" not in capsys.readouterr().out


def test_surprise_skips_what_cannot_be_read(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    (photos / "b" / "note.png").write_text("a note that somebody renamed")
    assert cli.main(["surprise", str(model), str(photos), "-o", str(out), *FAST, "--class", "1"]) == 3
    with np.load(out / "surprise.npz") as saved:
        assert saved["paths"].tolist() == [str(photos / "a.png"), str(photos / "b" / "two.png")]
        assert np.isfinite(saved["maps"]).all()
    listed = (out / "skipped.csv").read_text().splitlines()
    assert listed == ["path,reason", f'{photos / "b" / "note.png"},"text, no picture"']
    assert f"listed in {out / 'skipped.csv'}: 1 text, no picture" in capsys.readouterr().err
    (photos / "b" / "note.png").unlink()
    assert cli.main(["surprise", str(model), str(photos), "-o", str(out), *FAST]) == 0
    assert not (out / "skipped.csv").exists()
