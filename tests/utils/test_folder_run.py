"""Runs that fill a folder: new, resumed, refused, complete."""

from __future__ import annotations

import numpy as np
import pytest

from randfeat.utils import atomic, resume
from randfeat.utils.folder_run import FolderRun

SETTINGS = {"format": "things", "size": 2, "name": "a"}


def run(folder, finished_by=None, **changes):
    return FolderRun(folder, SETTINGS | changes, "things", ("name",), finished_by, ("count",))


@pytest.mark.parametrize("finished_by", [None, "meta.json"])
def test_a_folder_is_begun_once_and_resumed_with_the_same_settings(tmp_path, finished_by):
    folder = tmp_path / "out"
    assert run(folder, finished_by).previous() is None
    assert run(folder, finished_by, size=np.int64(2)).begin() == SETTINGS
    resumed = run(folder, finished_by, name="b").begin()
    assert resumed["name"] == ("b" if finished_by is None else "a")
    assert resume.is_unfinished(folder) == (finished_by is not None)
    with pytest.raises(ValueError, match=r"out holds things with size 2, not 3: choose another directory"):
        run(folder, finished_by, size=3).begin()


@pytest.mark.parametrize("finished_by", [None, "meta.json"])
def test_what_is_not_ours_is_left_alone(tmp_path, finished_by):
    work = tmp_path if finished_by is None else tmp_path / "unfinished"
    work.mkdir(exist_ok=True)
    (work / ".settings.json.part").write_text("the rest of a kill")
    assert run(tmp_path, finished_by).begin() == SETTINGS
    (work / "settings.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"settings.json was expected to hold 'things', but it says no format"):
        run(tmp_path, finished_by).begin()
    (work / "settings.json").unlink()
    (work / "diary.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else: choose another directory"):
        run(tmp_path, finished_by).begin()


def test_a_store_is_complete_with_its_last_file(tmp_path, monkeypatch):
    monkeypatch.setattr("randfeat.utils.resume.LOCK_TIMEOUT", 0.1)
    store = run(tmp_path, "meta.json")
    assert store.begin(extra=1)["extra"] == 1
    with store.filling():
        with pytest.raises(RuntimeError, match="another process is filling"), run(tmp_path, "meta.json").filling():
            pass
        atomic.write_json(tmp_path / "meta.json", SETTINGS | {"count": 4})
    with pytest.raises(RuntimeError, match="another process has just filled"), run(tmp_path, "meta.json").filling():
        pass
    assert store.is_complete()
    store.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["meta.json"]
    with pytest.raises(ValueError, match="holds things with size 2, not 5"):
        run(tmp_path, "meta.json", size=5).is_complete()


def test_files_that_are_there_are_not_missing(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    paths[1].write_bytes(b"x")
    paths[2].write_bytes(b"")  # of a disk that was full
    assert run(tmp_path).missing(paths) == [0, 2, 3]
