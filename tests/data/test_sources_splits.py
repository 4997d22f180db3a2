"""Several splits of a data set, or all of them, as one source."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from folders import fill, levels, write_table

from randfeat.data.sources import open_source
from randfeat.data.sources.folder import FileSource
from randfeat.data.sources.idx import write_idx


def test_all_splits_of_a_folder(tmp_path):
    fill(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/dog/c.png", "test/cat/d.png")
    with pytest.raises(ValueError, match=r"has the splits test, train, val: say which one.*or all \(--split NAME\)$"):
        open_source(tmp_path)
    everything = open_source(tmp_path, "all")
    assert isinstance(everything, FileSource)
    assert everything.paths == ["test/cat/d.png", "train/cat/a.png", "train/dog/b.png", "val/dog/c.png"]
    assert everything.labels == [0, 0, 1, 1]
    assert everything.classes == ["cat", "dog"]
    assert levels(everything) == [3, 0, 1, 2]
    for split in ("train,validation", ["train", "val"], "train, val,train"):
        some = open_source(tmp_path, split)
        assert levels(some) == [0, 1, 2]
        assert some.fingerprint() == open_source(tmp_path, "train,val").fingerprint()
    with pytest.raises(ValueError, match="not 'dev2'"):
        open_source(tmp_path, "train,dev2")


def test_two_splits_of_one_meaning_are_told_apart(tmp_path):
    fill(tmp_path, "dev/a.png", "val/b.png")
    assert [open_source(tmp_path, split).paths for split in ("dev", "val")] == [["dev/a.png"], ["val/b.png"]]
    assert open_source(tmp_path, "all").paths == ["dev/a.png", "val/b.png"]


def test_all_of_what_has_no_splits_is_all_of_it(tmp_path):
    fill(tmp_path, "cat/a.png", "dog/b.png")
    assert open_source(tmp_path, "all").fingerprint() == open_source(tmp_path).fingerprint()


def test_splits_of_other_classes(tmp_path):
    fill(tmp_path, *(f"{number}.png" for number in range(4)))
    columns = {"path": [f"{number}.png" for number in range(4)], "split": ["train", "train", "test", "test"]}
    table = write_table(tmp_path / "list.csv", columns | {"label": ["bee", "cat", "ant", "cat"]})
    joined = open_source(table, "all")
    assert [joined.classes[label] for label in joined.labels] == ["ant", "cat", "bee", "cat"]
    assert [path for path in joined.paths] == ["2.png", "3.png", "0.png", "1.png"]


def test_splits_with_rows_of_equal_names(tmp_path):
    for count, split in ((3, "train"), (2, "t10k")):
        pixels = np.full((count, 4, 4), count, np.uint8)
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    train, test, joined = (open_source(tmp_path, split) for split in ("train", "test", "all"))
    assert len(joined) == 5
    assert len(set(joined.paths)) == 5
    assert sorted(levels(joined)) == [2, 2, 3, 3, 3]
    assert levels(joined) == levels(test) + levels(train)
    assert joined.labels == [*test.labels, *train.labels]
    assert levels(pickle.loads(pickle.dumps(joined))) == levels(joined)
    assert (joined.values(2) == train.values(0)).all()
    assert joined.fingerprint() != open_source(tmp_path, "train,test").fingerprint()  # another sequence
