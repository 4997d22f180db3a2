"""Disks that are full: every command that writes ends in one sentence, leaves nothing under a final name, and goes on
from what it had finished when there is room.

The system refuses files beyond a size: a real error of writing, at every stage as the size grows.
"""

import resource
import shutil
from contextlib import contextmanager

import battery
import endings
import numpy as np
import pytest
from test_commands import COMPLETE

from randfeat import Index


def slow(command):
    return [pytest.param(command, marks=pytest.mark.slow)]


COMMANDS = [
    "extract {model} {photos} -o {out} --workers 0",
    "tokenize {photos} -o {out} --tokenizer {model}/tokenizer --size 4 6 --workers 0",
    "index build {out} {store}",
    "index build {out} {photos} --model {model} --workers 0",
    "sample {model} -o {out} --count 2",
    "inpaint {model} {picture} -o {out} --box 0 0 4 4 --samples 1",
    "vary {model} {picture} -o {out} --samples 1",
    "map {store} -o {out}.png",
    *slow("export {model} -o {out}.pt2"),
    *slow("export {model} -o {out}.onnx"),
    *slow(
        "tokenizer train {photos} -o {out} --config tokenizer_tiny --size 8 --workers 0 --set training.steps=2 "
        "training.warmup=0 training.batch_size=4 training.eval_every=1 running.save_every=1 quantizer.vocab_size=16"
    ),
    *slow("probe knn {store} -o {out}"),
    *slow(
        "pretrain --config digits_randar --data {cache} -o {out} --set training.steps=2 training.warmup=0 --samples 0"
    ),
]
SIZES = (0, 1500)
CHANGES = ["index sync {out} {photos} --workers 0", "index add {out} {photos} --workers 0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("full"))


@pytest.fixture(autouse=True)
def _cleared(place):
    yield
    endings.clear(place)


@contextmanager
def room(size):
    """Let no file grow beyond so many bytes in the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_sentence_and_no_loss(command, place, capsys):
    command.format_map(place)  # what it reads, made while there is room
    for size in SIZES:
        with room(size):
            end = endings.end_of(command, place, capsys)
        assert not end.escaped
        assert not endings.RAW.search(end.errors), end.errors
        left = [file for out in place.root.glob("out*") for file in endings.left_over(out)]
        if end.code == 0:  # its files are all smaller
            continue
        assert end.code == 1, (size, end)
        assert "room" in end.sentence, (size, end.sentence)
        assert end.errors.count("\nrandfeat") <= 1, (size, end.errors)
        assert not COMPLETE & {file.rsplit("/", 1)[-1] for file in left if not file.startswith("tokenizer/")}, left
    end = endings.end_of(command, place, capsys)
    assert end.code == 0, end


def held(index):
    return [(row.id, row.path, row.label) for row in index.rows(index.ids())]


@pytest.mark.parametrize("command", CHANGES)
def test_a_full_disk_leaves_an_index_as_it_was(command, place, capsys):
    command.format_map(place)
    few = place.root / "out-few"  # an index of a third of the pictures
    shutil.copytree(place["photos"] / "cat", few / "cat")
    battery.made("index", "build", place["out"], few, "--model", place["model"], "--workers", "0")
    before = Index.open(place["out"])
    rows, bank = held(before), before.vectors(before.ids())
    refused = 0
    for size in (0, 100, 300, 1500, 2500):
        with room(size):
            end = endings.end_of(command, place, capsys)
        assert not end.escaped
        assert not endings.RAW.search(end.errors), end.errors
        if end.code == 0:
            break
        refused += 1
        assert (end.code, end.errors.count("\nrandfeat")) == (1, 0 if end.errors.startswith("randfeat") else 1), end
        assert "room" in end.sentence, (size, end.sentence)
        there = Index.open(place["out"])
        there.verify()
        assert held(there) == rows
        np.testing.assert_array_equal(there.vectors(there.ids()), bank)
    assert refused > 1
    end = endings.end_of(command, place, capsys)
    assert end.code == 0, end
    assert len(Index.open(place["out"])) == 4 + 12
