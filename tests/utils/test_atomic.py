"""A writer that dies at any moment leaves the old or the new, whole."""

from __future__ import annotations

import os
import pathlib

import pytest

from randfeat.utils import atomic


class Killed(BaseException):
    """Stands for a kill: nothing that runs on an exception in the block may repair what it left."""


def holds(name):
    return lambda directory: (directory / name).is_file()


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "deep" / "model"
    for number in range(3):
        with atomic.replace_directory(target, holds("file")) as made:
            (made / "file").write_text(str(number))
        assert (target / "file").read_text() == str(number)
        assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_an_error_inside_leaves_everything_as_it_was(tmp_path):
    def fill():
        with atomic.replace_directory(tmp_path / "model", holds("half")) as made:
            (made / "half").write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_between_the_renames_leaves_a_whole_directory(tmp_path, monkeypatch, renames):
    target = tmp_path / "model"
    with atomic.replace_directory(target, holds("file")) as made:
        (made / "file").write_text("old")
    done, rename = [], pathlib.Path.rename

    def dying(self, other):
        if len(done) == renames:
            raise Killed
        done.append(self)
        return rename(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", dying)
        with pytest.raises(Killed), atomic.replace_directory(target, holds("file")) as made:
            (made / "file").write_text("new")
    assert (atomic.recover(target) / "file").read_text() == "old"
    with atomic.replace_directory(target, holds("file")) as made:
        (made / "file").write_text("newer")
    assert (atomic.recover(target) / "file").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    atomic.write_bytes(path, b"old")

    def full(descriptor):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [inside.name for inside in tmp_path.iterdir()] == ["report.json"]
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_is_not_ours_is_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for target in (precious, taken):
        with (
            pytest.raises(FileExistsError, match="choose another name"),
            atomic.replace_directory(target, holds("config.json")),
        ):
            pass
    assert (precious / "thesis.tex").read_text() == "years"
    assert taken.read_text() == "a file"
    empty = tmp_path / "empty"
    empty.mkdir()
    with atomic.replace_directory(empty, holds("config.json")) as made:
        (made / "config.json").write_text("{}")
    link = tmp_path / "link"
    link.symlink_to(empty)
    with atomic.replace_directory(link, holds("config.json")) as made:
        (made / "config.json").write_text("[]")
    assert link.is_symlink()
    assert (empty / "config.json").read_text() == "[]"
