"""`randfeat tokenize` from the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import damaged
import numpy as np
import pytest
from folders import contents
from PIL import Image
from pipelines import make_sampler

from randfeat import cli
from randfeat.data.token_store import TokenStore
from randfeat.weights import zoo

FAST = ["--workers", "0", "--device", "cpu"]
SMALL_SHARDS = """
import sys
from randfeat import cli
from randfeat.pretrain import tokenize

tokenize.SHARD = 8
if __name__ == "__main__":
    sys.exit(cli.main())
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "photos"
    for number in range(40):
        path = root / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(8, 12, seed=number)).save(path)
    return root


def tokenize(*words):
    return cli.main(["tokenize", *map(str, words), *FAST])


def test_a_folder_becomes_a_cache_with_a_tokenizer_of_its_own(photos, tmp_path, capsys):
    command = [photos, "-o", tmp_path / "out", "--tokenizer", "patch", "--size", 8, "--patch", 2, "--vocab", 16]
    assert tokenize(*command) == 0
    assert "40 images x 2 crops of 4 x 4 tokens" in capsys.readouterr().out
    store = TokenStore.open(tmp_path / "out")
    assert store.classes == ["cat", "dog"]
    assert len(np.unique(store.tokens)) == store.vocab_size == 16
    before = contents(tmp_path / "out")
    assert tokenize(*command) == 0
    assert contents(tmp_path / "out") == before


def test_a_models_tokenizer_reads_at_its_size(photos, tmp_path):
    make_sampler().save(tmp_path / "model")
    for crops, count in (("centre", 1), ("ten", 20), ("random", 5)):
        more = ["--tokenizer", tmp_path / "model", "--crops", crops]
        assert tokenize(photos, "-o", tmp_path / crops, *more) == 0
        store = TokenStore.open(tmp_path / crops)
        assert (store.grid, store.crops) == ((2, 3), count)
    assert tokenize(photos, "-o", tmp_path / "large", "--tokenizer", tmp_path / "model", "--size", 8, 6) == 0
    assert TokenStore.open(tmp_path / "large").grid == (4, 3)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_tokenizer_of_the_package_reads_at_its_models_size(photos, tmp_path, name):
    assert tokenize(photos, "-o", tmp_path / "out", "--tokenizer", name) == 0
    assert TokenStore.open(tmp_path / "out").grid == (7, 7)


def test_two_processes_make_the_same(photos, tmp_path):
    (photos / "cat" / "broken.png").write_bytes(b"")
    try:
        make_sampler().save(tmp_path / "model")
        words = ["tokenize", str(photos), "--tokenizer", str(tmp_path / "model"), *FAST]
        assert cli.main([*words, "-o", str(tmp_path / "one")]) == 3  # one was skipped
        (tmp_path / "run.py").write_text(SMALL_SHARDS)
        command = [*TORCHRUN, str(tmp_path / "run.py"), *words, "-o", str(tmp_path / "two")]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    finally:
        (photos / "cat" / "broken.png").unlink()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_tokens_of_others(tmp_path, capsys):
    for number in range(4):
        path = tmp_path / "tree" / str(number % 2) / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((2, 9), number))
    assert tokenize("--import", tmp_path / "tree", "-o", tmp_path / "out", "--vocab", 4) == 0
    assert TokenStore.open(tmp_path / "out").tokens[:, 0, 0].tolist() == [0, 2, 1, 3]
    capsys.readouterr()
    for words, message in (
        (["--import", tmp_path / "tree"], "these tokens need their tokenizer: give --tokenizer T"),
        ([tmp_path / "tree", "--tokenizer", "patch"], "holds tokens already: give --import"),
        (["--import", tmp_path / "tree", "--vocab", 3], "of a vocabulary of 3"),
    ):
        assert tokenize(*words, "-o", tmp_path / "wrong") == 1
        said = capsys.readouterr().err
        assert message in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--tokenizer is missing: give a short name"),
        (["--tokenizer", "patch", "--size", "9"], "--size 9 x 9 is no multiple of --patch 4"),
        (
            ["--tokenizer", "patch", "--size", "8", "8", "8"],
            "--size is one number of pixels from 1",
        ),
        (["--tokenizer", "nothing"], "'nothing' is no path here"),
        (["--tokenizer", "patch", "--crops", "ten", "--crop-ranges", "0.5"], "ranges of ten-crops"),
        (
            ["--tokenizer", "{model}", "--patch", "2"],
            "--patch, --vocab, --channels and --range are for --tokenizer patch",
        ),
        (["--tokenizer", "patch", "--import"], "holds images: leave --import out"),
        (["--tokenizer", "patches", "--patch", "2"], "did you mean patch, k-means over these images?"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(photos, tmp_path, capsys, more, message):
    make_sampler().save(tmp_path / "model")
    assert tokenize(photos, "-o", tmp_path / "out", *(word.format(model=tmp_path / "model") for word in more)) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "out").exists()
