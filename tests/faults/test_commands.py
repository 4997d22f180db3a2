"""Bad inputs of every command, from a table: each ends in one sentence and the exit code of the table, with no word of
Python's, nothing under a final name, and what was there before as it was.

The list of all with what they say is written to $RANDFEAT_FAULTS, by default to pytest's own folder.
"""

import csv
import os
import warnings
from pathlib import Path

import battery
import endings
import pytest

TABLE = Path(__file__).with_name("commands.tsv")
with TABLE.open(encoding="utf-8", newline="") as _file:
    ROWS = [(int(code), command, words) for code, command, words in csv.reader(_file, delimiter="\t")]
COMPLETE = {"meta.json", "table.md", "quality.json", "answers.csv", "grid.png", "sheet.png", "model.safetensors"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("battery"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The list of all commands that were run, with their exit codes and sentences."""
    told = []
    yield told
    path = Path(os.environ.get("RANDFEAT_FAULTS", tmp_path_factory.getbasetemp() / "faults.md"))
    lines = [f"| {code} | `{command}` | {sentence} |" for code, command, sentence in told]
    path.write_text("\n".join(["| exit code | command | says |", "|---|---|---|", *lines]) + "\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("code", "command", "words"), ROWS, ids=[command for _, command, _ in ROWS])
def test_it_ends_in_a_sentence(code, command, words, place, outcomes, capsys):
    kept = {name: contents(place[name]) for name in ("foreign", "samples", "index") if f"{{{name}}}" in command}
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # of libraries; those of ours are lines on standard error
        end = endings.end_of(command, place, capsys)
    outcomes.append((end.code, command, end.sentence.replace(str(place.root), "")))
    assert not end.escaped
    assert end.code == code
    if code == 3:
        assert words in end.printed + end.errors
        return
    assert words in end.sentence
    assert end.sentence.startswith("randfeat")
    assert not endings.RAW.search(end.errors), end.errors
    left = endings.left_over(place["out"])
    assert not COMPLETE & {Path(file).name for file in left if not file.startswith(("stores/", "tokenizer/"))}, left
    assert all(contents(place[name]) == before for name, before in kept.items())


@pytest.fixture(autouse=True)
def _cleared(place):
    yield
    endings.clear(place)


def test_the_table_asks_for_every_command():
    from randfeat.cli import COMMANDS

    assert {command.split()[0] for _, command, _ in ROWS} >= {*COMMANDS}
    assert len({command for _, command, _ in ROWS}) == len(ROWS) > 300
