"""Parquet files of images and data sets of Hugging Face's `datasets`."""

import io
import multiprocessing
import pickle

import damaged
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import open_source
from randfeat.data.sources.huggingface import HuggingFaceSource

NAMES = ["cat", "dog", "cow"]


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), level).save(buffer, "PNG")
    return buffer.getvalue()


def make(count=4, first=0, **more):
    """Images of levels first, first + 1, ..., labelled in turn."""
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    rows = {
        "image": [{"bytes": png(first + i), "path": f"{i}.png"} for i in range(count)],
        "label": [i % 3 for i in range(count)],
    }
    return datasets.Dataset.from_dict(rows, datasets.Features(features), **more)


def levels(source):
    return [source.read(i).getpixel((0, 0)) for i in range(len(source))]


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    """The same images in each form."""
    make().save_to_disk(tmp_path / "saved")
    make(split="train").save_to_disk(tmp_path / "saved_split")
    datasets.DatasetDict({"train": make(), "validation": make(2, 50)}).save_to_disk(tmp_path / "saved_dict")
    (tmp_path / "parquet/data").mkdir(parents=True)
    for number in range(2):
        make(2, 2 * number).to_parquet(tmp_path / f"parquet/data/train-0000{number}-of-00002.parquet")
    make(2, 50).to_parquet(tmp_path / "parquet/data/validation-00000-of-00001.parquet")
    (tmp_path / "parquet/README.md").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("form", "split", "paths"),
    [
        ("saved", None, ["0", "1", "2", "3"]),
        ("saved_split", None, ["train/0", "train/1", "train/2", "train/3"]),
        ("saved_split", "train", ["train/0", "train/1", "train/2", "train/3"]),
        ("saved_dict", "train", ["train/0", "train/1", "train/2", "train/3"]),
        ("parquet", "train", [f"data/train-0000{file}-of-00002.parquet/{row}" for file in (0, 1) for row in (0, 1)]),
        (
            "parquet/data/train-*.parquet",
            None,
            [f"train-0000{n}-of-00002.parquet/{row}" for n in (0, 1) for row in (0, 1)],
        ),
    ],
)
def test_every_form_reads_alike(form, split, paths, saved):
    source = open_source(saved / form, split)
    assert source.paths == paths
    assert source.classes == NAMES
    assert source.labels[:2] == [0, 1]
    assert len(source.labels) == 4
    assert levels(source) == [0, 1, 2, 3]
    arrived = pickle.loads(pickle.dumps(source))
    assert arrived.read(3).getpixel((0, 0)) == 3
    assert arrived.fingerprint() == source.fingerprint()
    assert len(list(source.sizes())) == 4


@pytest.mark.parametrize(
    ("form", "path"), [("saved_dict", "validation/0"), ("parquet", "data/validation-00000-of-00001")]
)
def test_splits_are_chosen(form, path, saved):
    source = open_source(saved / form, "val")
    assert source.paths[0].startswith(path)
    assert levels(source) == [50, 51]
    with pytest.raises(ValueError, match=r"has the splits train, val(idation)?: say which one.* \(--split NAME\)"):
        open_source(saved / form)
    with pytest.raises(ValueError, match=r"has the splits train, val(idation)?, not 'test'"):
        open_source(saved / form, "test")


def test_sizes_are_those_of_the_bytes_or_files(tmp_path):
    Image.new("L", (4, 4), 33).save(tmp_path / "x.png")
    cells = [{"bytes": png(9), "path": None}, {"bytes": None, "path": str(tmp_path / "x.png")}, None]
    features = datasets.Features({"image": datasets.Image()})
    table = pa.table({"image": pa.array(cells, datasets.Image().pa_type)}, schema=features.arrow_schema)
    source = HuggingFaceSource("x", datasets.Dataset(table), None)
    assert list(source.sizes()) == [len(png(9)), (tmp_path / "x.png").stat().st_size, -1]


def test_what_has_no_split_has_none_to_choose(saved):
    make().to_parquet(saved / "images.parquet")
    for form in ("saved", "images.parquet"):
        with pytest.raises(ValueError, match="has no splits, so there is no 'val'"):
            open_source(saved / form, "val")
    assert len(open_source(saved / "images.parquet")) == 4
    assert open_source(saved / "parquet/data/validation-00000-of-00001.parquet", "validation").classes == NAMES


