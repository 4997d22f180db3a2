"""An extraction that goes wrong says so in a sentence, and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from extraction import DAMAGED, begun, made
from folders import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import Means, Squares

from randfeat.data import loader

HELPERS = str(Path(__file__).parents[1] / "helpers")  # for other processes


def test_no_image_at_all(tmp_path):
    with pytest.raises(ValueError, match="none of the 4 images of squares could be read: 2 an empty file, 2 truncated"):
        made(tmp_path / "out", Squares(4, range(4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(batch_size=0), "batch_size must be a whole number from 1, got 0"),
        (dict(batch_size=True), "batch_size must be a whole number from 1, got True"),
        (dict(workers=-1), "workers must be a whole number from 0, got -1"),
        (dict(specs=["map", "number", "map"]), "the feature map is asked for twice: once is enough"),
        (dict(shard_size=1.5), "shard_size must be a whole number from 1, got 1.5"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        made(tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())


class Failing(Squares):
    def read(self, i):
        if i == 7:
            raise KeyError("no such member")
        return super().read(i)


class Dying(Squares):
    def read(self, i):
        os._exit(3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_fails_is_one_sentence(tmp_path, workers):
    with pytest.raises(RuntimeError, match=r"^folder/7.png could not be read: KeyError: 'no such member'$"):
        made(tmp_path / "out", Failing(13, DAMAGED), workers=workers)


def test_a_worker_that_dies_is_one_sentence(tmp_path):
    with pytest.raises(RuntimeError, match=r"a process that decodes images has ended \(.*\): try fewer workers"):
        made(tmp_path / "out", Dying(13), workers=1)


# a worker kills the process that started it before it can have learnt whose child it is
ORPHANED = """
    import os, signal, sys, time
    sys.path.insert(0, {helpers!r})
    from randfeat.data import loader
    from randfeat.features.extract import extract
    from readers import Means, Squares

    def begin(number, begin=loader._begin_worker):
        started = os.getppid()
        os.kill(started, signal.SIGKILL)
        while os.getppid() == started:
            time.sleep(0.01)
        begin(number)

    loader._begin_worker = begin
    extract(Means(["number", "map"]), Squares(13), {out!r}, workers=1)
"""


def test_a_worker_that_is_an_orphan_from_the_start_ends(tmp_path):
    code = textwrap.dedent(ORPHANED).format(helpers=HELPERS, out=str(tmp_path / "out"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as run:
        try:
            assert run.communicate(timeout=30) == (b"", None)  # until nobody holds the pipe
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    made(tmp_path / "out", Squares(13))  # nobody holds the lock


def test_a_worker_is_silent_about_a_listener_that_has_gone_and_nothing_else(capsys):
    for error in (EOFError(), ConnectionResetError()):
        loader._excepthook(type(error), error, None)
    assert not capsys.readouterr().err
    loader._excepthook(ValueError, ValueError("something else"), None)
    assert "something else" in capsys.readouterr().err


def test_features_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    encode = Means.encode

    def broken(self, batch):
        number, dense = encode(self, batch)
        number[number[:, 0] == 8] = np.nan
        return [number, dense]

    monkeypatch.setattr(Means, "encode", broken)
    with pytest.raises(ValueError, match=r"the features of folder/8.png are not finite"):
        made(tmp_path / "out")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, undisturbed):
    out, calls = tmp_path / "out", []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            made(out)
    assert sorted(contents(out)) == [f"unfinished/{name}" for name in
                                     ("000000.safetensors", "000001.safetensors", "lock", "settings.json")]  # fmt: skip
    made(out)
    assert contents(out) == undisturbed


def test_a_shard_that_was_damaged_is_named(tmp_path, monkeypatch, undisturbed):
    out = begun(tmp_path / "out", monkeypatch)
    shard = out / "unfinished" / "000002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"000002.safetensors cannot be read \(.*\): delete it and run the same"):
        made(out)
    shard.unlink()
    made(out)
    assert contents(out) == undisturbed


@given(
    count=st.integers(1, 40),
    damaged=st.sets(st.integers(0, 39)),
    batch_size=st.integers(1, 9),
    shard_size=st.integers(1, 50),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_images_any_cut(tmp_path_factory, count, damaged, batch_size, shard_size):
    directory, source = tmp_path_factory.mktemp("any") / "out", Squares(count, damaged)
    kept = [number for number in range(count) if number not in damaged]
    if not kept:
        with pytest.raises(ValueError, match="none of the"):
            made(directory, source, batch_size=batch_size, shard_size=shard_size)
        return
    store = made(directory, source, batch_size=batch_size, shard_size=shard_size)
    store.verify()
    assert store.as_numpy("number")[:, 0].tolist() == kept
    assert store.paths == [source.paths[number] for number in kept]
    assert store.labels.tolist() == [source.labels[number] for number in kept]
    assert [path for path, _ in store.skipped] == [source.paths[n] for n in sorted(damaged) if n < count]
