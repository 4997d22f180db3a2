"""Lines of commands: files that are left out, where something was written, what takes long."""

from __future__ import annotations

import json
import time

import pytest
from folders import fill
from readers import Means

from randfeat import Index, cli
from randfeat.data.sources import open_source
from randfeat.data.sources.folder import RAW, find_images
from randfeat.features.extract import extract
from randfeat.index import images
from randfeat.utils import progress

ENCODER = Means(["number"])
GREY = ["a.png", "b.png", "c.png", "d.png"]


# an index of a store ------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Features of four pictures, beside a broken link and a damaged file."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", *GREY)
    (tmp_path / "photos/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "photos/bad.png").write_bytes(b"no picture at all")
    return extract(ENCODER, open_source("photos"), tmp_path / "store", workers=0)


def test_a_broken_link_has_an_absolute_path(store, tmp_path):
    index = images.build_from_store(tmp_path / "index", store)
    assert [path for path, *_ in index.skipped] == [str(tmp_path / "photos" / name) for name in ("bad.png", "gone.png")]
    (tmp_path / "photos/gone.png").unlink()
    images.sync(index, open_source("photos"), ENCODER, workers=0)
    assert [path for path, *_ in index.skipped] == [str(tmp_path / "photos/bad.png")]


def test_an_image_that_is_gone_has_an_absolute_path_and_is_dropped(store, tmp_path):
    (tmp_path / "photos/a.png").unlink()
    index = images.build_from_store(tmp_path / "index", store)
    assert index.find([str(tmp_path / "photos/a.png")]) != [None]
    changes = images.sync(index, open_source("photos"), ENCODER, workers=0)
    assert (changes.removed, changes.unchanged) == (1, 3)


def test_files_that_are_known_to_be_unreadable_are_told_each_time(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Index, "encoder", lambda *of, **the: ENCODER)
    assert cli.main(["index", "build", "index", "store"]) == 3
    assert "2 skipped, since they cannot be read" in capsys.readouterr().out
    for action in ("sync", "add"):
        assert cli.main(["index", action, "index", "photos"]) == 3
        said = capsys.readouterr().out
        assert "4 unchanged" in said
        assert "2 skipped, since they cannot be read" in said
        assert f"{tmp_path}/photos/bad.png: text, no picture" in said
    for name in ("bad.png", "gone.png"):
        (tmp_path / "photos" / name).unlink()
    assert cli.main(["index", "sync", "index", "photos"]) == 0


# raw files of cameras -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(RAW))
def test_raw_files_are_counted(suffix, tmp_path):
    fill(tmp_path, "cat/a.png", "dog/b.png")
    for name in (f"cat/1{suffix}", f"dog/2{suffix.upper()}"):
        (tmp_path / name).write_bytes(b"of a sensor")
    message = rf"^2 raw files of cameras in .* are left out, such as cat/1\{suffix}: export them"
    with pytest.warns(UserWarning, match=message):
        assert open_source(tmp_path).paths == ["cat/a.png", "dog/b.png"]
    with pytest.warns(UserWarning, match=message):
        assert [path.name for path in find_images([tmp_path])] == ["a.png", "b.png"]


def test_a_folder_of_raw_files_alone_says_so(tmp_path):
    (tmp_path / "1.CR2").write_bytes(b"of a sensor")
    with pytest.warns(UserWarning, match=r"1 raw files"), pytest.raises(ValueError, match="holds no images"):
        open_source(tmp_path)


def test_a_command_says_it_once(tmp_path, capsys):
    fill(tmp_path / "photos", *GREY)
    (tmp_path / "photos/1.NEF").write_bytes(b"of a sensor")
    words = ["tokenize", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--tokenizer", "patch"]
    assert cli.main([*words, "--size", "4", "--patch", "2", "--vocab", "4", "--workers", "0", "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count("1 raw files of cameras") == 1


# where and how long -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["duplicates", "index", "--threshold", "0.5", "--format", "json"], ["select", "index", "--count", "2"]]
)
def test_what_was_written_is_told(words, store, tmp_path, capsys):
    images.build_from_store(tmp_path / "index", store)
    assert cli.main(["index", *words, "-o", "made/found.txt"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("written to made/found.txt\n")
    assert (tmp_path / "made/found.txt").read_text().strip()
    if "json" in words:
        json.loads((tmp_path / "made/found.txt").read_text())


def test_the_help_of_pretrain_names_a_learned_tokenizer(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "or learned: a network that is trained on them first" in said


def test_a_call_that_takes_long_tells_it(capsys):
    with progress.waiting("fitting", every=0.01):
        end = time.monotonic() + 10
        while "fitting: 0 s so far" not in capsys.readouterr().err and time.monotonic() < end:
            time.sleep(0.005)
        assert time.monotonic() < end
    capsys.readouterr()
    time.sleep(0.03)
    assert capsys.readouterr().err == ""