def test_groups_of_rows_are_read_one_at_a_time(tmp_path, monkeypatch):
    table = make(10).data.table
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet")
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=4)
    source = open_source(tmp_path)
    assert levels(source) == [*range(10), *range(10)]
    assert source.paths[9:11] == ["a.parquet/9", "c.parquet/0"]
    read = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda file, i, **k: read.append(i) or real(file, i, **k))
    levels(source)
    assert read == [0, 1, 2, 3, 0, 1, 2]


def test_damaged_rows_are_rows_that_cannot_be_read(tmp_path):
    cells = [
        {"bytes": damaged.write_damaged(tmp_path / "scratch", how).read_bytes(), "path": "x.jpg"}
        for how in damaged.DAMAGES
    ]
    cells += [None, {"bytes": png(9)}]
    reasons = [*damaged.REASONS.values(), "an empty cell"]
    storage = pa.array(cells, datasets.Image().pa_type)
    features = datasets.Features({"image": datasets.Image()})
    table = pa.table({"image": storage}, schema=features.arrow_schema)
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    pq.write_table(table, tmp_path / "x.parquet")
    for form in ("saved", "x.parquet"):
        source = open_source(tmp_path / form)
        assert source.labels is None
        for row, reason in enumerate(reasons):
            with pytest.raises(UnreadableImage, match=reason):
                source.read(row)
        assert source.read(len(source) - 1).getpixel((0, 0)) == 9


def test_cells_may_be_paths(tmp_path):
    Image.new("L", (4, 4), 33).save(tmp_path / "x.png")
    nothing = {"bytes": None, "path": None}
    cells = [{"bytes": None, "path": "x.png"}, {"bytes": None, "path": "gone.png"}, nothing]
    pq.write_table(pa.table({"image": cells}), tmp_path / "rows.parquet")
    source = open_source(tmp_path / "rows.parquet")
    assert source.read(0).getpixel((0, 0)) == 33
    for row, reason in ((1, "no such file"), (2, "an empty cell")):
        with pytest.raises(UnreadableImage, match=reason):
            source.read(row)


