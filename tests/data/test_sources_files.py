"""Image folders, and labels from a file."""

import os
import pickle
import time
from pathlib import Path

import damaged
import numpy as np
import pytest
from folders import fill, levels, write_table
from hypothesis import given
from hypothesis import strategies as st

from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import Source, open_source, splits
from randfeat.data.sources.base import numbered
from randfeat.data.sources.folder import find_images, walk

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
    with pytest.raises(ValueError, match=rf"has the splits train, {name}: say which one.* \(--split NAME\)$"):
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
    with pytest.raises(ValueError, match=r"has no splits, so there is no 'val': leave --split out"):
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


def test_pictures_of_folders_are_those_of_a_data_set(tmp_path):
    """Hidden files, such as the `._a.jpg` that macOS leaves, and folders called like pictures are none."""
    fill(tmp_path, "b.png", "in.jpg/c.png", "._b.png", ".thumbnails/b.png")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert find_images([tmp_path]) == [tmp_path / "b.png", tmp_path / "in.jpg" / "c.png"]
    assert find_images([tmp_path / "._b.png"]) == [tmp_path / "._b.png"]  # named
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", np.zeros((2, 2)))
    assert find_images([tmp_path / "arrays"]) == [tmp_path / "arrays" / "a.npy"]


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
        ([0.5, 1.0], [0, 1], ["0.5", "1"]),
        (["--1", "1"], [0, 1], ["--1", "1"]),
        ([float("inf"), 1.0], [1, 0], ["1", "inf"]),
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
