"""Tokens on disk: written in any order, by any number of processes, whole or unfinished."""

from __future__ import annotations

import itertools
import json
import pickle

import numpy as np
import pytest
from folders import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from randfeat.data.token_store import UNKNOWN, TokenStore, TokenWriter, dtype_of

GRID, CROPS = (2, 3), 2


def writer(directory, rows=5, vocab_size=9, labels=True, **other):
    how = dict(tokenizer="abc", grid=GRID, vocab_size=vocab_size, crops=CROPS, classes=["cat", "dog"]) | other
    return TokenWriter(
        directory, [f"{row}.png" for row in range(rows)], [0, 1, None, 0, 1][:rows] if labels else None, **how
    )


def tokens(rows, vocab_size=9):
    return np.random.default_rng(0).integers(0, vocab_size, (rows, CROPS, GRID[0] * GRID[1]))


def sizes(rows):
    return np.arange(1, 2 * rows + 1).reshape(rows, 2)


def filled(directory, rows=5, **other):
    made = writer(directory, rows, **other)
    made.write(0, tokens(rows, made.vocab_size), sizes(rows))
    return made


@pytest.mark.parametrize(("vocab_size", "dtype"), [(9, np.uint16), (1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_what_was_written_comes_back(tmp_path, vocab_size, dtype):
    store = filled(tmp_path / "out", vocab_size=vocab_size).finish()
    assert store.tokens.dtype == dtype == dtype_of(vocab_size)
    assert (store.tokens == tokens(5, vocab_size)).all()
    assert isinstance(store.tokens, np.memmap)
    assert len(store) == 5
    assert (store.tokenizer, store.grid, store.vocab_size, store.crops) == ("abc", GRID, vocab_size, CROPS)
    assert store.paths == [f"{row}.png" for row in range(5)]
    assert store.labels == [0, 1, None, 0, 1]
    assert store.classes == ["cat", "dog"]
    assert store.table["width"].to_pylist() == sizes(5)[:, 0].tolist()
    assert store.table["height"].to_pylist() == sizes(5)[:, 1].tolist()
    store.verify()
    assert len(pickle.dumps(store)) < 2000  # other processes map the files themselves
    assert (pickle.loads(pickle.dumps(store)).tokens == store.tokens).all()
    assert sorted(path.name for path in store.directory.iterdir()) == [
        "meta.json",
        "rows.parquet",
        "skipped.csv",
        "tokens.npy",
    ]


def test_what_could_not_be_read_is_left_out(tmp_path):
    made = writer(tmp_path / "out", labels=False)
    for row in (4, 0, 2):
        made.write(row, tokens(5)[row : row + 1], sizes(5)[row : row + 1])
    assert made.missing().tolist() == [1, 3]
    with pytest.raises(ValueError, match="1 of 5 rows are not written, 3 for one"):
        made.finish({1: "truncated"})
    store = made.finish({1: "truncated", 3: "an empty file"})
    assert (store.tokens == tokens(5)[[0, 2, 4]]).all()
    assert store.paths == ["0.png", "2.png", "4.png"]
    assert store.labels is None
    assert (store.directory / "skipped.csv").read_text() == "path,reason\n1.png,truncated\n3.png,an empty file\n"
    with pytest.raises(ValueError, match="no image could be read"):
        writer(tmp_path / "none", 2).finish({0: "truncated", 1: "truncated"})


@given(cuts=st.lists(st.integers(0, 5), max_size=4), seed=st.integers(0, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_it_is_the_same_in_whatever_order_it_is_written(tmp_path_factory, cuts, seed):
    """Each piece by a writer of its own, as if every process before had been killed."""
    root = tmp_path_factory.mktemp("any")
    ends = sorted({0, *cuts, 5})
    pieces = list(itertools.pairwise(ends))
    np.random.default_rng(seed).shuffle(pieces)
    for start, end in pieces:
        writer(root / "pieces").write(start, tokens(5)[start:end], sizes(5)[start:end])
    made = writer(root / "pieces")
    assert not len(made.missing())
    made.finish()
    filled(root / "at_once").finish()
    assert contents(root / "pieces") == contents(root / "at_once")


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (dict(tokenizer="def"), "tokenizer abc, not def"),
        (dict(grid=(3, 2)), r"grid \[2, 3\], not \[3, 2\]"),
        (dict(crops=1), "crops 2, not 1"),
        (dict(vocab_size=10), "vocab_size 9, not 10"),
        (dict(rows=4), "rows [0-9a-f]{64}, not"),
        (dict(labels=False), "rows [0-9a-f]{64}, not"),
        (dict(more={"crop range": 1.1}), "more.crop range None, not 1.1"),
    ],
)
def test_other_settings_need_another_directory(tmp_path, other, field):
    writer(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"out holds tokens with {field}.*: choose another directory"):
        writer(tmp_path / "out", **other)
    assert contents(tmp_path) == before


def test_what_is_not_ours_or_not_whole_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("{}")
    with pytest.raises(FileExistsError, match="holds something else: choose another directory"):
        writer(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match=r"photos is no token store: it has no meta.json"):
        TokenStore.open(tmp_path / "photos")
    made = filled(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"the tokens in .*out are unfinished: run the same command again"):
        TokenStore.open(tmp_path / "out")
    made.finish()
    before = contents(tmp_path)
    again = writer(tmp_path / "out")
    assert again.complete
    assert len(again.missing()) == 0
    with pytest.raises(ValueError, match=r"out holds tokens with vocab_size 9, not 10: choose another directory"):
        writer(tmp_path / "out", vocab_size=10)
    assert contents(tmp_path) == before


def test_a_size_may_be_unknown(tmp_path):
    made = writer(tmp_path / "out", 2)
    made.write(0, tokens(2), np.array([[UNKNOWN, UNKNOWN], [3, 4]]))
    table = made.finish().table
    assert table["width"].to_pylist() == [None, 3]
    assert table["height"].to_pylist() == [None, 4]


@pytest.mark.parametrize(
    ("start", "wrong", "message"),
    [
        (0, tokens(2)[:, :1], r"tokens \(2, 1, 6\) and sizes \(2, 2\), expected \(rows, 2, 6\) and \(rows, 2\)"),
        (4, tokens(2), r"rows 4 to 5 are outside 0\.\.4"),
        (-1, tokens(2), r"rows -1 to 0 are outside 0\.\.4"),
        (0, tokens(2) + 9, r"tokens lie in 0\.\.8 and sizes from 1"),
        (0, tokens(2) - 9, r"tokens lie in 0\.\.8 and sizes from 1"),
    ],
)
def test_wrong_tokens_are_refused(tmp_path, start, wrong, message):
    made = writer(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        made.write(start, wrong, sizes(2))
    with pytest.raises(ValueError, match="sizes from 1"):
        made.write(0, tokens(2), sizes(2) - 1)
    assert contents(tmp_path) == before


def test_verify_finds_what_was_changed(tmp_path):
    store = filled(tmp_path / "out").finish()
    path = store.directory / "tokens.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"tokens.npy .* damaged"):
        TokenStore.open(store.directory)
    path.write_bytes(content[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"tokens.npy is missing or not what was written"):
        TokenStore.open(store.directory).verify()
    meta = json.loads((store.directory / "meta.json").read_text())
    assert list(meta["files"]) == ["tokens.npy", "rows.parquet", "skipped.csv"]
    path.write_bytes(content)
    smaller = TokenStore(store.directory, meta | {"vocab_size": 5})
    with pytest.raises(ValueError, match=r"tokens.npy holds 8 of a vocabulary of 5"):
        smaller.verify()
