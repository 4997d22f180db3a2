"""An extraction holds every image once, says what it left out, and is the same however it came to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from extraction import DAMAGED, KEPT, begun, made
from folders import contents
from readers import Means, Squares

from randfeat.features import extract as extracting
from randfeat.features.extract import extract
from randfeat.features.store import FeatureStore
from randfeat.utils import resume

HELPERS = str(Path(__file__).parents[1] / "helpers")  # for other processes


def test_it_holds_every_image_once(tmp_path):
    store = made(tmp_path / "deep" / "out")
    assert len(store) == len(KEPT)
    assert store.specs == ["number", "map"]
    assert store.as_numpy("number")[:, 0].tolist() == KEPT
    assert store.as_numpy("number").dtype == store.as_numpy("map").dtype == np.float32
    assert store.as_numpy("map").shape == (len(KEPT), 3, 2, 2)
    assert store.as_numpy("map")[:, 0, 1, 1].tolist() == KEPT
    assert store.paths == [f"folder/{number}.png" for number in KEPT]
    assert store.labels.tolist() == [number % 2 for number in KEPT]
    assert store.classes == ["even", "odd"]
    reasons = {0: "an empty file", 3: "truncated", 4: "an empty file", 5: "truncated", 12: "an empty file"}
    assert store.skipped == [(f"folder/{number}.png", reason) for number, reason in reasons.items()]
    assert extracting.reasons(store.skipped) == "3 an empty file, 2 truncated"
    assert (store.directory / "skipped.csv").read_text().splitlines()[:2] == [
        "path,reason",
        "folder/0.png,an empty file",
    ]
    store.verify()
    files = ["features-0.npy", "features-1.npy", "meta.json", "rows.parquet", "skipped.csv"]
    assert sorted(path.name for path in store.directory.iterdir()) == files
    meta = json.loads((store.directory / "meta.json").read_text())
    assert (meta["count"], meta["skipped"], meta["model"]) == (8, 5, "means")
    assert meta["encoder"]["preprocessing"] == "2 x 2"
    assert meta["source"]["images"] == 13


def test_many_reasons_are_summed_up():
    skipped = [("x", reason) for reason in "aaabbbbcddef"]
    assert extracting.reasons(skipped) == "4 b, 3 a, 2 d, 1 c, 1 e, 1 for other reasons"


@pytest.mark.parametrize("how", [dict(workers=2), dict(batch_size=64), dict(shard_size=None), dict(shard_size=1)])
def test_it_is_the_same_however_it_is_cut(tmp_path, undisturbed, how):
    made(tmp_path / "out", **how)
    assert contents(tmp_path / "out") == undisturbed


def test_without_labels_and_with_one_spec(tmp_path):
    store = made(tmp_path / "out", Squares(3, classes=None), ["number"])
    assert (store.directory / "features.npy").is_file()
    assert store.labels is None
    assert store.classes is None
    assert store.as_numpy()[:, 0].tolist() == [0, 1, 2]
    rows = list(store)
    assert [(path, label) for path, label, _ in rows] == [(f"folder/{number}.png", None) for number in range(3)]
    assert rows[2][2].tolist() == [2, -2, 4]


def test_a_shard_of_large_features_has_fewer_images():
    assert extracting.default_shard([(1024,)]) == 512
    assert extracting.default_shard([(1024, 16, 16)]) == 64
    assert extracting.default_shard([(1024, 16, 16), (1024, 16, 16)]) == 32
    assert extracting.default_shard([(1 << 30,)]) == 1


# going on ---------------------------------------------------------------------------------------------------

# runs an extraction in a process that ends before the n-th call of one of these, for each n
DYING = """
    import itertools, os, pathlib, sys
    sys.path.insert(0, {helpers!r})
    from pathlib import Path
    import readers
    from extraction import made
    from folders import contents
    from readers import Squares

    def make(directory):
        return made(directory, Squares(5, [0, 3]))

    def deadly(function, calls, last):
        def call(*arguments, **more):
            if next(calls) == last:
                os._exit(9)
            return function(*arguments, **more)
        return call

    def dies(directory, last):
        child = os.fork()
        if not child:
            calls = itertools.count()
            steps = (pathlib.Path, "mkdir"), (pathlib.Path, "replace"), (os, "fsync"), (readers.Means, "encode")
            for owner, name in (*steps, (os, "unlink"), (os, "rmdir")):  # the last two of shutil.rmtree
                setattr(owner, name, deadly(getattr(owner, name), calls, last))
            make(directory)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    root = Path({root!r})
    make(root)
    expected = contents(root)
    for last in itertools.count():
        directory = root.with_name(str(last))
        died = dies(directory, last)
        for name, content in contents(directory).items():
            whole = not name.split("/")[-1].startswith(".") and not name.startswith("unfinished")
            assert not whole or content == expected[name], name  # what has a name is whole
        if last % 3 == 0:
            dies(directory, 2)  # once more while it goes on
        make(directory)
        assert contents(directory) == expected, last
        if not died:
            break
    print(last)