def test_plain_columns_of_bytes_are_images(tmp_path):
    table = pa.table({"vector": [b"\0"], "jpg": [png(5)], "cls": [1], "label": ["dog"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = open_source(tmp_path / "rows.parquet")
    assert levels(source) == [5]
    assert (source.labels, source.classes) == ([0], ["dog"])


def test_labels_without_a_name_of_ours_are_found_by_their_classes(tmp_path):
    dataset = make().rename_column("label", "fine_label").add_column("weight", [0.5] * 4)
    dataset.to_parquet(tmp_path / "x.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    for form in ("x.parquet", "saved"):
        assert open_source(tmp_path / form).labels == [0, 1, 2, 0]
        assert open_source(tmp_path / form).classes == NAMES


def test_imagenet_as_the_hub_has_it(tmp_path):
    """imagenet-1k: shards by split, labels of the 1,000 classes in the official order, -1 in the test split."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    descriptions = [info.index_to_description(i) for i in range(1000)]
    names = [f"{name}, {i}" if name in descriptions[:i] else name for i, name in enumerate(descriptions)]  # two cranes
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    for split, labels in (("train", [999, 0, 5]), ("validation", [7]), ("test", [-1, -1])):
        rows = {"image": [{"bytes": png(1), "path": None}] * len(labels), "label": labels}
        path = tmp_path / f"data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features).to_parquet(path)
    train = open_source(tmp_path, "train")
    assert train.labels == [999, 0, 5]
    assert train.classes == names
    assert train.classes[0] == "tench, Tinca tinca"
    assert open_source(tmp_path, "val").labels == [7]
    assert open_source(tmp_path, "test").labels is None


def test_the_fingerprint_follows_images_and_labels(tmp_path):
    def fingerprint(dataset):
        dataset.save_to_disk(tmp_path / "saved")
        dataset.to_parquet(tmp_path / "x.parquet")
        return [open_source(tmp_path / form).fingerprint() for form in ("saved", "x.parquet")]

    assert fingerprint(make()) == fingerprint(make())
    larger = {"bytes": damaged.encoded("PNG"), "path": None}
    features = make().features
    others = [
        make(5),
        make().cast_column("label", datasets.ClassLabel(names=["cat", "dog", "goat"])),
        make().cast_column("label", datasets.Value("int64")),
        datasets.Dataset.from_dict({"image": [larger] * 4, "label": [0, 1, 2, 0]}, features),
        datasets.Dataset.from_dict({"image": [{"bytes": png(i)} for i in range(4)], "label": [2, 1, 0, 0]}, features),
    ]
    seen = [fingerprint(dataset) for dataset in (make(), *others)]
    for form in zip(*seen, strict=True):
        assert len(set(form)) == len(seen)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, r"has no column of images: it has text"),
        ({"image": ["a"]}, r"has no column of images: it has image"),
    ],
)
def test_data_sets_without_images_are_refused(columns, message, tmp_path):
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "saved")


def test_what_is_damaged_is_refused(saved):
    (saved / "saved/state.json").write_text("{")
    with pytest.raises(ValueError, match=r"saved is no data set that save_to_disk wrote whole"):
        open_source(saved / "saved")
    path = saved / "parquet/data/train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train-00000-of-00002.parquet is no parquet file, or damaged: get it again"):
        open_source(saved / "parquet", "train")


def test_a_damaged_group_of_rows_is_rows_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(make(4).data.table, path, row_group_size=2, compression="gzip")
    content = bytearray(path.read_bytes())
    first = pq.read_metadata(path).row_group(0).column(0)
    start = first.dictionary_page_offset or first.data_page_offset
    content[start : start + first.total_compressed_size] = bytes(first.total_compressed_size)
    path.write_bytes(content)
    source = open_source(path)
    assert source.fingerprint()
    for row in (0, 1):
        with pytest.raises(UnreadableImage, match="a damaged parquet file"):
            source.read(row)
    assert source.read(3).getpixel((0, 0)) == 3


def test_files_of_different_columns_are_refused(tmp_path):
    make().to_parquet(tmp_path / "a.parquet")
    make().rename_column("image", "img").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b.parquet has no column image of images, as .*a.parquet has"):
        open_source(tmp_path)


# the hub -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A hub with one data set; what is asked of it."""
    asked = []
    splits = {"train": make(), "test": make(2, 50)}

    def names(name):
        asked.append(name)
        if name not in ("me/animals", "animals"):
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub.")
        return list(splits)

    monkeypatch.setattr("randfeat.utils.network.reachable", lambda address: True)
    monkeypatch.setattr(datasets, "get_dataset_split_names", names)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: asked.append((name, split)) or splits[split])
    return asked


@pytest.mark.parametrize("name", ["me/animals", "animals"])
def test_a_name_is_one_of_the_hub(name, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_source(name, "test")
    assert (source.name, source.paths, source.labels) == (name, ["test/0", "test/1"], [0, 1])
    assert levels(source) == [50, 51]
    assert hub == [name, (name, "test")]
    with pytest.raises(ValueError, match=f"^{name} has the splits test, train: say which one"):
        open_source(name)
    with pytest.raises(ValueError, match=f"^{name} has the splits test, train, not 'val'"):
        open_source(name, "val")


def test_what_is_there_is_not_looked_up(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "animals").mkdir()
    with pytest.raises(ValueError, match="animals holds no images"):
        open_source("animals")
    with pytest.raises(FileNotFoundError, match=r"there is no \./me/animals: expected a folder"):
        open_source("./me/animals")
    assert hub == []


def test_failures_of_the_hub_are_one_sentence(hub, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match="there is neither a file or folder me/plants here nor a data set of this"
    ):
        open_source("me/plants")

    def fail(name, split):
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        ConnectionError, match=r"me/animals of the hub could not be loaded \(OSError: no route to host\)"
    ):
        open_source("me/animals", "train")


def test_every_kind_of_source_reads_in_a_spawned_process(saved):
    sources = [open_source(saved / "saved"), open_source(saved / "parquet", "train")]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for source in sources:
            assert np.array_equal(pool.apply(source.read, (2,)), source.read(2))
            with pytest.raises(UnreadableImage, match="truncated"):
                pool.apply(_unreadable)


def _unreadable():
    raise UnreadableImage("truncated")
