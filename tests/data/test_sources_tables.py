"""Lists and tables of paths as data sets."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import fill, levels, write_table

from randfeat.data.sources import open_source


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
