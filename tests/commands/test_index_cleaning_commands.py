"""`randfeat index duplicates` and `select` from the command line."""

from __future__ import annotations

import csv
import io
import json
import shutil

import damaged
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from randfeat import Index, cli
from randfeat.index import digests, staging


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index by pixels of 30 pictures and of three copies: the same bytes, a larger file, and one that is gone."""
    photos = tmp_path / "photos"
    for number in range(30):
        path = photos / ("Cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(8, 8, seed=number)).save(path)
    shutil.copy(photos / "Cat/00.png", photos / "dog/same.png")
    with Image.open(photos / "Cat/02.png") as picture:
        note = PngInfo()
        note.add_text("note", "".join(map(str, range(500))))
        picture.save(photos / "Cat/large.png", pnginfo=note)
        picture.save(photos / "Cat/gone.png")
    paths = sorted(photos.rglob("*.png"))
    features = np.stack([np.asarray(Image.open(path).convert("L"), np.float32).ravel() for path in paths])
    states = [staging.state_of(str(path)) for path in paths]
    table = staging.table_of(
        [(name, path.parent.name, *more) for (name, *more), path in zip(states, paths, strict=True)]
    )
    made = Index.begin(tmp_path / "i", "flat", "cosine", 64, None, None)
    with made._creating():
        made._fill([features], staging.with_digests(table, digests.digests_of(states)), None)
    (photos / "Cat/gone.png").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    assert cli.main(["index", *map(str, arguments)]) == code, capsys.readouterr().err
    return capsys.readouterr()


def test_duplicates_in_every_form(index, capsys):
    said = run(capsys, "duplicates", "i")
    assert "5 rows have another one at 1 or nearer; the nearest of the others are at 0." in said.err
    blocks = [block.splitlines() for block in said.out.strip().split("\n\n")]
    assert [block[0] for block in blocks] == ["3 alike", "2 alike"]
    photos = index / "photos"
    assert [line.split()[2:] for line in blocks[0][1:]] == [
        ["keep", f"{photos}/Cat/large.png"],
        [f"{photos}/Cat/02.png"],
        [f"{photos}/Cat/gone.png"],
    ]
    assert blocks[1][2].split()[2:] == ["same", "bytes", f"{photos}/dog/same.png"]
    found = json.loads(run(capsys, "duplicates", "i", "--format", "json", "--threshold", "0.999").out)
    assert found["threshold"] == 0.999
    assert [[one["keep"] for one in group] for group in found["groups"]] == [[True, False, False], [True, False]]
    assert found["groups"][1][1]["same_bytes"]
    run(capsys, "duplicates", "i", "--format", "paths", "-o", "copies.txt")
    assert (index / "copies.txt").read_text().split() == [
        f"{photos}/Cat/02.png",
        f"{photos}/Cat/gone.png",
        f"{photos}/dog/same.png",
    ]


def test_the_page_of_duplicates(index, capsys):
    run(capsys, "duplicates", "i", "--format", "html", "-o", "page.html")
    page = (index / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert page.count("no picture there") == 1
    assert "5 of 33 images are all but the same as another" in page
    assert "<svg" in page
    assert page.count("largest file") == 2
    run(capsys, "duplicates", "i", "--format", "html", "-o", "given.html", "--threshold", "0.99")
    assert "<svg" not in (index / "given.html").read_text()
    run(capsys, "remove", "i", "photos/dog/same.png", "photos/Cat/large.png", "photos/Cat/gone.png")
    run(capsys, "duplicates", "i", "--format", "html", "-o", "none.html", "--threshold", "0.9999")
    assert "None of 30 images is all but the same as another" in (index / "none.html").read_text()
    assert run(capsys, "duplicates", "i", "--threshold", "0.9999").out == "no near-duplicates\n"


def test_select_in_every_form(index, capsys):
    said = run(capsys, "select", "i", "--count", 4)
    assert len(said.out.splitlines()) == 4
    assert "4 chosen; every image has a cosine of at least 0." in said.err
    said = run(capsys, "select", "i", "--count", 40)
    assert len({*said.out.splitlines()}) == 33
    assert "33 chosen, all that there are; every image has a cosine of at least 1 to one of them" in said.err
    run(capsys, "select", "i", "--count", 3, "--label", "CAT", "--format", "csv", "-o", "chosen.csv")
    rows = list(csv.reader(io.StringIO((index / "chosen.csv").read_text())))
    assert rows[0] == ["path", "label"]
    assert [label for _, label in rows[1:]] == ["Cat"] * 3
    found = json.loads(run(capsys, "select", "i", "--count", 2, "--format", "json", "--path", "dog/*").out)
    assert found[0]["score"] is None
    assert found[1]["score"] < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("duplicates i --threshold much", "--threshold is a number, or auto, got much"),
        ("duplicates i --threshold 7", "the threshold must be a cosine above -1 and up to 1, got 7"),
        ("duplicates i --threshold -1", "the threshold must be a cosine above -1 and up to 1, got -1"),
        ("duplicates i --threshold inf", "the threshold must be a cosine above -1 and up to 1, got inf"),
        ("duplicates i -o i/page.html", "i/page.html lies in the index: choose another file"),
        ("duplicates i -o photos", "photos is a folder: name a file in it"),
        ("select i --count 0", "count must be a whole number from 1, got 0"),
        ("select i --count -2", "count must be a whole number from 1, got -2"),
        ("select i --count 3 --path fox/*", "has no row to choose from"),
        ("select i --count 3 --label dgo", "i has no row of the label dgo: did you mean dog?"),
        ("select photos --count 3", "photos is no index: it has no meta.json"),
    ],
)
def test_what_is_wrong_is_one_sentence(index, capsys, arguments, message):
    said = run(capsys, *arguments.split(), code=1).err
    assert message in said
    assert len(said.splitlines()) == 1
