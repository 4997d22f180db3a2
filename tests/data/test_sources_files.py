"""Image folders, lists and tables of paths, labels from a file."""

import json
import os
import pickle
import time
from pathlib import Path

import damaged
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import Source, open_source, splits
from randfeat.data.sources.base import numbered
from randfeat.data.sources.folder import walk


def fill(root, *names, value=None):
    """Writes an image of one grey level for each name: that of its place, or `value`."""
    for place, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), place if value is None else value).save(path)
    return root


def levels(source):
    return [source.read(i).getpixel((0, 0)) for i in range(len(source))]


# folders -------------------------------------------------------------------------------------------------------------


def test_a_flat_folder_has_no_labels(tmp_path):
    fill(tmp_path, "b.png", "a.bmp", "c.PNG", ".hidden.png", ".folder/d.png")
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(tmp_path)
    assert isinstance(source, Source)
    assert source.paths == ["a.bmp", "b.png", "c.PNG"]
    assert levels(source) == [1, 0, 2]
    assert (source.labels, source.classes, source.name) == (None, None, str(tmp_path))


def test_class_folders_are_labels_as_in_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    fill(tmp_path, "dog/x.png", "cat/y.png", "cat/deep/er/z.png", "Cow/w.png", "10/a.png", "9/b.png")
    source, theirs = open_source(str(tmp_path)), ImageFolder(tmp_path)
    assert source.classes == theirs.classes == ["10", "9", "Cow", "cat", "dog"]
    assert list(zip(source.paths, source.labels, strict=True)) == [
        (Path(path).relative_to(tmp_path).as_posix(), label) for path, label in sorted(theirs.samples)
    ]


def test_images_beside_folders_have_no_labels(tmp_path):
    fill(tmp_path, "a.png", "c.png", "more/b.png")
    with pytest.warns(UserWarning, match=r"2 of 3 images of .* lie beside its folders, such as a\.png, so the folders"):
        source = open_source(tmp_path)
    assert source.paths == ["a.png", "c.png", "more/b.png"]
    assert source.labels is source.classes is None


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_splits_are_chosen_by_any_of_their_names(name, tmp_path):
    fill(tmp_path, "train/cat/a.png", "train/dog/b.png", f"{name}/dog/c.png")
    source = open_source(tmp_path, "val")
    assert source.paths == [f"{name}/dog/c.png"]
    assert (source.labels, source.classes) == ([1], ["cat", "dog"])  # the same index as in train
    assert open_source(tmp_path, "validation").paths == source.paths
    with pytest.raises(ValueError, match=rf"has the splits train, {name}: say which one \(split\)$"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match=rf"has the splits train, {name}, not 'test': choose another"):
        open_source(tmp_path, "test")


def test_one_split_need_not_be_chosen(tmp_path):
    source = open_source(fill(tmp_path, "train/cat/a.png", "train/dog/b.png"))
    assert (source.labels, source.classes) == ([0, 1], ["cat", "dog"])
    flat = open_source(fill(tmp_path / "flat", "test/a.png", "test/b.png"))
    assert (flat.paths, flat.labels) == (["test/a.png", "test/b.png"], None)


def test_a_split_may_have_a_name_of_its_own(tmp_path):
    fill(tmp_path, "query/a/x.png", "gallery/b/y.png")
    assert open_source(tmp_path, "gallery").paths == ["gallery/b/y.png"]
    assert open_source(tmp_path).classes == ["gallery", "query"]  # without asking these are classes


def test_a_class_may_be_called_train(tmp_path):
    assert open_source(fill(tmp_path, "train/a.png", "plane/b.png")).classes == ["plane", "train"]


