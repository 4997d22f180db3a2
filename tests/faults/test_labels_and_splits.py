"""Labels and splits: what is none is counted, ids become classes that keep their names, several are refused."""

from __future__ import annotations

import io
import json
import tarfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from folders import fill, levels, write_table
from PIL import Image
from randfeat.pretrain import ModelConfig, PretrainConfig, TrainingConfig, run_pretraining
from randfeat.pretrain.checks import class_labels, class_names

from randfeat import Index, load, weights
from randfeat.commands.probe.inputs import part_of
from randfeat.data.labels import as_label, as_text
from randfeat.data.sources import open_source, splits
from randfeat.data.sources.base import numbered
from randfeat.data.sources.idx import write_idx
from randfeat.data.token_store import TokenWriter
from randfeat.pipeline.sample_folder import write_samples
from randfeat.tokenizers import PatchTokenizer

NAMES = ["a.png", "b.png", "c.png", "d.png"]
FORMS = (".csv", ".tsv", ".jsonl", ".parquet")

# one value ----------------------------------------------------------------------------------------------------------

LABELS = {
    "None": (None, None),
    "nan": (float("nan"), None),
    "NumPy's nan": (np.float32("nan"), None),
    "pandas' NA": (pd.NA, None),
    "pandas' NaT": (pd.NaT, None),
    "NumPy's NaT": (np.datetime64("NaT"), None),
    "blank": ("", None),
    "spaces": (" \t", None),
    "text nan": ("nan", None),
    "text NaN": (" NaN ", None),
    "text <NA>": ("<NA>", None),
    "a class called none": ("none", "none"),
    "a class called None": ("None", "None"),
    "1": (1, 1),
    "1.0": (1.0, 1),
    "NumPy's 1": (np.int16(1), 1),
    "NumPy's 1.0": (np.float64(1.0), 1),
    "torch's 1": (torch.tensor(1), 1),
    "text 1": ("1", "1"),
    "a text with spaces": (" cat\n", "cat"),
    "NumPy's text": (np.str_(" cat"), "cat"),
    "bytes": ("café".encode(), "café"),
    "True": (True, "True"),
    "0.5": (0.5, "0.5"),
    "a huge id": (10**15, 10**15),
}
SEVERAL = (["cat", "dog"], ("cat",), [], {"cat": 1}, {1, 2}, np.array(["cat", "dog"]), np.array([1]), torch.ones(2))


@pytest.mark.parametrize("name", LABELS)
def test_a_label_has_one_form(name):
    given, expected = LABELS[name]
    found = as_label(given)
    assert (found, type(found)) == (expected, type(expected))
    assert as_text(given) == (None if expected is None else str(expected))


@pytest.mark.parametrize("given", SEVERAL, ids=str)
def test_several_labels_are_refused(given):
    with pytest.raises(ValueError, match=r"^a label is .*, several in one: expected one for each image$"):
        as_label(given)


COLUMNS = {
    "ids with gaps": ([1, 2, 3], [1, 2, 3], None),
    "floats": ([1.0, 2.0, float("nan")], [1, 2, None], None),
    "1 and 1.0": ([1, 1.0, "1"], [1, 1, 1], None),
    "texts of ids": (["1", " 2", "1.0"], [1, 2, 1], None),
    "huge ids": ([10**7, 3], [10**7, 3], None),
    "blank beside texts": (["cat", "", "dog"], [0, None, 1], ["cat", "dog"]),
    "gaps beside texts": (["cat", float("nan"), pd.NA, None], [0, None, None, None], ["cat"]),
    "-1": ([0, -1, 1], [0, None, 1], None),
    "-1 beside texts": (["cat", "-1", "dog"], [0, None, 1], ["cat", "dog"]),
    "spaces": (["cat", " cat", "cat "], [0, 0, 0], ["cat"]),
    "1.0 beside texts": ([1.0, "cat", 1], [0, 1, 0], ["1", "cat"]),
    "none": ([None, "", -1, "nan"], None, None),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_labels(name):
    given, labels, classes = COLUMNS[name]
    assert numbered(given) == (labels, classes)


# data sets ----------------------------------------------------------------------------------------------------------


def table_of(root, suffix, labels, **more):
    fill(root, *NAMES[: len(labels)])
    return write_table(root / f"rows{suffix}", {"path": NAMES[: len(labels)], "label": labels, **more})


def classes_of(source):
    """Return the label of each row as text."""
    names = source.classes
    return [None if one is None else str(one) if names is None else names[one] for one in source.labels]


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["cat", "", "dog", "cat"], ["cat", None, "dog", "cat"]), ([3, -1, 5, 3], ["3", None, "5", "3"])],
)
def test_images_without_a_label_are_counted(suffix, labels, expected, tmp_path):
    with pytest.warns(
        UserWarning, match=r"^1 of 4 images of .* have no label \(blank, -1 or none\), such as b.png: they"
    ):
        source = open_source(table_of(tmp_path, suffix, labels))
    assert classes_of(source) == expected
    assert len(source) == 4


