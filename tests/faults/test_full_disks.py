"""Disks that are full: every command that writes ends in one sentence, leaves nothing under a final name, and goes on
from what it had finished when there is room.

The system refuses files beyond a size: a real error of writing, at every stage as the size grows.
"""

import resource

import battery
import endings
import pytest
from test_commands import COMPLETE


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
    *slow("probe knn {store} -o {out}"),
    *slow(
        "pretrain --config digits_randar --data {cache} -o {out} --set training.steps=2 training.warmup=0 --samples 0"
    ),
]
SIZES = (0, 1500)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("full"))


@pytest.fixture(autouse=True)
def _cleared(place):
    yield
    endings.clear(place)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_sentence_and_no_loss(command, place, capsys):
    command.format_map(place)  # what it reads, made while there is room
    for size in SIZES:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            end = endings.end_of(command, place, capsys)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not end.escaped
        assert not endings.RAW.search(end.errors), end.errors
        left = endings.left_over(place["out"])
        if end.code == 0:  # its files are all smaller
            continue
        assert end.code == 1, (size, end)
        assert "room" in end.sentence, (size, end.sentence)
        assert end.errors.count("\nrandfeat") <= 1, (size, end.errors)
        assert not COMPLETE & {file.rsplit("/", 1)[-1] for file in left if not file.startswith("tokenizer/")}, left
    end = endings.end_of(command, place, capsys)
    assert end.code == 0, end