def test_a_folder_without_splits_has_none_to_choose(tmp_path):
    with pytest.raises(ValueError, match=r"has no splits, so there is no 'val': leave the split out"):
        open_source(fill(tmp_path, "cat/a.png"), "val")


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path, "data/cat/a.png", "elsewhere/b.png")
    (tmp_path / "data/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/cat/back").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "data")
    (tmp_path / "data/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(tmp_path / "data")
    assert source.paths == ["cat/a.png", "cat/gone.png", "dog/b.png"]
    with pytest.raises(UnreadableImage, match="no such file"):
        source.read(1)


def test_damaged_files_are_rows_that_cannot_be_read(tmp_path):
    for number, how in enumerate(damaged.DAMAGES):
        damaged.write_damaged(tmp_path / f"{number:02}", how)
    damaged.write_good(tmp_path / "good", 0)
    source = open_source(tmp_path)
    assert len(source) == len(damaged.DAMAGES) + 1
    for number, how in enumerate(damaged.DAMAGES):
        with pytest.raises(UnreadableImage, match=damaged.REASONS[how]):
            source.read(number)
    assert source.read(len(damaged.DAMAGES)).mode == "RGB"


def test_names_that_are_no_utf_8_are_spelled_out(tmp_path):
    try:
        fill(tmp_path, os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = open_source(tmp_path)
    assert source.paths == ["caf\\xe9.png"]
    assert levels(source) == [0]
    assert source.fingerprint()


def test_a_large_folder_is_listed_quickly(tmp_path):
    for folder in range(20):
        (tmp_path / f"{folder}").mkdir()
        for number in range(1000):
            (tmp_path / f"{folder}" / f"{number}.jpg").touch()
    start = time.perf_counter()
    assert len(walk(tmp_path)) == 20_000
    assert time.perf_counter() - start < 5  # 0.05 s when nobody else works


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root, "holds no images: expected a folder of images, tar files or parquet files, a .tar"),
        (lambda root: fill(root, "a.png") / "missing/folder", "there is no .*missing/folder: expected a folder"),
        (lambda root: fill(root, "a.png") / "a.png", "a.png is no data set: expected a folder"),
        (lambda root: root / "*.jpg", r"there is no file .*\*.jpg, which .*\*.jpg names"),
        (lambda root: fill(root, "a.png") / "*.png", r"names files of the kinds .png: expected .tar or .parquet alone"),
    ],
)
def test_what_is_no_data_set_is_refused(make, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        open_source(make(tmp_path))
    assert "\n" not in str(error.value)


# lists and tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ("a b.png\nc.png\n", None, None),
        ("a b.png 1\nc.png 0\n", [1, 0], None),
        ("a b.png\tdog\n\nc.png\tcat\r\n", [1, 0], ["cat", "dog"]),
        ("a b.png dog\nc.png cat", [1, 0], ["cat", "dog"]),
        ("\ufeffa b.png\tbig dog\nc.png\tcat", [0, 1], ["big dog", "cat"]),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".lst"])
def test_lists_name_paths_and_labels(text, labels, classes, suffix, tmp_path):
    fill(tmp_path, "a b.png", "c.png")
    (tmp_path / f"list{suffix}").write_text(text, "utf-8")
    source = open_source(tmp_path / f"list{suffix}")
    assert (source.paths, source.labels, source.classes) == (["a b.png", "c.png"], labels, classes)
    assert levels(source) == [0, 1]


def test_a_space_in_a_file_name_is_no_label(tmp_path):
    (tmp_path / "list.txt").write_text("holiday.jpg copy.jpg\nx.png\n")
    assert open_source(tmp_path / "list.txt").paths == ["holiday.jpg copy.jpg", "x.png"]


def write_table(path, columns):
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        from pyarrow import csv

        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ","))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "names", [("path", "label"), ("File", "class"), ("filename", "target"), ("image_path", "label")]
)
def test_tables_name_paths_and_labels(suffix, names, tmp_path):
    fill(tmp_path, "x/a.png", "b.png")
    paths = ["b.png", str(tmp_path / "x/a.png")]
    for labels, expected in (([7, 3], ([7, 3], None)), (["dog", "cat"], ([1, 0], ["cat", "dog"]))):
        columns = {"more": [0.5, 0.25], names[1]: labels, names[0]: paths}
        source = open_source(write_table(tmp_path / f"rows{suffix}", columns))
        assert source.paths == paths
        assert (source.labels, source.classes) == expected
        assert levels(source) == [1, 0]
    assert open_source(write_table(tmp_path / f"rows{suffix}", {names[0]: paths})).labels is None


def test_a_column_says_the_split(tmp_path):
    columns = {"path": ["a.png", "b.png", "c.png"], "label": ["x", "y", "z"], "split": ["train", "validation", "train"]}
    table = write_table(tmp_path / "rows.csv", columns)
    source = open_source(table, "train")
    assert (source.paths, source.labels, source.classes) == (["a.png", "c.png"], [0, 2], ["x", "y", "z"])
    assert open_source(table, "val").paths == ["b.png"]
    with pytest.raises(ValueError, match="has the splits train, validation: say which"):
        open_source(table)
    with pytest.raises(ValueError, match="has the splits train, validation, not 'test'"):
        open_source(table, "test")