def test_a_blank_cell_beside_numbers_is_no_label(tmp_path):
    fill(tmp_path, *NAMES)
    (tmp_path / "rows.csv").write_text("path,label\na.png,1\nb.png,\nc.png,3\nd.png,1\n")
    with pytest.warns(UserWarning, match="1 of 4 images"):
        assert open_source(tmp_path / "rows.csv").labels == [1, None, 3, 1]


def test_what_pandas_writes_is_what_it_had(tmp_path):
    fill(tmp_path, *NAMES)
    frame = pd.DataFrame({"path": NAMES, "label": pd.array(["cat", pd.NA, "dog", "cat"], "string")})
    for path, write in (("x.csv", frame.to_csv), ("x.parquet", frame.to_parquet)):
        write(tmp_path / path, index=False)
        with pytest.warns(UserWarning, match="1 of 4 images"):
            assert classes_of(open_source(tmp_path / path)) == ["cat", None, "dog", "cat"]
    frame["label"] = [1.0, np.nan, 2.0, 1.0]
    frame.to_csv(tmp_path / "y.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 4 images"):
        assert open_source(tmp_path / "y.csv").labels == [1, None, 2, 1]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_list_of_labels_is_refused(suffix, tmp_path):
    with pytest.raises(ValueError, match=r"a label is \['cat', 'dog'\], several in one"):
        open_source(table_of(tmp_path, suffix, [["cat", "dog"], ["cat"]]))


def test_two_labels_of_an_image_are_refused(tmp_path):
    fill(tmp_path / "images", "a.png", "b.png")
    for name, second in (("same.csv", "cat"), ("other.csv", "dog")):
        (tmp_path / name).write_text(f"path,label,kind\na.png,cat,cat\nb.png,dog,dog\na.png,{second},{second}\n")
    assert open_source(tmp_path / "images", labels=tmp_path / "same.csv").labels == [0, 1]
    for more in ({}, {"label_column": "kind"}):
        with pytest.raises(ValueError, match=r"other\.csv has cat and dog for a\.png: expected one for each image"):
            open_source(tmp_path / "images", labels=tmp_path / "other.csv", **more)


def test_indices_of_named_classes_keep_their_names(tmp_path):
    """A column of Hugging Face's ClassLabel with a class that no image has."""
    import datasets

    pictures = [Image.new("L", (4, 4), 9) for _ in range(3)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee", "cat"]))
    made = datasets.Dataset.from_dict({"image": pictures, "label": [2, -1, 0]}, features)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "x.parquet")
    for form in ("saved", "x.parquet"):
        with pytest.warns(UserWarning, match="1 of 3 images"):
            source = open_source(tmp_path / form)
        assert (source.labels, source.classes) == ([2, None, 0], ["ant", "bee", "cat"])


def test_idx_labels_from_1_have_no_class_0(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([1, 3, 1], np.uint8))
    source = open_source(tmp_path)
    assert (source.labels, source.classes) == ([0, 1, 0], ["1", "3"])


# tar files ----------------------------------------------------------------------------------------------------------


def png(level):
    file = io.BytesIO()
    Image.new("L", (4, 4), level).save(file, "PNG")
    return file.getvalue()


