"""An index through many changes: it holds what a dictionary would, whoever is killed, and whoever looks on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from randfeat import Index
from randfeat.index import Filter, directory, faiss_index

DIM, NAMES, LABELS = 4, [f"d/{letter}" for letter in "abcdefghijklmnop"], [None, "x", "y"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def vector(seed):
    drawn = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


# like a dictionary -------------------------------------------------------------------------------------------

some_names = st.lists(st.sampled_from(NAMES), unique=True, max_size=6)
put = st.tuples(st.just("put"), some_names, st.integers(0, 99), st.sampled_from(LABELS))
changes = st.lists(
    st.one_of(
        put,
        put,
        st.tuples(st.just("remove"), some_names),
        st.tuples(st.just("remove ids"), some_names),
        st.tuples(st.just("compact")),
        st.tuples(st.just("open")),
        st.tuples(st.just("save")),
    ),
    max_size=12,
)


class Model:
    """Expected contents of an index: by name its id, label and vector."""

    def __init__(self, names, seed):
        self.rows, self.next_id = {}, 0
        self.put(names, seed, None)

    def put(self, names, seed, label):
        ids = []
        for number, name in enumerate(names):
            id_, *_ = self.rows.get(name, (self.next_id,))
            self.next_id += name not in self.rows
            self.rows[name] = id_, label, vector(seed + number)
            ids.append(id_)
        return ids


def compare(index, model):
    assert len(index) == len(model.rows)
    assert sorted(index.ids()) == sorted(id_ for id_, *_ in model.rows.values())
    ids = index.find(NAMES)
    assert ids == [model.rows[name][0] if name in model.rows else None for name in NAMES]
    there = [name for name in NAMES if name in model.rows]
    bank = np.array([model.rows[name][2] for name in there]).reshape(-1, DIM)
    np.testing.assert_allclose(index.vectors([id_ for id_ in ids if id_ is not None]), bank, atol=1e-6)
    query = vector(12345)
    scores = bank @ query
    for where, kept in [
        (None, there),
        (Filter("x"), [name for name in there if model.rows[name][1] == "x"]),
        (Filter(paths="[a-h]"), [name for name in there if name[-1] <= "h"]),
    ]:
        score = {name: scores[there.index(name)] for name in kept}
        for k in (1, 3, 50):
            (found,) = index.search(query[None], k, where)
            assert len(found) == min(k, len(kept))
            assert len({match.id for match in found}) == len(found)
            for match in found:
                assert (match.id, match.label) == model.rows[match.path][:2]
                assert match.score == pytest.approx(score[match.path], abs=1e-5)
            if index.index_type == "flat" or k == 50:
                np.testing.assert_allclose(
                    [match.score for match in found], sorted(score.values(), reverse=True)[:k], atol=1e-5
                )


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("kind", ["flat", "ivf", "codes", "hnsw", "auto"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=some_names, seed=st.integers(0, 99), todo=changes)
def test_it_is_like_a_dictionary(kind, on_disk, first, seed, todo):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(faiss_index, "PER_LIST", 2)  # several lists of a few rows
        patch.setattr(faiss_index, "COMPRESSED_FROM", 0)
        patch.setattr(faiss_index, "CODE_SAMPLE", 0)
        patch.setattr(faiss_index, "QUICK", 16 * 8)
        patch.setattr(os, "fsync", lambda file: None)  # nothing is killed here
        bank = np.array([vector(seed + number) for number in range(len(first))]).reshape(-1, DIM)
        asked = {"codes": "ivf"}.get(kind, kind)
        # codes are learned from 256 rows at least; SQ8, which stands in, from any
        patch.setattr(faiss_index, "coder", lambda dim: "SQ8")
        place, memory = Path(scratch) / "index", 1 if kind == "codes" else None
        if on_disk:
            index = Index.build(place, bank, first, index_type=asked, memory=memory)
        else:
            index = Index(bank, first, index_type=asked)
        model = Model(first, seed)
        for what, *how in todo:
            if what == "put":
                names, number, label = how
                features = np.array([vector(number + i) for i in range(len(names))]).reshape(-1, DIM)
                call = index.update if set(names) & model.rows.keys() else index.add
                assert call(features, names, [label] * len(names)) == model.put(names, number, label)
            elif what.startswith("remove"):
                there = [name for name in how[0] if name in model.rows]
                which = [model.rows[name][0] for name in there] if what == "remove ids" else there
                assert index.remove(which) == len(there)
                for name in there:
                    del model.rows[name]
            elif what == "compact":
                index.compact()
                assert len(index.segments) <= 1 or memory == 1
                assert not any(len(segment.removed) for segment in index.segments)
            elif what == "open" and on_disk:
                index = Index.open(place)
            elif what == "save":
                index.save(place)
                if not on_disk:
                    assert len(Index.open(place)) == len(index)
            compare(index, model)
        if on_disk:
            index.verify()
            listed = {path.name for path in place.iterdir()}
            assert listed == {"meta.json", "lock", *directory.Directory(place).names(index.meta)}


# killed ------------------------------------------------------------------------------------------------------

KILLED = """
    import os, random, shutil, sys, threading
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import numpy as np
    import damaged
    import kills
    from PIL import Image
    from tqdm import tqdm
    from randfeat import Index
    from randfeat.features.opening import open_encoder
    from randfeat.index import images
    from randfeat.data.sources import open_source
    from pipelines import make_sampler

    tqdm.set_lock(threading.RLock())  # processes would share its own, and wait for one that was killed with it
    root, what, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    rng = np.random.default_rng(0)

    if what == "sync":
        encoder, photos = open_encoder(make_sampler()), root / "photos"
        photos.mkdir()
        for number in range(120):
            Image.fromarray(damaged.noise(8, 8, seed=number)).save(photos / f"{{number}}.png")
        images.extract.SHARD = 10
        images.build(root / "base", encoder, open_source(photos), index_type=kind, workers=0)
        for number in range(90):
            (photos / f"{{number}}.png").unlink()
            Image.fromarray(damaged.noise(8, 8, seed=1000 + number)).save(photos / f"new{{number}}.png")
        act = lambda index: images.sync(index, open_source(photos), encoder, workers=0)
    else:
        dim, count = 16, 4000
        bank = rng.normal(size=(count, dim))
        index = Index.build(root / "base", bank, [f"{{i}}" for i in range(count)], index_type=kind)
        index.add(bank[:2000], [f"also {{i}}" for i in range(2000)])
        index.remove(range(100))
        acts = {{
            "add": lambda index: index.update(bank[:3000] + 1, [f"{{i}}" for i in range(1000, 4000)], ["new"] * 3000),
            "remove": lambda index: index.remove([i for i in index.ids() if 2000 <= i < 5000]),
            "compact": lambda index: index.compact(),
        }}
        act = acts[what]

    def contents(path):
        index = Index.open(path)
        ids = sorted(index.ids())
        return {{row.id: (row.path, row.label, v.tobytes()) for row, v in zip(index.rows(ids), index.vectors(ids))}}

    def acts_on(path, number=0, torn=False):
        # a child that acts, and may die at a touch of a file of the index: its end, and how often it touched one
        heard, told = os.pipe()
        child = os.fork()
        if not child:
            os.close(heard)
            kills.die_at(path, number, torn, lambda: os.write(told, b"."))
            try:
                act(Index.open(path))
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        os.close(told)
        with os.fdopen(heard, "rb") as touches:
            count = len(touches.read())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count

    before = contents(root / "base")
    shutil.copytree(root / "base", root / "whole")
    status, touches = acts_on(root / "whole")
    after = contents(root / "whole")
    assert status == 0
    assert (before == after) == (what == "compact"), (len(before), len(after))
    moments = [(number, torn) for number in range(1, touches + 1) for torn in (False, True)]
    random.Random(0).shuffle(moments)
    deaths, killed = 0, root / "killed"
    for number, torn in moments:
        if deaths == 10:
            break
        shutil.rmtree(killed, ignore_errors=True)
        shutil.copytree(root / "base", killed)
        if not kills.was_killed(acts_on(killed, number, torn)[0], torn):
            continue
        deaths += 1
        Index.open(killed).verify()
        found = contents(killed)
        assert found in (before, after), "neither what was nor what should be"
        print("left", len(list(killed.rglob("*"))), found == after)
        if found == before:
            assert acts_on(killed)[0] == 0
        Index.open(killed).verify()
        assert contents(killed) == after
        if what == "sync":
            assert not (killed / "unfinished").exists() or found == after
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "kind"), [("add", "ivf"), ("remove", "hnsw"), ("compact", "ivf"), ("compact", "hnsw"), ("sync", "flat")]
)
def test_ten_kills_at_any_touch_of_a_file(tmp_path, what, kind):
    code = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parents[1] / "helpers"))
    environment = ENVIRONMENT | {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    command = [sys.executable, "-c", code, str(tmp_path), what, kind]
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("left") == 10
    assert len(set(said.stdout.splitlines())) > 1  # they came at different moments


# side by side ------------------------------------------------------------------------------------------------

WRITER = """
    import sys
    import numpy as np
    from randfeat import Index
    index = Index.open(sys.argv[1])
    for turn in range(60):
        index.update(np.random.default_rng(turn).normal(size=(300, 8)), range(300), [turn] * 300)
        if turn % 3 == 0:
            index.compact()
"""


@pytest.mark.slow
def test_a_reader_sees_the_old_or_the_new_index(tmp_path):
    """Every change gives all rows another label: no reader ever finds two."""
    place = tmp_path / "index"
    first = Index.build(place, np.random.default_rng(0).normal(size=(300, 8)), range(300), ["first"] * 300)
    old = Index.open(place)  # of which not a column has been read yet
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(place)], env=ENVIRONMENT)
    seen, looks = set(), 0
    staying = Index.open(place)
    while writer.poll() is None:
        index = Index.open(place)
        (label,) = index.labels()
        (found,) = index.search(np.ones((1, 8)), 400)
        assert {match.label for match in found} == {label}
        assert {match.path for match in found} == {str(row) for row in range(300)}
        staying.refresh()
        assert len(staying.labels()) == 1
        seen.add(label)
        looks += 1
    assert writer.returncode == 0
    assert len(seen) > 3
    assert looks > 10
    assert {match.label for match in old.search(np.ones((1, 8)), 400)[0]} == {"first"}  # its files are gone by now
    np.testing.assert_array_equal(old.vectors(range(300)), first.vectors(range(300)))
    assert staying.refresh() in (True, False)
    assert not staying.refresh()
    assert list(staying.labels()) == ["59"]