def test_an_image_folder_with_a_metadata_file_is_read_by_it(tmp_path):
    fill(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    write_table(tmp_path / "train/metadata.jsonl", {"file_name": ["b.png", "a.png"], "label": [1, 0]})
    source = open_source(tmp_path, "train")
    assert (source.paths, source.labels, levels(source)) == (["b.png", "a.png"], [1, 0], [1, 0])
    write_table(tmp_path / "metadata.csv", {"file_name": ["test/c.png", "train/a.png"], "split": ["test", "train"]})
    assert open_source(tmp_path, "test").paths == ["test/c.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            "picture,label\na.png,1\n",
            "has no column of paths: expected one called path, .* got picture, label",
        ),
        ("x.csv", "path;label\na.png;1\n", "has semicolons between its columns, expected commas: save it again"),
        ("x.csv", "path\tlabel\na.png\t1\n", "has tabs between its columns, expected commas"),
        ("x.tsv", "path,label\na.png,1\n", "has commas between its columns, expected tabs"),
        ("x.csv", "path,label\n", "holds no images"),
        ("x.csv", "", "is no csv table"),
        ("x.csv", "path\na,b\nc,d,e\n", "is no csv table"),
        ("x.csv", "path,label\na.png,1\n,2\n", "has no path in row 2: expected one in each row of the column path"),
        ("x.csv", "path,label\na.png,1\na.png,2\n", "has a.png more than once"),
        ("x.jsonl", "{", "is no jsonl table"),
        ("x.parquet", "PAR1", "x.parquet is no parquet file, or damaged"),
        ("x.txt", "", "holds no images"),
        ("x.txt", "a.png 1\nb.png\n", "has no label in line 2 but 1 others have"),
        ("x.lst", "0\t1.0\ta.png\n", "has 3 fields in line 1: expected a path, or a path and a label"),
        ("x.txt", b"\xff\xfe\x00", "is no list of paths: it is not UTF-8 text"),
    ],
)
def test_wrong_lists_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        open_source(tmp_path / name)
    assert "\n" not in str(error.value)


# labels --------------------------------------------------------------------------------------------------------------


def test_labels_come_from_a_file(tmp_path):
    images = fill(tmp_path / "images", "b/x.png", "a/y.png")
    (tmp_path / "lines.txt").write_text("dog\ncat\n")
    (tmp_path / "numbers.txt").write_text("4\n2\n")
    (tmp_path / "named.txt").write_text("x.png 5\na/y.png 6\nunused.png 7\n")
    table = write_table(tmp_path / "named.csv", {"file": ["x.png", "y.png"], "label": ["dog", "cat"]})
    for labels, expected in (
        (tmp_path / "lines.txt", ([1, 0], ["cat", "dog"])),  # a/y.png is the first row
        (str(tmp_path / "numbers.txt"), ([4, 2], None)),
        (tmp_path / "named.txt", ([6, 5], None)),
        (table, ([0, 1], ["cat", "dog"])),
    ):
        source = open_source(images, labels=labels)
        assert source.paths == ["a/y.png", "b/x.png"]
        assert (source.labels, source.classes) == expected


def test_a_column_of_labels_may_have_a_name_of_its_own(tmp_path):
    fill(tmp_path, "x.png", "y.png", "z.png")
    columns = {
        "file": ["x.png", "y.png", "z.png"],
        "Breed": ["pug", "beagle", "akita"],
        "split": ["train", "train", "test"],
    }
    table = write_table(tmp_path / "dogs.csv", columns)
    assert open_source(table, "train").labels is None
    source = open_source(table, "train", label_column="breed")
    assert (source.paths, source.labels, source.classes) == (["x.png", "y.png"], [2, 1], ["akita", "beagle", "pug"])
    beside = open_source(fill(tmp_path / "images", "z.png"), labels=table, label_column="Breed")
    assert (beside.labels, beside.classes) == ([0], ["akita", "beagle", "pug"])
    with pytest.raises(ValueError, match=r"dogs\.csv has no column colour: there is file, Breed, split"):
        open_source(table, "train", label_column="colour")
    with pytest.raises(ValueError, match="is no table, so it has no column of labels breed"):
        open_source(tmp_path / "images", label_column="breed")
    with pytest.raises(ValueError, match=r"has no column of labels: expected one called label, .* or --label-column"):
        open_source(tmp_path / "images", labels=table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\n3\n", "labels.txt has 3 labels, .* has 2 images: expected one a line"),
        ("x.png 1\n", "labels.txt has no label for y.png: expected one for each image"),
        (None, "there is no file of labels .*labels.txt"),
    ],
)
def test_wrong_labels_are_refused(content, message, tmp_path):
    fill(tmp_path / "images", "x.png", "y.png")
    if content is not None:
        (tmp_path / "labels.txt").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_source(tmp_path / "images", labels=tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        ([3, 0, None], [3, 0, None], None),
        (["3", "-1", " 0"], [3, None, 0], None),
        ([-1, -1], None, None),
        ([-1, None], None, None),
        ([2.0, float("nan")], [2, None], None),
        (["b", None, "a", "b"], [1, None, 0, 1], ["a", "b"]),
        (["1", "x"], [0, 1], ["1", "x"]),
        ([0.5, 1.0], [0, 1], ["0.5", "1.0"]),
        (["--1", "1"], [0, 1], ["--1", "1"]),
        ([float("inf"), 1.0], [1, 0], ["1.0", "inf"]),
        ([True, False], [1, 0], ["False", "True"]),
    ],
)
def test_labels_are_indices_or_texts(values, labels, classes):
    assert numbered(values) == (labels, classes)