def tar_of(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            content = png(content) if isinstance(content, int) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


DOTTED = {
    "own label": (
        {"photo 1.5.png": 1, "photo 1.5.cls": b"cat", "b.png": 2, "b.cls": b"dog"},
        ["cat", "dog"],
        "1 images have dots in their names and a label file called like them, .* such as x.tar/photo 1.5.png",
    ),
    "own label in JSON": (
        {"v1.2.png": 1, "v1.2.json": b'{"label": "cat"}', "b.png": 2, "b.cls": b"dog"},
        ["cat", "dog"],
        "1 images have dots in their names and a label file called like them",
    ),
    "both": (
        {"a.1.png": 1, "a.1.cls": b"cat", "a.png": 2, "a.cls": b"dog"},
        ["cat", "dog"],
        "1 images have dots in their names and a label file called like them",
    ),
    "another image of the sample": (
        {"a.1.png": 1, "a.png": 2, "a.cls": b"dog"},
        ["dog", "dog"],
        "1 images have dots in their names and take the label of the sample before the dot, such as x.tar/a.1.png",
    ),
    "a label of no image": (
        {"a.png": 1, "a.cls": b"cat", "b.png": 2, "b.cls": b"dog", "c.d.cls": b"cow"},
        ["cat", "dog"],
        "1 label files belong to no image, such as x.tar/c.d.cls",
    ),
}


@pytest.mark.parametrize("name", DOTTED)
def test_a_name_with_dots_says_how_it_is_read(name, tmp_path):
    members, expected, message = DOTTED[name]
    with pytest.warns(UserWarning, match=message):
        source = open_source(tar_of(tmp_path / "x.tar", members))
    assert classes_of(source) == expected
    assert levels(source) == [1, 2]


def test_several_pictures_of_a_sample_share_its_label(tmp_path):
    members = {"0.left.png": 1, "0.right.png": 2, "0.cls": b"cat", "1.left.png": 3, "1.cls": b"dog"}
    assert classes_of(open_source(tar_of(tmp_path / "x.tar", members))) == ["cat", "cat", "dog"]


@pytest.mark.parametrize("empty", [b"", b" \n", b"nan", b"-1"])
def test_an_empty_label_file_is_none(empty, tmp_path):
    members = {"a.png": 1, "a.cls": b"cat", "b.png": 2, "b.cls": empty}
    with pytest.warns(UserWarning, match="1 of 2 images"):
        assert classes_of(open_source(tar_of(tmp_path / "x.tar", members))) == ["cat", None]


def test_labels_in_json_follow_the_rule(tmp_path):
    def members(label):
        return {"a.png": 1, "a.json": json.dumps({"label": label}).encode(), "b.png": 2, "b.cls": b"3"}

    assert open_source(tar_of(tmp_path / "x.tar", members(2.0))).labels == [2, 3]
    with pytest.warns(UserWarning, match="1 of 2 images"):
        assert open_source(tar_of(tmp_path / "x.tar", members(None))).labels == [None, 3]
    with pytest.raises(ValueError, match=r"a\.json: a label is \['cat', 'dog'\], several in one"):
        open_source(tar_of(tmp_path / "x.tar", members(["cat", "dog"])))


# splits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("asked", ["train", "Train", " train", "TRAINING"])
def test_spellings_of_a_split_are_one(suffix, asked, tmp_path):
    table = table_of(tmp_path, suffix, [0, 1, 0, 1], split=["Train", " train", "test", "train"])
    assert open_source(table, asked).paths == ["a.png", "b.png", "d.png"]
    assert open_source(table, "test").paths == ["c.png"]
    with pytest.raises(ValueError, match="has the splits Train, test: say which one"):
        open_source(table)
    assert len(open_source(table, "all")) == 4


@pytest.mark.parametrize("suffix", FORMS)
def test_rows_without_a_split_are_counted(suffix, tmp_path):
    table = table_of(tmp_path, suffix, [0, 1, 0, 1], split=["fold 1", "", "Fold 1", "2"])
    with pytest.warns(UserWarning, match=r"^1 rows of .* name no split, such as b.png: they are left out"):
        assert open_source(table, "FOLD 1").paths == ["a.png", "c.png"]


@pytest.mark.parametrize("suffix", FORMS)
def test_a_column_of_blank_splits_is_none(suffix, tmp_path):
    table = table_of(tmp_path, suffix, [0, 1, 0, 1], split=["", " ", "", ""])
    assert len(open_source(table)) == 4
    with pytest.raises(ValueError, match="has no splits, so there is no 'train'"):
        open_source(table, "train")


@pytest.mark.parametrize("blank", ["", "nan", None])
def test_an_image_without_a_group_is_refused(blank, tmp_path):
    fill(tmp_path, *NAMES)
    table = write_table(tmp_path / "x.parquet", {"path": NAMES, "label": [0, 1, 0, 1], "who": ["a", "b", blank, "a"]})
    with pytest.raises(ValueError, match=r"has no who for c\.png: expected one for every image"):
        part_of(open_source(table), "who")


def test_two_folders_of_one_split_are_refused(tmp_path):
    fill(tmp_path, "Train/cat/a.png", "train/cat/b.png", "test/cat/c.png")
    with pytest.raises(ValueError, match="has the splits 'Train' and 'train', which are one: rename one"):
        open_source(tmp_path, "train")


def test_a_folder_of_any_split_is_found_in_any_case(tmp_path):
    fill(tmp_path, "Fold1/cat/a.png", "Train/cat/b.png")
    assert open_source(tmp_path, "fold1").paths == ["Fold1/cat/a.png"]
    assert open_source(tmp_path, "train").paths == ["Train/cat/b.png"]


@pytest.mark.parametrize("name", ["Val", " validation", "DEV", "valid "])
def test_words_for_a_split_are_known_in_any_case(name):
    assert splits.canonical(name) == "val"
    assert splits.is_split(name)


# an index -----------------------------------------------------------------------------------------------------------


def test_an_index_has_no_labels_that_are_none(tmp_path):
    given = ["cat", None, float("nan"), pd.NA, "", " cat", 1.0, 1, np.int64(1), -0.0]
    index = Index(np.eye(10, dtype=np.float32), [f"{i}.png" for i in range(10)], given)
    assert index.labels() == {"1": 3, "cat": 2, "0": 1}
    with pytest.raises(ValueError, match="several in one"):
        index.add(np.eye(1, 10, dtype=np.float32), ["new.png"], [["cat", "dog"]])


# pretraining --------------------------------------------------------------------------------------------------------


def store(path, labels, classes=None, tokenizer="t"):
    names = [f"{i}.png" for i in range(len(labels))]
    writer = TokenWriter(path, names, labels, tokenizer=tokenizer, grid=(2, 3), vocab_size=7, classes=classes)
    tokens = np.random.default_rng(0).integers(0, 7, (len(labels), 1, 6))
    writer.write(0, tokens, np.ones((len(labels), 2)))
    return writer.finish()


WITH_LABELS = SimpleNamespace(labels=True)  # as much of a recipe as its labels need


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([1, 2, 3, 1], ["1", "2", "3"], [0, 1, 2, 0]),
        ([10**7, 5, 5, None], ["5", "10000000"], [1, 0, 0, 2]),
        ([0, 1, 2, 0], None, [0, 1, 2, 0]),
    ],
)
def test_ids_become_classes(labels, names, expected, tmp_path):
    made = store(tmp_path / "tokens", labels)
    assert class_names(made) == names
    count = 3 if names is None else len(names)
    assert class_labels(WITH_LABELS, made, SimpleNamespace(num_classes=count)).tolist() == expected


