"""A feature store gives back what was written, in the forms that others take, and refuses what is not whole."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from folders import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from randfeat.data.errors import UnreadableImage
from randfeat.features import store
from randfeat.features.store import FeatureStore
from randfeat.utils import arrays as npy
from randfeat.utils import atomic

SPECS = ["raster/causal/token/L2/mean/mean", "raster/causal/token/L1/none/mean"]


def record(specs=SPECS, classes=("cat", "dog"), name="photos", root="", **encoder):
    kept = {} if root == "" else {"root": root}
    return {
        "model": "tiny",
        "specs": list(specs),
        "encoder": {"weights": "abc", "generator": {"depth": 4}} | encoder,
        "source": {"name": name, "images": 5, "classes": classes and list(classes), "fingerprint": name} | kept,
    }


def arrays(rows, specs, seed=0):
    shapes = [(3,), (2, 1, 2)][: len(specs)]
    return [np.random.default_rng(seed + len(s)).normal(size=(rows, *s)).astype(np.float32) for s in shapes]


def make(directory, rows=4, specs=SPECS, labels=None, skipped=(("z.png", "truncated"),), prefix="", **more):
    directory.mkdir(parents=True)
    paths = [f"{prefix}{row}.png" for row in range(rows)]
    table = pa.table(
        [paths, [row % 2 for row in range(rows)] if labels is None else labels], store.FeatureStore.ROW_SCHEMA
    )
    features = arrays(rows, specs)
    shapes = [array.shape[1:] for array in features]
    store.write(directory, record(specs, **more), table, shapes, [npy.blocks(array) for array in features], skipped)
    return FeatureStore.open(directory)


def test_what_was_written_comes_back(tmp_path):
    made = make(tmp_path / "out")
    mean, dense = arrays(4, SPECS)
    assert (made.as_numpy(SPECS[0]) == mean).all()
    assert (made.as_numpy(SPECS[1]) == dense).all()
    assert isinstance(made.as_numpy(SPECS[0]), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        made.as_numpy(SPECS[0])[0] = 1
    assert len(made) == 4
    assert made.paths == ["0.png", "1.png", "2.png", "3.png"]
    assert made.labels.tolist() == [0, 1, 0, 1]
    assert made.classes == ["cat", "dog"]
    assert made.skipped == [("z.png", "truncated")]
    assert "4 images" in repr(made)
    made.verify()
    again = pickle.loads(pickle.dumps(made))
    assert (again.as_numpy(SPECS[0]) == mean).all()


def test_one_spec_needs_no_name(tmp_path):
    made = make(tmp_path / "out", specs=SPECS[:1], labels=[1, None, 0, None])
    (mean,) = arrays(4, SPECS[:1])
    assert (made.as_numpy() == mean).all()
    assert made.labels.tolist() == [1, -1, 0, -1]
    rows = list(made)
    assert [row[:2] for row in rows] == [("0.png", 1), ("1.png", None), ("2.png", 0), ("3.png", None)]
    assert (np.stack([feature for _, _, feature in rows]) == mean).all()


def test_a_spec_is_found_in_any_spelling(tmp_path):
    made = make(tmp_path / "out")
    for spelling in (SPECS[0], "raster/causal/token/L0.5/mean/mean", "raster/causal/token/L-3/mean/mean"):
        assert (made.as_numpy(spelling) == arrays(4, SPECS)[0]).all()
    for wrong in ("raster/causal/token/L3/mean/mean", "pooled", "raster/causal/token/L9/mean/mean"):
        with pytest.raises(ValueError, match=rf"out holds no feature {wrong}: there is raster/causal/token/L2"):
            made.as_numpy(wrong)
    with pytest.raises(ValueError, match="out holds 2 features, say which: raster/causal/token/L2/mean/mean, raster"):
        made.as_numpy()
    with pytest.raises(ValueError, match="say which"):
        next(iter(made))


def test_as_a_dataset(tmp_path):
    made = make(tmp_path / "out")
    for spec, expected in zip(SPECS, arrays(4, SPECS), strict=True):
        dataset = made.as_dataset(spec)
        assert dataset.column_names == ["path", "label", "feature"]
        assert dataset["path"][:] == made.paths
        assert dataset.features["label"].names == ["cat", "dog"]
        assert dataset.features["label"].int2str(dataset[1]["label"]) == "dog"
        assert (dataset.with_format("numpy")["feature"][:] == expected).all()
        assert np.array(dataset[2]["feature"], dtype=np.float32).shape == expected.shape[1:]
        column = dataset.data.column("feature").chunk(0)
        while pa.types.is_fixed_size_list(column.type):
            column = column.values
        mapped = made.as_numpy(spec).reshape(-1)
        assert column.buffers()[1].size == mapped.nbytes  # and no copy of it:
        assert not column.buffers()[1].is_mutable
    assert made.as_dataset(SPECS[0])._fingerprint == made.as_dataset(SPECS[0])._fingerprint
    assert made.as_dataset(SPECS[0])._fingerprint != made.as_dataset(SPECS[1])._fingerprint
    plain = make(tmp_path / "plain", classes=None, labels=[None] * 4).as_dataset(SPECS[0])
    assert plain["label"][:] == [None] * 4
    assert len(plain.map(lambda row: {"norm": sum(row["feature"])}, load_from_cache_file=False)) == 4


def test_as_a_data_frame(tmp_path):
    frame = make(tmp_path / "out", labels=[1, None, 0, 1]).as_dataframe(SPECS[0])
    assert list(frame.columns) == ["path", "label", "class_name", "feature"]
    assert frame["class_name"].tolist() == ["dog", None, "cat", "dog"]
    assert frame["label"].isna().tolist() == [False, True, False, False]
    assert frame["label"].sum() == 2
    assert (np.stack(frame["feature"]) == arrays(4, SPECS)[0]).all()
    assert isinstance(frame["feature"][0].base, np.memmap)
    plain = make(tmp_path / "plain", classes=None)
    assert list(plain.as_dataframe(SPECS[0]).columns) == ["path", "label", "feature"]
    assert plain.class_names == ["0", "1", "0", "1"]


def test_where_its_pictures_lie(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for row in range(4):
        Image.new("L", (3 + row, 2), 40 * row).save(tmp_path / "photos" / f"{row}.png")
    made = make(tmp_path / "out", root=str(tmp_path / "photos"))
    assert made.absolute_paths() == [str(tmp_path / "photos" / f"{row}.png") for row in range(4)]
    assert [(picture.size, picture.getpixel((0, 0))) for picture in made.images()] == [
        ((3 + row, 2), 40 * row) for row in range(4)
    ]
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(UnreadableImage):
        next(made.images())
    assert len(list(made.images(tmp_path / "moved"))) == 4
    monkeypatch.chdir(tmp_path)
    before = make(tmp_path / "before", name="moved")  # without a folder, as stores were written before
    assert before.absolute_paths()[3] == str(tmp_path / "moved" / "3.png")
    archived = make(tmp_path / "archived", name="shards.tar", root=None)
    with pytest.raises(ValueError, match=r"archived is of shards.tar, no folder or list of image files that is known"):
        archived.absolute_paths()


def test_pictures_of_stores_that_were_merged(tmp_path):
    a, b = (make(tmp_path / name, 2, prefix=name, root=f"/{name}") for name in ("a", "b"))
    merged = FeatureStore.merge([a, b], tmp_path / "all")
    assert merged.absolute_paths() == ["/a/a0.png", "/a/a1.png", "/b/b0.png", "/b/b1.png"]
    c = make(tmp_path / "c", 1, prefix="c", root="/a")
    assert FeatureStore.merge([a, c], tmp_path / "alike").meta["source"]["root"] == "/a"
    more = FeatureStore.merge([merged, c], tmp_path / "more")
    assert more.absolute_paths() == [*merged.absolute_paths(), "/a/c0.png"]


# what is not whole ------------------------------------------------------------------------------------------


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no feature store: it has no meta.json"):
        FeatureStore.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileNotFoundError, match="is no feature store"):
        FeatureStore.open(tmp_path / "file")
    for content in ("{}", "[]", "no json", '{"format": "other"}'):
        (tmp_path / "meta.json").write_text(content)
        with pytest.raises(ValueError, match=r"meta.json was expected to hold 'features of randfeat, version 1', but"):
            FeatureStore.open(tmp_path)


@pytest.mark.parametrize("name", ["features-0.npy", "features-1.npy", "rows.parquet"])
@pytest.mark.parametrize("how", ["missing", "short", "other"])
def test_a_damaged_store_is_refused_when_it_is_opened(tmp_path, name, how):
    path = make(tmp_path / "out").directory / name
    content = path.read_bytes()
    path.unlink()
    if how == "short":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif how == "other":
        path.write_bytes((make(tmp_path / "other", rows=3).directory / name).read_bytes())
    with pytest.raises(ValueError, match=rf"out/{name} .* damaged") as error:
        FeatureStore.open(tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["features-0.npy", "features-1.npy", "rows.parquet", "skipped.csv"])
def test_verify_finds_a_changed_byte(tmp_path, name):
    made = make(tmp_path / "out")
    content = bytearray((made.directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (made.directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is missing or not what was written: copy the directory again"):
        FeatureStore(made.directory, made.meta).verify()


def test_verify_finds_what_cannot_be(tmp_path):
    def verify_after(message, **changes):
        made = make(tmp_path / str(len(list(tmp_path.iterdir()))), **changes)
        with pytest.raises(ValueError, match=message):
            made.verify()

    verify_after("has label 2, and 2 classes", labels=[0, 1, 2, None])
    made = make(tmp_path / "nan")
    broken = made.as_numpy(SPECS[0]).copy()
    broken[2, 1] = np.inf
    digest = npy.write(made.directory / "features-0.npy", broken.shape, np.float32, [broken])
    made.meta["files"]["features-0.npy"]["sha256"] = digest
    with pytest.raises(ValueError, match=r"the feature raster/causal/token/L2/mean/mean of 2.png is not finite"):
        made.verify()
    table = made.table.set_column(0, "path", pa.array(["a", "b", "a", "c"]))
    digests = store.write_rows(made.directory, table, [])
    made.meta["files"]["rows.parquet"]["sha256"] = digests["rows.parquet"]
    made.meta["files"]["skipped.csv"]["sha256"] = digests["skipped.csv"]
    del made.__dict__["table"]
    with pytest.raises(ValueError, match="names a twice"):
        made.verify()


# several in one ---------------------------------------------------------------------------------------------


def test_stores_are_merged(tmp_path):
    parts = [make(tmp_path / name, rows, prefix=name, name=name) for name, rows in (("a", 3), ("b", 1), ("c", 4))]
    merged = FeatureStore.merge([parts[0], str(parts[1].directory), parts[2]], tmp_path / "deep" / "all")
    merged.verify()
    assert merged.paths == [path for part in parts for path in part.paths]
    assert merged.labels.tolist() == [label for part in parts for label in part.labels]
    for spec in SPECS:
        assert (merged.as_numpy(spec) == np.concatenate([part.as_numpy(spec) for part in parts])).all()
    assert merged.skipped == [("z.png", "truncated")] * 3
    assert merged.meta["source"]["name"] == "a + b + c"
    assert merged.meta["source"]["images"] == 15
    again = FeatureStore.merge(parts, tmp_path / "again")
    assert contents(again.directory) == contents(merged.directory)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(weights="def"), "a holds features with encoder.weights abc, not def, as .*b does"),
        (dict(classes=["dog", "cat"]), r"source.classes \['cat', 'dog'\], not \['dog', 'cat'\]"),
        (dict(specs=SPECS[:1]), r"specs .*, not \['raster/causal/token/L2/mean/mean'\]"),
        (dict(prefix="a"), "the image a0.png is in two of the stores: leave one of them out"),
    ],
)
def test_what_does_not_match_is_not_merged(tmp_path, other, message):
    first, second = make(tmp_path / "a", prefix="a"), make(tmp_path / "b", **{"prefix": "b"} | other)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        FeatureStore.merge([first, second], tmp_path / "all")
    assert contents(tmp_path) == before


def test_merging_replaces_nothing(tmp_path):
    first = make(tmp_path / "a")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="is not replaced: choose another name"):
        FeatureStore.merge([first], first.directory)
    with pytest.raises(ValueError, match="nothing to merge"):
        FeatureStore.merge([], tmp_path / "all")
    assert contents(tmp_path) == before


# any ---------------------------------------------------------------------------------------------------------

LABELS = st.one_of(st.none(), st.integers(0, 2**40))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(
    rows=st.dictionaries(NAMES, LABELS, min_size=1, max_size=9),
    skipped=st.lists(st.tuples(NAMES, NAMES), max_size=4),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    cuts=st.integers(1, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_rows_come_back(tmp_path_factory, rows, skipped, shape, cuts):
    directory = tmp_path_factory.mktemp("any")
    features = np.random.default_rng(0).normal(size=(len(rows), *shape)).astype(np.float32)
    table = pa.table([list(rows), list(rows.values())], store.FeatureStore.ROW_SCHEMA)
    one = record(SPECS[:1], classes=None)
    store.write(directory, one, table, [tuple(shape)], [np.array_split(features, cuts)], skipped)
    made = FeatureStore.open(directory)
    made.verify()
    assert [(path, label) for path, label, _ in made] == list(rows.items())
    assert (made.as_numpy() == features).all()
    assert made.skipped == skipped
    dataset = made.as_dataset()
    assert dataset["label"][:] == list(rows.values())
    assert (np.array(dataset["feature"][:], dtype=np.float32) == features).all()


def test_an_array_is_written_as_numpy_writes_it(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    np.save(tmp_path / "theirs.npy", array)
    digest = npy.write(tmp_path / "ours.npy", array.shape, "<f4", [array[:1], array[1:1], array[1:]])
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    assert atomic.sha256(tmp_path / "ours.npy") == digest
    for wrong in ([array[:3]], [array, array], [array[:, :2]]):
        with pytest.raises(ValueError, match="for an array of"):
            npy.write(tmp_path / "wrong.npy", array.shape, "<f4", wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.npy", "theirs.npy"]


def test_meta_says_what_decided(tmp_path):
    meta = json.loads((make(tmp_path / "out").directory / "meta.json").read_text())
    assert list(meta) == ["format", "model", "specs", "encoder", "source", "count", "skipped", "files"]
    assert meta["files"]["features-1.npy"]["shape"] == [4, 2, 1, 2]