def test_labels_below_none_are_refused():
    with pytest.raises(ValueError, match="a label is -2: class indices count from 0, and -1 means none"):
        numbered([0, -1, "-2"])


def test_a_folder_without_images_is_no_class(tmp_path):
    """So what is extracted into a folder within the data does not change it."""
    before = open_source(fill(tmp_path, "cat/1.png", "dog/2.png"))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "meta.json").write_text("{}")
    after = open_source(tmp_path)
    assert after.classes == before.classes == ["cat", "dog"]
    assert after.fingerprint() == before.fingerprint()


@given(st.text(max_size=8))
def test_a_split_is_the_same_as_itself(name):
    assert splits.canonical(splits.canonical(name)) == splits.canonical(name)
    assert splits.is_split(name) == (splits.canonical(name) in ("train", "val", "test"))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00294.parquet", "train"),
        ("data/validation-0.parquet", "val"),
        ("ILSVRC2012_img_val.tar", "val"),
        ("imagenet1k-test-07.tar", "test"),
        ("constraint.tar", None),
        ("latest-0.tar", None),
        ("evaluation.tar", None),
    ],
)
def test_file_names_say_the_split(name, split):
    assert splits.in_file_name(name) == split


# what all sources promise --------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_what_decides_the_rows(tmp_path):
    for place in ("one", "two/deeper"):
        fill(tmp_path / place, "cat/a.png", "dog/b.png")
    one, two = open_source(tmp_path / "one"), open_source(tmp_path / "two/deeper")
    assert one.fingerprint() == two.fingerprint() == open_source(tmp_path / "one").fingerprint()
    os.utime(tmp_path / "one/cat/a.png", (0, 0))
    assert one.fingerprint() == two.fingerprint()
    seen = {one.fingerprint()}
    for change in (
        lambda root: fill(root, "dog/c.png"),
        lambda root: (root / "cat/a.png").rename(root / "cat/z.png"),
        lambda root: (root / "cat").rename(root / "cow"),
        lambda root: (root / "dog/b.png").write_bytes(b"shorter"),
        lambda root: (root / "dog/b.png").unlink(),
    ):
        change(tmp_path / "one")
        seen.add(open_source(tmp_path / "one").fingerprint())
    assert len(seen) == 6


def test_a_missing_file_changes_the_fingerprint(tmp_path):
    fill(tmp_path, "a.png")
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    source = open_source(tmp_path / "list.txt")
    before = source.fingerprint()
    fill(tmp_path, "b.png")
    assert source.fingerprint() != before


def test_a_source_travels_to_other_processes(tmp_path):
    source = open_source(fill(tmp_path, "cat/a.png", "dog/b.png"))
    arrived = pickle.loads(pickle.dumps(source))
    assert (arrived.paths, arrived.labels, arrived.classes) == (source.paths, source.labels, source.classes)
    assert np.array_equal(arrived.read(1), source.read(1))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_of_ones_own_is_read_by_path(tmp_path, suffix):
    from randfeat.data.sources.table import read_column

    rows = [{"path": "a.png", "label": 0, "Writer": 7}, {"path": "b.png", "label": 1, "Writer": None}]
    path = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        path.write_text("path,label,Writer\na.png,0,7\nb.png,1,\n")
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert read_column(path, "writer") == {"a.png": 7, "b.png": None}
    with pytest.raises(ValueError, match="has no column nobody"):
        read_column(path, "nobody")
