"""IDX files: a folder of them, or one file."""

import gzip
import hashlib
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from randfeat.data.builtin.fashion import PACKAGE
from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import idx, open_source

HEAD = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1])  # of two images of one pixel


def images_of(count=4, h=3, w=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, h, w), dtype=np.uint8)


def write_set(folder, before="", after="", train=4, test=3):
    """Write train and test of a set, files named as MNIST's; return the images of both."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for part, count in (("train", train), ("t10k" if not before else "test", test)):
        made.append(images_of(count, seed=count))
        idx.write_idx(folder / f"{before}{part}-images-idx3-ubyte{after}", made[-1])
        idx.write_idx(folder / f"{before}{part}-labels-idx1-ubyte{after}", np.arange(count, dtype=np.uint8))
    return made


# what is read --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["", ".gz"])
@pytest.mark.parametrize("below", idx.BELOW)
def test_a_folder_has_two_splits(tmp_path, below, after):
    train, test = write_set(tmp_path / below, after=after)
    source = open_source(tmp_path, "test")
    assert source.paths == ["test/00000", "test/00001", "test/00002"]
    assert (source.labels, source.classes, source.name) == ([0, 1, 2], ["0", "1", "2", "3"], str(tmp_path))
    for row, image in enumerate(test):
        assert source.read(row).mode == "L"
        assert np.array_equal(source.read(row), image)
        assert np.array_equal(source.values(row), image[..., None])
    assert np.array_equal(np.stack([open_source(tmp_path, "training").read(row) for row in range(4)]), train)
    with pytest.raises(ValueError, match=r"has the splits test, train: say which one.* \(--split NAME\)$"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="has the splits test, train, not 'val': choose another"):
        open_source(tmp_path, "val")


def test_one_file_of_images_finds_its_labels(tmp_path):
    _, test = write_set(tmp_path)
    source = open_source(tmp_path / "t10k-images-idx3-ubyte", "test")
    assert (len(source), source.labels, source.paths[0]) == (3, [0, 1, 2], "test/00000")
    assert source.classes == open_source(tmp_path, "train").classes
    with pytest.raises(ValueError, match="has the splits test, not 'train'"):
        open_source(tmp_path / "t10k-images-idx3-ubyte", "train")
    with pytest.raises(ValueError, match="is a file of labels: give the file of images beside it"):
        open_source(tmp_path / "t10k-labels-idx1-ubyte")
    (tmp_path / "alone").mkdir()
    idx.write_idx(tmp_path / "alone" / "faces.images.idx3-ubyte", test)
    for alone in (tmp_path / "alone", tmp_path / "alone" / "faces.images.idx3-ubyte"):
        source = open_source(alone)
        assert (source.paths[2], source.labels, source.classes) == ("faces/00002", None, None)


def test_names_may_have_dots_and_capitals(tmp_path):
    idx.write_idx(tmp_path / "Train-Images.idx3-ubyte", images_of())
    idx.write_idx(tmp_path / "Train-Labels.idx1-ubyte.gz", np.array([1, 0, 1, 2], np.uint8))
    assert open_source(tmp_path).labels == [1, 0, 1, 2]


def test_a_plain_file_is_mapped_and_preferred(tmp_path):
    write_set(tmp_path, after=".gz")
    packed = open_source(tmp_path, "train")
    plain = write_set(tmp_path)[0]
    mapped = open_source(tmp_path, "train")
    assert isinstance(mapped.images, np.memmap)
    assert np.array_equal(mapped.images, plain)
    assert mapped.fingerprint() == packed.fingerprint()


def test_the_fingerprint_tells_sets_of_one_shape_apart(tmp_path):
    write_set(tmp_path / "a")
    write_set(tmp_path / "b")
    assert open_source(tmp_path / "a", "train").fingerprint() == open_source(tmp_path / "b", "train").fingerprint()
    idx.write_idx(tmp_path / "b" / "train-images-idx3-ubyte", images_of(4, seed=9))
    assert open_source(tmp_path / "a", "train").fingerprint() != open_source(tmp_path / "b", "train").fingerprint()


@pytest.mark.parametrize("after", ["", ".gz"])
def test_workers_get_no_pixels_and_decompress_once(tmp_path, after, monkeypatch):
    idx.write_idx(tmp_path / f"train-images-idx3-ubyte{after}", images_of(500, 28, 28))
    source = open_source(tmp_path)
    sent = pickle.dumps(source)
    assert len(sent) < 500 * 30
    reads = []
    read = idx._read
    monkeypatch.setattr(idx, "_read", lambda path: (reads.append(path), read(path))[1])
    there = pickle.loads(sent)
    assert all(np.array_equal(there.read(row), source.read(row)) for row in range(500))
    assert open_source(tmp_path).images is there.images is source.images
    assert not reads  # this process has the file in use
    del source, there
    alone = pickle.loads(sent)
    assert np.array_equal(alone.read(7), alone.read(7))
    assert len(reads) == 1


def test_a_file_that_is_gone_in_a_worker_makes_rows_unreadable(tmp_path):
    idx.write_idx(tmp_path / "train-images-idx3-ubyte", images_of())
    sent = pickle.dumps(open_source(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        pickle.loads(sent).read(0)
    idx.write_idx(tmp_path / "train-images-idx3-ubyte", images_of(2))
    with pytest.raises(UnreadableImage, match="has 2 images now"):
        pickle.loads(sent).read(3)


# sets ----------------------------------------------------------------------------------------------------------------


def test_emnist_is_turned_upright_and_named_by_its_mapping(tmp_path):
    stored = write_set(tmp_path, "emnist-balanced-", ".gz")[0]
    write_set(tmp_path, "emnist-letters-", ".gz", train=5)
    (tmp_path / "emnist-balanced-mapping.txt").write_text("0 48\n1 49\n2 65 97\n3 98\n")
    source = open_source(tmp_path, "emnist-balanced-train")
    assert source.classes == ["0", "1", "Aa", "b"]
    assert source.paths[1] == "emnist-balanced-train/00001"
    assert source.read(0).size == (3, 2)  # width and height of 3 x 2 transposed
    assert np.array_equal(source.values(1)[..., 0], stored[1].T)
    with pytest.raises(
        ValueError, match="has the splits emnist-balanced-test, emnist-balanced-train, emnist-letters-t"
    ):
        open_source(tmp_path, "train")
    alone = open_source(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz")
    assert (alone.labels, alone.classes) == ([0, 1, 2, 3, 4], ["0", "1", "2", "3", "4"])
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65\n")
    with pytest.raises(ValueError, match=r"mapping\.txt has no label 0, which images have"):
        open_source(tmp_path, "emnist-letters-train")


def test_labels_of_emnist_letters_count_from_one(tmp_path):
    idx.write_idx(tmp_path / "emnist-letters-train-images-idx3-ubyte", images_of(3))
    idx.write_idx(tmp_path / "emnist-letters-train-labels-idx1-ubyte", np.array([2, 1, 3], np.uint8))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    source = open_source(tmp_path)
    assert (source.labels, source.classes) == ([1, 0, 2], ["Aa", "Bb", "Cc"])


def test_the_first_column_of_qmnist_is_the_class(tmp_path):
    idx.write_idx(tmp_path / "qmnist-train-images-idx3-ubyte.gz", images_of())
    table = np.arange(32, dtype=np.int32).reshape(4, 8) % 10
    idx.write_idx(tmp_path / "qmnist-train-labels-idx2-int.gz", table)
    source = open_source(tmp_path)
    assert [source.classes[label] for label in source.labels] == ["0", "8", "6", "4"]


def test_fashion_is_known_by_its_labels_and_not_by_a_name(tmp_path, monkeypatch):
    write_set(tmp_path / "fashion-mnist")
    source = open_source(tmp_path / "fashion-mnist", "train")
    assert source.classes == ["0", "1", "2", "3"]
    content = (tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte").read_bytes()
    monkeypatch.setattr(idx, "FASHION_LABELS", {"train": hashlib.sha256(content).hexdigest()})
    for split in ("train", "test"):
        assert open_source(tmp_path / "fashion-mnist", split).classes == list(idx.FASHION)


def test_classes_may_be_named_in_a_file(tmp_path):
    write_set(tmp_path)
    (tmp_path / "classes.txt").write_text("o\nki\nsu\ntsu\nna\n", encoding="utf-8")
    assert open_source(tmp_path, "test").classes == ["o", "ki", "su", "tsu", "na"]
    (tmp_path / "classes.txt").write_text("o\nki\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"classes\.txt names 2 classes, but there is the label 3: add names"):
        open_source(tmp_path, "test")


@pytest.mark.skipif(not Path(PACKAGE).is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_package_of_fashion_mnist():
    train, test = (open_source(PACKAGE, split) for split in ("train", "test"))
    assert (len(train), len(test), train.read(0).size) == (60_000, 10_000, (28, 28))
    assert train.classes == test.classes == list(idx.FASHION)
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert (train.classes[train.labels[0]], test.classes[test.labels[0]]) == ("Ankle boot", "Ankle boot")


# what is wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is no IDX file: it begins with nothing, expected 00 00 08 03"),
        (b"\x89PNG\r\n", r"is no IDX file: it begins with 89 50 4e 47"),
        (HEAD[:2] + b"\x07" + HEAD[3:] + b"ab", "is no IDX file: it begins with 00 00 07 03"),
        (HEAD[:10], r"is truncated: it has 10 bytes"),
        (HEAD + b"a", r"is truncated: it has 17 bytes, expected 18 of \(2, 1, 1\): get it again"),
        (HEAD + b"abc", "is damaged: it has 19 bytes, expected 18"),
        (HEAD[:4] + b"\xff" * 12, "is truncated: it has 16 bytes"),
        (gzip.compress(HEAD + b"ab", mtime=0)[:-3], "is truncated or damaged"),
        (gzip.compress(HEAD + b"ab", mtime=0)[:12] + b"\0" * 12, "is truncated or damaged"),
        (gzip.compress(HEAD + b"a", mtime=0), "is truncated: it has 17 bytes"),
        (HEAD[:4] + bytes(12), r"holds uint8 of shape \(0, 0, 0\): expected images, unsigned bytes"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 9]), r"holds uint8 of shape \(1,\): expected images, unsigned bytes"),
        (HEAD[:2] + b"\x0d" + HEAD[3:] + bytes(8), r"holds float32 of shape \(2, 1, 1\): expected images"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, content, message):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte {message}"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, np.uint8), "labels-idx1-ubyte has 3 labels, .*images-idx3-ubyte has 4 images: expected one for"),
        (np.zeros(4, np.float32), r"holds float32 of shape \(4,\): expected labels, integers"),
        (np.array([0, 1, -1, 2], np.int8), "has the label -1: class indices count from 0"),
        (np.zeros((4, 1, 1), np.uint8), r"holds uint8 of shape \(4, 1, 1\): expected labels"),
    ],
)
def test_labels_that_do_not_fit_are_one_sentence(tmp_path, labels, message):
    idx.write_idx(tmp_path / "train-images-idx3-ubyte", images_of())
    idx.write_idx(tmp_path / "train-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


def test_two_files_of_one_split_and_a_folder_of_two_forms(tmp_path):
    write_set(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="holds 1 images and 2 IDX files: name the folder or the files of one kind"):
        open_source(tmp_path)
    (tmp_path / "a.png").unlink()
    idx.write_idx(tmp_path / "train-images.idx3-ubyte", images_of())
    with pytest.raises(
        ValueError, match=r"holds train-images-idx3-ubyte and train-images\.idx3-ubyte, which are images"
    ):
        open_source(tmp_path, "train")


def test_no_hub_is_asked_for_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no train-images-idx3-ubyte: expected"):
        open_source("train-images-idx3-ubyte")


# round trips ---------------------------------------------------------------------------------------------------------

ANY = st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]).flatmap(
    lambda dtype: arrays(dtype, st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
)


@settings(deadline=None)
@given(ANY, st.sampled_from(["", ".gz"]))
def test_what_is_written_is_read(values, after):
    with TemporaryDirectory() as folder:
        path = Path(folder, f"any-images-idx3-ubyte{after}")
        idx.write_idx(path, values)
        read = np.array(idx._read(path))
    assert read.shape == values.shape
    assert read.dtype.newbyteorder("=") == values.dtype
    assert np.array_equal(read, values, equal_nan=values.dtype.kind == "f")


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 255), st.sampled_from(["", ".gz"]))
def test_no_damage_goes_unseen(place, value, after):
    """Any byte of the header or of a compressed file that changes the images is an error."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"train-images-idx3-ubyte{after}")
        images = images_of(3)
        idx.write_idx(path, images)
        content = bytearray(path.read_bytes())
        place %= 16 if not after else len(content)
        content[place] = value
        path.write_bytes(content)
        try:
            read = open_source(folder).images
        except ValueError:
            return
        assert read.size == images.size
        assert np.array_equal(np.ravel(read), np.ravel(images))


def test_a_type_that_idx_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="IDX has no type int64: give uint8"):
        idx.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(3))
