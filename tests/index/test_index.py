"""An index in memory and on disk: opened again, compacted, verified, and refused where it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from indexing import EVERY, LABELS, NAMES, build, clustered, rows

from randfeat import Index
from randfeat.index import Match, faiss_index, vectors
from randfeat.index.directory import Directory
from randfeat.utils.faiss import faiss

pytestmark = pytest.mark.usefixtures("codes_of_few")


# what it holds -----------------------------------------------------------------------------------------------


def test_rows_by_id_and_by_path():
    bank = rows(40)
    index = Index(bank, NAMES, LABELS)
    index.remove([5])
    assert index.find([NAMES[7], NAMES[5], "else"]) == [7, None, None]
    first, second = index.rows([9, 2])
    assert (first.id, first.path, first.label) == (9, NAMES[9], "dog")
    assert second.label is None
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    np.testing.assert_allclose(index.vectors([9, 2, 9]), unit[[9, 2, 9]], rtol=1e-6)
    assert index.labels() == {"7": 10, "cat": 10, "dog": 9}
    assert [one.id for one in index.similar([9], 3)[0]] == [one.id for one in index.search(bank[9:10], 4)[0][1:]]
    for call in (index.rows, index.vectors, index.similar, index.remove):
        with pytest.raises(ValueError, match="the index holds no id 5"):
            call([5])
    with pytest.raises(ValueError, match=r"the index holds no folder/5\.png"):
        index.remove([NAMES[5]])


def test_ids_are_never_used_twice():
    index = Index(rows(3), "abc")
    index.remove([2])
    assert index.add(rows(2, 1), ["c", "d"]) == [3, 4]
    assert index.update(rows(3, 2), ["a", "new", "d"], ["x", "y", None]) == [0, 5, 4]
    assert index.compact() in (True, False)
    assert sorted(index.ids()) == [0, 1, 3, 4, 5]
    assert [match.label for match in index.rows([0, 5, 4])] == ["x", "y", None]
    assert index.search(rows(1, 2), 1)[0][0].path == "a"
    with pytest.raises(ValueError, match="a is in the index already: use update"):
        index.add(rows(2), ["e", "a"])
    assert len(index) == 5


def test_many_small_additions_make_few_segments(tmp_path):
    index = Index.build(tmp_path / "index", rows(1000), range(1000), index_type="ivf")
    for number in range(100):
        index.add(rows(1, number), [f"more {number}"])
    assert len(index.segments) < 10
    assert len(list((tmp_path / "index").glob("*.faiss"))) == len(index.segments)
    assert len(index) == 1100
    assert not index.wants_compaction()
    index.add(rows(400, 5), [f"many {number}" for number in range(400)])
    assert index.wants_compaction()
    assert index.compact()
    assert (len(index.segments), len(index), index.index_type) == (1, 1500, "ivf")
    assert not index.compact()


# on disk -----------------------------------------------------------------------------------------------------


def test_an_index_survives_a_restart(tmp_path):
    index = Index(rows(10), NAMES[:10])
    for _ in range(2):  # the second time over the first
        index.save(tmp_path / "new" / "index")
        again = Index.open(tmp_path / "new" / "index")
        assert again.search(rows(3, seed=1), 4) == index.search(rows(3, seed=1), 4)
        again.verify()
    assert sorted(path.suffix for path in (tmp_path / "new" / "index").iterdir()) == ["", ".faiss", ".json", ".parquet"]
    index.remove([3])
    index.save(tmp_path / "less")
    assert len(Index.open(tmp_path / "less")) == 9
    Index.open(tmp_path / "less").save(tmp_path / "copy")
    assert Index.open(tmp_path / "copy").search(rows(3, seed=1), 4) == index.search(rows(3, seed=1), 4)


@pytest.mark.parametrize("kind", EVERY)
def test_larger_than_the_memory(tmp_path, kind, monkeypatch):
    """Several segments of one training; nothing is lost between them."""
    monkeypatch.setattr(vectors, "LEAST", 500)
    bank = clustered(3000)
    parts = [bank[:100], bank[100:2050], bank[2050:]]
    memory = bank.nbytes // 2
    asked = "ivf" if kind == "codes" else kind
    index = Index.build(tmp_path / "index", parts, range(3000), index_type=asked, memory=memory)
    assert len(index.segments) == 4
    assert [len(one) for one in index.search(bank[:3], 5000)] == [3000] * 3
    hit = sum(one[0].id == row for row, one in enumerate(index.search(bank, 1)))
    assert hit > 2900
    index.remove(range(0, 3000, 2))
    assert index.compact()
    assert len(index.segments) == 2  # as large as before
    assert sorted(index.ids()) == [*range(1, 3000, 2)]
    np.testing.assert_allclose(index.vectors([1]), bank[1:2] / np.linalg.norm(bank[1]), rtol=1e-5)
    index.verify()


def test_what_auto_takes():
    assert faiss_index.choose("auto", 1000, 256, 10**9).index_type == "flat"
    million = faiss_index.choose("auto", 10**6, 256, 2 * 10**9)
    assert (million.index_type, million.factory) == ("ivf", "IVF4096,Flat")
    assert "1,000,000 x 256 numbers are 1 GB: 4,096 lists" in million.reason
    coded = faiss_index.choose("auto", 10**6, 256, 10**9)
    assert (coded.index_type, coded.factory) == ("ivf", "IVF4096,PQ64np,RFlat")
    assert "do not fit into 1 GB" in coded.reason
    assert faiss_index.choose("ivf", 10**6, 257, 10**9).factory == "IVF4096,SQ8,RFlat"  # a prime number
    assert faiss_index.choose("ivf", 1, 4, 10**9).factory == "IVF1,Flat"
    assert faiss_index.choose("hnsw", 1, 4, 10**9).index_type == "hnsw"
    assert faiss_index.default_memory() > 10**8


def test_a_compacted_auto_index_becomes_another_kind(tmp_path, monkeypatch):
    index = Index.build(tmp_path / "index", clustered(1000), range(1000))
    assert (index.index_type, index.wants_compaction()) == ("flat", False)
    monkeypatch.setattr(faiss_index, "QUICK", 1000)
    assert index.wants_compaction()
    assert index.compact()
    assert (index.index_type, Index.open(tmp_path / "index").index_type, index.wants_compaction()) == (
        "ivf",
        "ivf",
        False,
    )


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_what_is_built_is_what_faiss_builds(tmp_path, kind):
    """Built from the same sample; a graph that is made in pieces would find less."""
    bank = clustered(3000)
    index = build(tmp_path / "index", kind, bank)
    unit = bank.copy()
    faiss.normalize_L2(unit)
    factory = faiss_index.choose(kind, 3000, 16).factory
    alone = faiss.index_factory(16, factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        numbers = np.random.default_rng(0).choice(3000, faiss_index.sample_size(factory), replace=False)
        alone.train(unit[np.sort(numbers)])
    alone.add(unit)
    faiss_index.tune(alone, unit, "cosine")
    scores, ids = alone.search(unit[:100], 10)
    np.testing.assert_array_equal(index.nearest(bank[:100], 10)[0], ids)
    np.testing.assert_array_equal(index.nearest(bank[:100], 10)[1], scores)


def test_faiss_alone_opens_a_segment(tmp_path):
    index = Index.build(tmp_path / "index", rows(20), range(20))
    alone = faiss.read_index(str(tmp_path / "index" / "000001.faiss"))
    np.testing.assert_array_equal(alone.reconstruct_n(0, 20), index.vectors(range(20)))


def test_a_million_rows_open_at_once(tmp_path):
    """Nothing is read before it is used: files that are not there when they are used are no trouble to `open`."""
    count = 300_000
    index = Index.build(tmp_path / "index", np.ones((count, 2), np.float32), range(count), index_type="flat")
    code = "import sys, time; from randfeat import Index; t = time.process_time(); Index.open(sys.argv[1]); print(time.process_time() - t)"  # noqa: E501
    took = subprocess.run([sys.executable, "-c", code, str(index.directory)], capture_output=True, check=True).stdout
    assert float(took) < 0.3


# damage ------------------------------------------------------------------------------------------------------


def names_of(directory):
    return {path.suffix: path for path in directory.iterdir()}


@pytest.fixture
def disk(tmp_path):
    index = Index.build(tmp_path / "index", clustered(300), range(300), [row % 3 for row in range(300)])
    index.remove([3])
    return index


@pytest.mark.parametrize("suffix", [".faiss", ".parquet", ".npy"])
def test_verify_finds_damage(disk, suffix):
    disk.verify()
    path = names_of(disk.directory)[suffix]
    content = path.read_bytes()
    for at in (len(content) // 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ValueError, match=f"{path.name} is missing or not what was written"):
            disk.verify()
    path.write_bytes(content)
    disk.verify()
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing or not what was written"):
        disk.verify()


@pytest.mark.parametrize("suffix", [".faiss", ".parquet", ".npy"])
def test_what_cannot_be_opened_is_one_sentence(disk, suffix):
    path = names_of(disk.directory)[suffix]
    content = path.read_bytes()
    for left in (b"", content[: len(content) // 2], b"nonsense"):
        path.write_bytes(left)
        with pytest.raises(ValueError, match="copy the index again, or build it anew") as caught:
            Index.open(disk.directory)
        assert len(str(caught.value).splitlines()) == 1
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing: copy the index again"):
        Index.open(disk.directory)


def test_a_manifest_of_something_else_is_refused(disk):
    (disk.directory / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match="was expected to hold 'index of randfeat, version 1'"):
        Index.open(disk.directory)
    (disk.directory / "meta.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is no index: it has no meta\.json"):
        Index.open(disk.directory)
    with pytest.raises(FileNotFoundError, match="is no index"):
        Index.open(disk.directory / "missing")


@pytest.mark.parametrize("suffix", ["faiss", "parquet"])
def test_nothing_is_copied_from_what_is_damaged(tmp_path, suffix):
    """A byte that flipped on the disk would look whole ever after."""
    index = Index.build(tmp_path / "index", rows(30), NAMES[:30], LABELS[:30], index_type="flat")
    index.remove([3])
    file = next((tmp_path / "index").glob(f"*.{suffix}"))
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    for change in (lambda: index.compact(), lambda: index.add(rows(30, 1), [f"new {i}" for i in range(30)])):
        with pytest.raises(ValueError, match=rf"{suffix} is missing or not what was written"):
            change()
    with pytest.raises(ValueError, match="not what was written"):
        Index.open(tmp_path / "index").verify()


def test_a_damaged_column_names_its_file(tmp_path):
    Index.build(tmp_path / "index", rows(40), [f"{i:0200}" for i in range(40)], index_type="flat")
    file = next((tmp_path / "index").glob("*.parquet"))
    content, column = bytearray(file.read_bytes()), pq.ParquetFile(file).metadata.row_group(0).column(1)
    start, size = column.data_page_offset, column.total_compressed_size
    content[start : start + size] = bytes(size)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file.name} is damaged: copy the index again"):
        Index.open(tmp_path / "index").search(rows(1), 3)


def test_of_equals_the_first_comes_first():
    bank = np.repeat(rows(3), 4, axis=0)
    index = Index(bank, [str(i) for i in range(12)])
    index.add(bank[:4], [str(i) for i in range(12, 16)])
    assert [match.id for match in index.search(bank[:1], 8)[0]] == [0, 1, 2, 3, 12, 13, 14, 15]


def test_verify_finds_rows_that_contradict_each_other(tmp_path):
    index = Index.build(tmp_path / "index", rows(4), range(4))
    twice = Index(rows(2), ["0", "9"])
    directory = Directory(tmp_path / "index")
    with directory.exclusive():
        meta = directory.meta()
        directory.commit(meta, [*index.segments, directory.write(twice.segments[0])])
    with pytest.raises(ValueError, match="has an id twice"):
        Index.open(tmp_path / "index").verify()


# refusals ----------------------------------------------------------------------------------------------------


def broken(value):
    features = rows(4)
    features[2, 1] = value
    return features


def four():
    return Index(rows(4), NAMES[:4])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Index(broken(np.nan), NAMES[:4]), "row 2 has a value that is not finite"),
        (lambda: Index(broken(np.inf), NAMES[:4]), "row 2 has a value that is not finite"),
        (lambda: Index(np.float64(1e300) * rows(4).astype(float), NAMES[:4]), "row 0 has a value that is not finite"),
        (lambda: Index(rows(4), NAMES[:3]), "4 features for 3 names"),
        (lambda: Index(rows(4), NAMES[:4], [1]), "4 features for 1 labels"),
        (lambda: Index(rows(4), "aaab"), "the name a is there twice"),
        (lambda: Index(rows(4)[0], NAMES[:4]), r"two dimensions, \(n, F\), got shape \(5,\)"),
        (lambda: Index(rows(4), NAMES[:4], metric="cubic"), "metric 'cubic' is none of cosine, dot, l2"),
        (lambda: Index(rows(4), NAMES[:4], index_type="tree"), "index_type 'tree' is none of auto, flat, ivf, hnsw"),
        (lambda: four().search(broken(np.nan)), "row 2 has a value that is not finite"),
        (lambda: four().within(broken(np.nan), 0), "row 2 has a value that is not finite"),
        (lambda: four().add(broken(np.nan), "abcd"), "row 2 has a value that is not finite"),
        (lambda: four().search(rows(2)[:, :3]), "features of 5 numbers, the query has 3"),
        (lambda: four().add(rows(2)[:, :3], "ab"), "features of 5 numbers, these have 3"),
        (lambda: four().search(rows(2), 0), "k must be a whole number from 1, got 0"),
        (lambda: four().search(rows(2), 1.5), "k must be a whole number from 1, got 1.5"),
        (lambda: four().search(rows(2), True), "k must be a whole number from 1, got True"),
        (lambda: four().search(rows(2), nprobe=0), "nprobe must be a whole number from 1, got 0"),
        (lambda: four().search(rows(2)[0]), "two dimensions"),
        (lambda: four().encoder(), "holds numbers that no model read: search with features"),
        (lambda: Index.build("x", [rows(2), rows(2, 0, 3)], "abcd"), "arrays of as many columns each"),
    ],
)
def test_wrong_features_and_queries_are_refused(act, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        act()
    assert not list(tmp_path.iterdir())


def test_a_refused_change_changes_nothing(disk):
    before = json.loads((disk.directory / "meta.json").read_text())
    for call in (
        lambda: disk.add(np.full((2, 16), np.nan), ["a", "b"]),
        lambda: disk.remove([0, 10**6]),
        lambda: disk.update(rows(2, 0, 16), ["a", "a"]),
    ):
        with pytest.raises(ValueError, match=r"not finite|no id|twice"):
            call()
    assert json.loads((disk.directory / "meta.json").read_text()) == before
    assert len(disk) == 299
    disk.verify()


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(FileExistsError, match="holds something else: choose another directory"):
        Index.build(tmp_path, rows(4), "abcd")
    with pytest.raises(FileExistsError, match="holds something else: choose another directory"):
        Index(rows(4), "abcd").save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    (tmp_path / "numbers").mkdir()
    for name in ("000001.npy", "000002.parquet", "000003.csv"):  # called as ours are
        (tmp_path / "numbers" / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="holds something else: choose another directory"):
        Index.build(tmp_path / "numbers", rows(4), "abcd")
    assert len(list((tmp_path / "numbers").iterdir())) == 3
    Index.build(tmp_path / "index", rows(4), "abcd")
    with pytest.raises(FileExistsError, match="is an index already: add to it, or choose another directory"):
        Index.build(tmp_path / "index", rows(4), "abcd")


# libraries ---------------------------------------------------------------------------------------------------


def test_on_macos_faiss_keeps_to_one_thread():
    code = (
        "import os, sys; sys.platform = 'darwin'\n"
        "from randfeat.utils.faiss import faiss\n"
        "print(os.environ['KMP_DUPLICATE_LIB_OK'], faiss.omp_get_max_threads())"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "KMP_DUPLICATE_LIB_OK")
    }
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["TRUE", "1"]


def test_training_goes_to_gpus_where_faiss_has_them(monkeypatch):
    moved = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index) or index, raising=False)
    index = Index(clustered(1000), range(1000), index_type="ivf")
    assert len(moved) == 1
    assert len(index.search(clustered(3), 5)[0]) == 5


def test_a_faiss_that_cannot_map_reads(tmp_path, monkeypatch):
    Index.build(tmp_path / "index", rows(20), range(20))
    monkeypatch.delattr(faiss, "IO_FLAG_MMAP_IFC", raising=False)
    assert Index.open(tmp_path / "index").search(rows(1), 1)[0][0] == Match(0, "0", None, pytest.approx(1))