"""


@pytest.mark.slow
def test_a_kill_at_every_step_is_mended_by_the_same_command(tmp_path):
    code = textwrap.dedent(DYING).format(helpers=HELPERS, root=str(tmp_path / "undisturbed"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert int(said.stdout) > 25  # steps at which it died


def test_what_is_done_is_kept(tmp_path, undisturbed):
    class Stopping(Means):
        def encode(self, batch):
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().encode(batch)

    out, source, how = tmp_path / "out", Squares(13, DAMAGED), dict(batch_size=2, workers=0, shard_size=3)
    with pytest.raises(KeyboardInterrupt):
        extract(Stopping(), source, out, **how)
    with pytest.raises(FileNotFoundError, match=r"extraction into .*out is unfinished: run the same command again"):
        FeatureStore.open(out)
    again = Means()
    extract(again, source, out, **(how | {"shard_size": 5}))  # the first run has decided
    assert again.seen == [0, 6, 7, 8, 9, 10, 11]  # a blank, the shard that had been begun, and those after it
    assert contents(out) == undisturbed
    once_more = Means()
    written = (out / "meta.json").stat().st_mtime_ns
    assert len(extract(once_more, source, out)) == len(KEPT)
    assert once_more.seen == []
    assert (out / "meta.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("source", "record", "field"),
    [
        (Squares(14, DAMAGED), {}, "source.images 13, not 14"),
        (Squares(13, (1,)), {}, "source.fingerprint [0-9a-f]{64}, not [0-9a-f]{64}"),
        (Squares(13, DAMAGED, ["odd", "even"]), {}, r"source.classes \['even', 'odd'\], not"),
        (None, {"weights": "some"}, "encoder.weights none, not some"),
        (None, {"preprocessing": "3 x 3"}, "encoder.preprocessing 2 x 2, not 3 x 3"),
        (None, {"label": 3}, "encoder.label None, not 3"),
    ],
)
def test_other_settings_need_another_directory(tmp_path, monkeypatch, source, record, field, finished):
    out = begun(tmp_path / "out", monkeypatch)
    if finished:
        made(out)
    before, record = contents(out), Means().record() | record
    monkeypatch.setattr(Means, "record", lambda self: record)
    with pytest.raises(ValueError, match=rf"out holds features with {field}.*: choose another directory") as error:
        made(out, source)
    assert "\n" not in str(error.value)
    assert contents(out) == before


def test_other_specs_need_another_directory(tmp_path):
    made(tmp_path / "out")
    with pytest.raises(ValueError, match=r"out holds features with specs \['number', 'map'\], not \['number'\]"):
        made(tmp_path / "out", specs=["number"])


def test_two_at_once_are_one_too_many(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(resume, "LOCK_TIMEOUT", 0.1)
    out, refused = tmp_path / "out", []

    class Interrupted(Means):
        """In the midst of its work somebody begins the same."""

        def encode(self, batch):
            if (out / "unfinished" / "lock").exists() and not refused:
                refused.append(True)
                with pytest.raises(RuntimeError, match=r"another process is filling .*out: wait until it has ended"):
                    made(out)
            return super().encode(batch)

    extract(Interrupted(), Squares(13, DAMAGED), out, batch_size=2, workers=0, shard_size=3)
    assert refused
    assert contents(out) == undisturbed


def test_what_is_not_ours_is_left_alone(tmp_path):
    for name in (
        "photos/me.jpg",
        "other/meta.json",
        "half/unfinished/thesis.tex",
        "lookalike/unfinished/settings.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "file").write_text("in the way")
    before = contents(tmp_path)
    for name in ("photos", "other", "half", "lookalike", "file"):
        with pytest.raises((FileExistsError, ValueError), match="choose another directory"):
            made(tmp_path / name)
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert len(made(tmp_path / "empty")) == len(KEPT)