def test_a_second_writer_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("randfeat.utils.resume.LOCK_TIMEOUT", 0.2)
    index = Index.build(tmp_path / "index", np.eye(4), "abcd")
    other = Index.open(tmp_path / "index")
    with index._writing():
        for act in (lambda: other.add(np.eye(4)[:1], ["e"]), lambda: other.remove([0]), other.compact):
            with pytest.raises(RuntimeError, match="another process is writing"):
                act()
        assert len(Index.open(tmp_path / "index")) == 4  # who reads need not wait
    other.remove([0])
    assert index.remove([1]) == 1  # sees what the other has done
    assert sorted(index.ids()) == [2, 3]


def test_two_writers_take_turns(tmp_path):
    Index.build(tmp_path / "index", np.eye(4), "abcd")
    indexes = [Index.open(tmp_path / "index") for _ in range(2)]

    def add(number):
        for turn in range(10):
            indexes[number].add(np.eye(4)[:1], [f"{number} {turn}"])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(Index.open(tmp_path / "index").ids()) == [*range(24)]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    index = Index.build(tmp_path / "index", np.eye(4), "abcd")
    for name in ("000007.faiss", "000007.parquet", ".meta.json.part"):
        (tmp_path / "index" / name).write_bytes(b"half")
    (tmp_path / "index" / "notes.txt").write_text("mine")
    index.remove([0])
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert names == {"000001.faiss", "000001.parquet", "000002.npy", "meta.json", "lock", "notes.txt"}


def test_an_index_whose_files_are_in_use_is_changed_all_the_same(tmp_path, monkeypatch):
    """Simulate Windows, where a mapped file cannot be removed."""
    index = Index.build(tmp_path / "index", np.eye(4), "abcd")

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "in use", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        index.add(np.eye(4)[:3], "efg")
        assert len(list((tmp_path / "index").glob("*.faiss"))) == 2
    assert len(Index.open(tmp_path / "index")) == 7
    index.remove([0])
    assert len(list((tmp_path / "index").glob("*.faiss"))) == 1


def test_a_failed_change_leaves_nothing(tmp_path, monkeypatch):
    index = Index.build(tmp_path / "index", np.eye(4), "abcd")
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(directory.rows, "write", full)
        with pytest.raises(OSError, match="No space left"):
            index.add(np.eye(4)[:2], "ef")
        with pytest.raises(OSError, match="No space left"):
            Index.build(tmp_path / "new", np.eye(4), "abcd")
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert len(index) == 4
    assert index.add(np.eye(4)[:2], "ef") == [4, 5]
