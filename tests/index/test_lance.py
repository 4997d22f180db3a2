"""Tables of LanceDB: the rows of an index and of a feature store, and the same neighbours by the same command."""

from __future__ import annotations

import json

import damaged
import indexing
import numpy as np
import pytest
from folders import contents
from PIL import Image
from pipelines import make_sampler

from randfeat import FeatureStore, Index, cli
from randfeat.features import lance as tables
from randfeat.index.query import Filter

lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed: pip install 'randfeat[lancedb]'")
from randfeat.index import lance  # noqa: E402

BANK, QUERIES = indexing.clustered(400), indexing.clustered(20, seed=1)


def made(tmp_path, **how):
    names = [f"folder {i % 3}/it's {i}.png" for i in range(len(BANK))]
    labels = [("cat", "dog's", None)[i % 3] for i in range(len(BANK))]
    return Index.build(tmp_path / "index", BANK, names, labels, **how)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_neighbours_are_those_of_the_index(metric, tmp_path):
    index = made(tmp_path, metric=metric)
    index.remove([3, 7])
    table = lance.export(index, f"lancedb:{tmp_path / 'lance'}")
    assert len(table) == len(index) == len(BANK) - 2
    assert table.labels() == index.labels()
    for where in (None, Filter("dog's"), Filter(("cat", "dog's"), ("folder 1/*", "it's ?.png")), Filter((), "*5.png")):
        for found, expected in zip(table.search(QUERIES, 5, where), index.search(QUERIES, 5, where), strict=True):
            assert [(m.id, m.path, m.label) for m in found] == [(m.id, m.path, m.label) for m in expected]
            np.testing.assert_allclose([m.score for m in found], [m.score for m in expected], rtol=1e-4, atol=1e-4)


def recall(index, table):
    """Return how many of the scores that ours finds the table finds too."""
    pairs = zip(table.search(QUERIES, 5), index.search(QUERIES, 5), strict=True)
    return np.mean([m.score >= ours[-1].score - 1e-5 for found, ours in pairs for m in found])


def test_many_rows_get_an_index_of_lancedb_whose_neighbours_are_compared_by_their_vectors(tmp_path, monkeypatch):
    """Among the codes alone the nearest are lost: 30 candidates for each result bring them back."""
    monkeypatch.setattr(lance, "MANY", len(BANK))
    index = made(tmp_path)
    table = lance.export(index, f"lancedb:{tmp_path / 'lance'}")
    assert table.table.list_indices()
    assert recall(index, table) >= 0.99
    monkeypatch.setattr(lance, "CANDIDATES", 1)
    assert recall(index, table) < 0.9


def test_rows_are_columns_of_their_own(tmp_path):
    index = made(tmp_path)
    lance.export(index, f"lancedb:{tmp_path / 'lance'}")
    table = lancedb.connect(tmp_path / "lance").open_table("images")
    assert table.schema.names == ["id", "path", "label", "spec", "model", "vector"]
    rows = table.to_arrow().sort_by("id")
    assert rows["id"].to_pylist() == index.ids()
    np.testing.assert_allclose(np.stack(rows["vector"].to_pylist()), index.vectors(index.ids()), rtol=1e-6)
    assert table.count_rows("label = 'cat'") == index.labels()["cat"]


@pytest.fixture
def photos(tmp_path):
    for number in range(6):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(9, 12, seed=number)).save(path)
    make_sampler().save(tmp_path / "model")
    return tmp_path / "photos"


def test_commands_write_and_search(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    machine = ["--device", "cpu", "--workers", "0"]
    assert cli.main(["index", "build", "index", "photos", "--model", "model", *machine]) == 0
    assert cli.main(["index", "export", "index", "--to", "lancedb:made/lance"]) == 0
    assert "lancedb:made/lance: 6 rows of 16, cosine" in capsys.readouterr().out
    asked = ["photos/cat/2.png", "-k", "4", "--label", "CAT", "--format", "json", "--device", "cpu"]
    found = []
    for place in ("index", "lancedb:made/lance"):
        assert cli.main(["search", place, *asked]) == 0
        found.append(json.loads(capsys.readouterr().out)[0])
    assert [one["id"] for one in found[0]] == [one["id"] for one in found[1]]
    assert [one["score"] for one in found[0]] == pytest.approx([one["score"] for one in found[1]], abs=1e-5)
    assert cli.main(["search", "lancedb:made/lance", "photos", "--format", "html", "-o", "page.html"]) == 0
    assert cli.main(["search", "lancedb:nowhere", "photos"]) == 1
    assert "lancedb:nowhere holds no table images" in capsys.readouterr().err


def test_a_feature_store_becomes_a_table(photos, tmp_path):
    spec, out = "raster/full/query/L-1/mean/mean", tmp_path / "features"
    command = ["extract", str(tmp_path / "model"), str(photos), "-o", str(out), "--device", "cpu", "--workers", "0"]
    assert cli.main([*command, "--spec", spec, "raster/causal/token/L1/none/mean"]) == 0
    store, before = FeatureStore.open(out), contents(out)
    rows = store.to_lance(f"lancedb:{tmp_path / 'lance'}", spec).to_arrow().sort_by("id")
    np.testing.assert_array_equal(np.stack(rows["vector"].to_pylist()), store.as_numpy(spec))
    assert rows["path"].to_pylist() == store.paths
    assert rows["label"].to_pylist() == store.class_names
    assert {*rows["spec"].to_pylist()} == {store.specs[0]}
    assert {*rows["model"].to_pylist()} == {tables.fingerprint(store.encoder_record(spec)["encoder"])}
    assert contents(out) == before
    opened = lance.LanceIndex(f"lancedb:{tmp_path / 'lance'}")
    queries = opened.read([photos / "dog" / "3.png"], opened.encoder())
    assert opened.search(queries, 1)[0][0].path == "dog/3.png"
    with pytest.raises(ValueError, match="choose a spec with a pool"):
        store.to_lance(f"lancedb:{tmp_path / 'other'}", "raster/causal/token/L1/none/mean")


def test_what_cannot_be_is_one_sentence(tmp_path):
    index, place = made(tmp_path), f"lancedb:{tmp_path / 'lance'}"
    lance.export(index, place)
    with pytest.raises(FileExistsError, match="holds a table images already"):
        lance.export(index, place)
    with pytest.raises(ValueError, match="written lancedb:PATH"):
        lance.export(index, str(tmp_path / "lance"))
    with pytest.raises(ValueError, match="holds features of 16 numbers, the query has 3"):
        lance.LanceIndex(place).search(np.zeros((1, 3), np.float32))
    lancedb.connect(tmp_path / "foreign").create_table("images", [{"id": 1}])
    with pytest.raises(ValueError, match="was not written by randfeat"):
        lance.LanceIndex(f"lancedb:{tmp_path / 'foreign'}")
    whitened = Index.build(tmp_path / "white", BANK, [str(i) for i in range(len(BANK))], whiten=4)
    with pytest.raises(ValueError, match="is whitened"):
        lance.export(whitened, f"lancedb:{tmp_path / 'third'}")


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lancedb", None)
    with pytest.raises(RuntimeError, match=r"pip install 'randfeat\[lancedb\]'"):
        lance.export(made(tmp_path), f"lancedb:{tmp_path / 'lance'}")
