"""Two writers at once: the second is told so in one sentence, nobody's work is mixed with another's, and a kill leaves
no lock behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import battery
import endings
import pytest

from randfeat.features.store import FeatureStore
from randfeat.index.directory import Directory
from randfeat.utils import atomic
from randfeat.utils.folder_run import FolderRun
from randfeat.utils.resume import sole_writer

COMMANDS = [
    "extract {model} {photos} -o {out} --workers 0",
    "tokenize {photos} -o {out} --tokenizer {model}/tokenizer --size 4 6 --workers 0",
    "sample {model} -o {out} --count 2",
    "inpaint {model} {picture} -o {out} --box 0 0 4 4 --samples 1",
    "vary {model} {picture} -o {out} --samples 1",
    "probe knn {store} -o {out}",
    "probe all {model} {photos} -o {out}",
    "pretrain --config digits_randar --data {cache} -o {out}",
    "tokenizer train {photos} -o {out} --config tokenizer_tiny",
    "tokenizer evaluate {model}/tokenizer {photos} -o {out}",
    "export {model} -o {out}.pt2",
    "map {store} -o {out}.html",
    "map {store} -o {out} --format projector",
    "classify {model} {photos} -o {out}.csv",
    "surprise {model} {photos} -o {out}",
    "make digits -o {out}",
    "demo -o {out}",
]
INDEX = ["index build {out} {store}", "index build {out} {photos} --model {model} --workers 0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("two"))


@pytest.fixture(autouse=True)
def _quick(place, monkeypatch):
    monkeypatch.setattr("randfeat.utils.resume.LOCK_TIMEOUT", 0.01)
    yield
    endings.clear(place)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_writer_of_an_output_is_refused(command, place, capsys):
    out = Path(command.format_map(place).split(" -o ")[1].split(" ")[0])
    with sole_writer(out):
        end = endings.end_of(command, place, capsys)
    assert (end.code, end.escaped) == (1, "")
    assert f"another process is writing {out}: wait until it has ended, or choose another place" in end.sentence
    assert end.errors.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("command", INDEX)
def test_the_second_writer_of_an_index_is_refused(command, place, capsys):
    command.format_map(place)  # what it reads is made
    with Directory(place["out"]).exclusive():
        end = endings.end_of(command, place, capsys)
    assert (end.code, end.escaped) == (1, "")
    assert f"another process is writing {place['out']}: wait until it has ended" in end.sentence


HOLDER = """
    import os, sys, time
    from randfeat import cli
    from randfeat.features import extract

    def wait(self, *content):
        print("writing", flush=True)
        time.sleep(600)

    extract.Shards.write = wait
    cli.main(sys.argv[1:])
"""


def test_a_killed_writer_leaves_no_lock(place, capsys):
    """A first process is in the middle of an extraction: a second is refused, and one after its kill goes on."""
    command = "extract {model} {photos} -o {out} --workers 0"
    words = [sys.executable, "-c", textwrap.dedent(HOLDER), *command.format_map(place).split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        try:
            assert first.stdout.readline() == b"writing\n"
            end = endings.end_of(command, place, capsys)
            assert (end.code, end.errors.count("\n")) == (1, 1)
            assert "another process is writing" in end.sentence
        finally:
            first.kill()
    end = endings.end_of(command, place, capsys)
    assert end.code == 0, end
    assert len(FeatureStore.open(place["out"])) == 12
    assert not [path.name for path in place.root.glob(".out*")]


# the lock ------------------------------------------------------------------------------------------------------------


def test_one_output_by_two_names_is_one(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with sole_writer(tmp_path / "folder" / "out"):
        with pytest.raises(RuntimeError, match="another process is writing"), sole_writer(tmp_path / "link" / "out"):
            pass
        with sole_writer(tmp_path / "link" / "other"):
            pass
    assert not [*(tmp_path / "folder").iterdir()]


def test_folders_above_an_output_that_came_to_nothing_are_not_left(tmp_path):
    with pytest.raises(ValueError, match="wrong"), sole_writer(tmp_path / "a" / "b" / "out"):
        raise ValueError("wrong")
    assert not [*tmp_path.iterdir()]
    with sole_writer(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "b" / "out").write_text("made")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]


def test_where_no_lock_can_be_the_command_says_why(tmp_path):
    (tmp_path / "file").touch()
    with sole_writer(tmp_path / "file" / "out"):
        pass


def test_of_torchruns_processes_one_holds_the_lock(place, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with sole_writer(place["out"]):
        end = endings.end_of("sample {model} -o {out} --count 1", place, capsys)
    assert end.code == 0, end


def test_a_folder_that_grows_has_one_writer(tmp_path):
    runs = [FolderRun(tmp_path, {"format": "f"}, "samples") for _ in range(2)]
    for run in runs:
        run.begin()
    with runs[0].filling(), pytest.raises(RuntimeError, match=r"another process is filling .*: wait"):
        runs[1].filling().__enter__()
    with runs[1].filling():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


# files ---------------------------------------------------------------------------------------------------------------


def test_the_last_of_two_writers_of_a_file_wins_whole(tmp_path):
    path, second = tmp_path / "file", b"second" * 1000
    thread = threading.Thread(target=lambda: atomic.write_bytes(path, second))
    with atomic.open_write(path) as file:
        file.write(b"first" * 10)
        file.flush()
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # it waits, and does not write into what the first one has
        assert not path.exists()
        file.write(b"first" * 10000)
    thread.join()
    assert path.read_bytes() == second
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_writer_that_fails_lets_the_next_one_write(tmp_path):
    path = tmp_path / "file"
    thread = threading.Thread(target=lambda: atomic.write_bytes(path, b"second"))

    def fail():
        with atomic.open_write(path) as file:
            file.write(b"first")
            thread.start()
            thread.join(0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    thread.join()
    assert path.read_bytes() == b"second"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_taken_over(tmp_path):
    path = tmp_path / "file"
    code = """
        import os, signal, sys
        from pathlib import Path
        from randfeat.utils import atomic
        with atomic.open_write(Path(sys.argv[1])) as file:
            file.write(b"long" * 100_000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], env=os.environ)
    assert child.returncode == -signal.SIGKILL
    assert [one.name for one in tmp_path.iterdir()] == [".file.part"]
    atomic.write_bytes(path, b"short")
    assert path.read_bytes() == b"short"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_the_last_of_two_writers_of_a_directory_wins_whole(tmp_path, monkeypatch):
    """The first one has moved the old directory aside when the second one puts its own into its place."""
    target, rename = tmp_path / "folder", Path.rename

    def write(*names: str) -> None:
        with atomic.replace_directory(target, lambda _: True) as made:
            for name in names:
                (made / name).write_text(name)

    def interrupted(path: Path, other: Path) -> Path:
        renamed = rename(path, other)
        if path == target:
            monkeypatch.setattr(Path, "rename", rename)
            write("second")
        return renamed

    write("old")
    monkeypatch.setattr(Path, "rename", interrupted)
    write("first", "too")
    assert {path.name for path in target.iterdir()} == {"first", "too"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