def test_held_out_images_have_the_classes_that_are_trained(tmp_path):
    trained = store(tmp_path / "a", [1, 5, 9])
    two, three = (SimpleNamespace(num_classes=count) for count in (2, 3))
    assert class_labels(WITH_LABELS, store(tmp_path / "b", [9, 1]), three, trained).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"b2 has images of the class 2, and .*a has none"):
        class_labels(WITH_LABELS, store(tmp_path / "b2", [9, 2]), three, trained)
    named, other = store(tmp_path / "c", [0, 1], ["ant", "bee"]), store(tmp_path / "d", [0, 1], ["bee", "ant"])
    assert class_labels(WITH_LABELS, other, two, named).tolist() == [1, 0]
    strange = store(tmp_path / "e", [0, 1], ["bee", "cat"])
    with pytest.raises(ValueError, match=r"e has images of the class cat, and .*c has none"):
        class_labels(WITH_LABELS, strange, two, named)


def test_a_run_has_the_classes_of_its_ids_alone(tmp_path):
    """A model of ids, and samples of each class: none is drawn of an id that no image has."""
    tokenizer = PatchTokenizer.fit(torch.rand(4, 1, 4, 6), 7, 2)
    tokens = store(tmp_path / "tokens", [1, 2, 10**7, 2], tokenizer=weights.fingerprint(tokenizer))
    recipe = PretrainConfig("randar", True, ModelConfig(16, 2, 2), TrainingConfig(steps=1, batch_size=4, warmup=0))
    model = load(run_pretraining(recipe, tokens, tokenizer, tmp_path / "run", device="cpu"))
    assert model.classes.names == ["1", "2", "10000000"]
    write_samples(model, tmp_path / "out", balanced=True)
    drawn = (tmp_path / "out" / "labels.csv").read_text().splitlines()[1:]
    assert [line.split(",")[2] for line in drawn] == ["1", "2", "10000000"]


def test_a_parquet_of_ids_is_not_a_parquet_of_names(tmp_path):
    table = pa.table({"image": [png(1), png(2)], "label": pa.array([7.0, None])})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.warns(UserWarning, match="1 of 2 images"):
        assert open_source(tmp_path / "x.parquet").labels == [7, None]
