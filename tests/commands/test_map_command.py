"""`randfeat map`: pictures, pages and exports of stores and indexes."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib

import damaged
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from randfeat import Index, cli
from randfeat.commands.map import rows, sheets
from randfeat.features import store

COUNT = 30
SPEC = "raster/causal/token/L2/mean/mean"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of small pictures in two classes, a store of them, and an index."""
    names = [f"{('cat', 'dog')[number % 2]}/{number:02}.png" for number in range(COUNT)]
    for number, name in enumerate(names):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(6, 9, seed=number)).save(tmp_path / "photos" / name)
    features = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
    features[1::2, 0] += 9
    write_store(tmp_path / "store", names, features, root=str(tmp_path / "photos"))
    paths = [str(tmp_path / "photos" / name) for name in names]
    Index.build(tmp_path / "index", features, paths, [name[:3] for name in names])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_store(directory, names, features, **source):
    directory.mkdir()
    source = {"name": "photos", "images": len(names), "classes": ["cat", "dog"], "fingerprint": "f"} | source
    record = {"model": "tiny", "specs": [SPEC], "encoder": {"generator": {"depth": 4}}, "source": source}
    table = pa.table([names, [number % 2 for number in range(len(names))]], store.FeatureStore.ROW_SCHEMA)
    store.write(directory, record, table, [features.shape[1:]], [[features]], [])


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    assert cli.main([str(argument) for argument in ("map", *arguments)]) == code
    return capsys.readouterr()


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize("source", ["store", "index"])
def test_a_page_of_a_store_or_an_index(folder, capsys, source):
    said = run(capsys, source, "-o", "deep/map.html")
    assert said.out == f"{COUNT} of {COUNT} images -> deep/map.html\n"
    page = (folder / "deep" / "map.html").read_text()
    assert "://" not in page  # base64 may spell http
    data = data_of(page)
    assert data["classes"] == ["cat", "dog"]
    assert data["label"] == [number % 2 for number in range(COUNT)]
    assert data["folder"] == f"{folder}/photos/"
    assert data["names"][3] == "dog/03.png"
    near = np.array(data["near"]).reshape(COUNT, data["nearest"])
    assert (near != np.arange(COUNT)[:, None]).all()
    assert (near % 2 == (np.arange(COUNT) % 2)[:, None])[1::2].mean() > 0.9
    alike = np.array(data["alike"]).reshape(COUNT, -1)
    assert (np.diff(alike, axis=1) <= 0).all()
    assert {*data["x"], *data["y"]} <= {*range(data["scale"] + 1)}
    assert data["sizes"] == [9, 6] * COUNT
    sheet = Image.open(io.BytesIO(base64.b64decode(data["sheets"][0].partition(",")[2])))
    assert sheet.size == (16 * 9, 2 * 9)
    cell = np.asarray(sheet)[9:15, 9:18]  # the 17th picture: the second of the second row
    assert (cell == np.asarray(Image.open(folder / "photos" / data["names"][17]).convert("RGB"))).all()


def test_a_picture(folder, capsys):
    (folder / "photos/cat/00.png").write_bytes(b"no picture")
    said = run(capsys, "store", "-o", "map.png", "--count", 20)
    assert said.err.endswith("note: 1 images are gone or cannot be read, and left out\n")
    assert said.out == f"20 of {COUNT} images -> map.png\n"
    with Image.open("map.png") as picture:
        assert picture.size == (1600, 1600)


def test_pictures_that_moved_and_those_that_are_nowhere(folder, capsys):
    (folder / "photos").rename(folder / "moved")
    said = run(capsys, "store", "-o", "map.html")
    assert f"note: No pictures: {folder}/photos/cat/00.png is not there any more, and no other image is" in said.err
    page = (folder / "map.html").read_text()
    assert data_of(page)["sheets"] == []
    assert "No pictures: " in page
    assert "there are none: give --data" in run(capsys, "store", "-o", "map.png", code=1).err
    run(capsys, "store", "-o", "map.html", "--data", "moved")
    assert data_of((folder / "map.html").read_text())["folder"] == f"{folder}/moved/"
    wrong = run(capsys, "store", "-o", "map.html", "--data", "moved/cat", code=1).err
    assert (
        wrong == "randfeat map: moved/cat holds no image called cat/00.png, nor one of the others: give their folder\n"
    )


def test_the_projector(folder, capsys):
    run(capsys, "store", "-o", "out", "--format", "projector")
    vectors = np.loadtxt(folder / "out" / "vectors.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, store.FeatureStore.open("store").as_numpy(), rtol=1e-5)
    lines = (folder / "out" / "metadata.tsv").read_text().splitlines()
    assert lines[:2] == ["path\tclass", "cat/00.png\tcat"]
    assert len(lines) == COUNT + 1
    config = (folder / "out" / "projector_config.pbtxt").read_text()
    assert config.splitlines()[0] == "embeddings {"
    assert 'sprite { image_path: "sprite.png" single_image_dim: 64 single_image_dim: 64 }' in config
    with Image.open(folder / "out" / "sprite.png") as sprite:
        assert sprite.size == (6 * 64, 6 * 64)


def test_fiftyone(folder, capsys):
    run(capsys, "index", "-o", "out", "--format", "fiftyone")
    samples = json.loads((folder / "out" / "samples.json").read_text())["samples"]
    assert [one["filepath"] for one in samples] == [match.path for match in Index.open("index").rows(range(COUNT))]
    assert samples[1]["ground_truth"] == {"_cls": "Classification", "label": "dog"}
    binary = zlib.decompress(base64.b64decode(samples[4]["features"]["$binary"]["base64"]))
    assert (np.load(io.BytesIO(binary)) == Index.open("index").vectors([4])[0]).all()
    (folder / "photos").rename(folder / "moved")
    said = run(capsys, "store", "-o", "again", "--format", "fiftyone", code=1)
    assert "FiftyOne opens image files, and those of store are not known: give --data, a folder" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("photos -o a.html", "photos is no feature store and no index: make one with `randfeat extract` or"),
        ("store -o a.gif", "the form of a.gif is not known by its name: end it in .png or .html, or give --format"),
        ("store -o store/a.html", "store/a.html lies in store: choose another place"),
        ("store -o photos --format html", "photos is a folder: name a file in it"),
        ("store -o a.png --count 1601", "a map as png shows at most 1,600 images: choose a smaller --count"),
        ("store -o a.png --count 0", "count must be a whole number from 1, got 0"),
        ("store -o a.png --split test", "--split is for --data: leave it out"),
        ("index -o a.png --spec pooled", "index is an index, which holds one feature of each image: leave --spec out"),
        ("maps -o a.png", "maps holds maps, (2, 3, 3) an image: choose a spec with a pool"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, capsys, arguments, message):
    write_store(folder / "maps", ["a.png"], np.zeros((1, 2, 3, 3), np.float32))
    said = run(capsys, *arguments.split(), code=1).err
    assert message in said
    assert len(said.splitlines()) == 1


def test_rows_are_evenly_spread():
    assert rows.spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert rows.spread(101, 3).tolist() == [0, 50, 100]


def test_pictures_of_a_large_map_are_smaller():
    sides = [sheets.side_for(count) for count in (1, 600, 601, 2500, 10_000)]
    assert sides == [160, 160, 96, 96, 64]
    gone = sheets.make([lambda: Image.new("RGB", (400, 200)), lambda: Image.open("nowhere.png")], shown=False)
    assert gone.sizes == [(160, 80), (0, 0)]
    assert gone.gone == 1
    assert gone.sources[0].startswith("data:image/jpeg;base64,")
