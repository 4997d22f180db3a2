"""Images to tokens: every crop of each once, and gone on with after a stop."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import PurePath

import bands
import numpy as np
import pytest
import torch
from crops import DEEP, RULES, SIZE, VALUE_RULES
from folders import contents
from PIL import Image
from randfeat.pretrain import (
    CentreCrops,
    fit_patches,
    import_tokens,
    tokenize_images,
)
from readers import Squares

from randfeat import load_tokenizer, weights
from randfeat.data.errors import UnfitImage
from randfeat.data.sources import open_source
from randfeat.data.token_store import TokenStore, TokenWriter
from randfeat.tokenizers import PatchTokenizer


class Noises(Squares):
    """Pictures that differ in size and everywhere."""

    def read(self, i):
        super().read(i)
        rng = np.random.default_rng(i)
        size = int(rng.integers(5, 40)), int(rng.integers(5, 40))
        return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def tokenizer():
    pictures = torch.rand(8, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return PatchTokenizer.fit(pictures, 9, 2)


# tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("how", [dict(workers=0), dict(batch_size=3, workers=2)], ids=["one", "workers"])
def test_every_crop_of_every_image_is_there_once(tmp_path, tokenizer, rule, how):
    source = Noises(7, damaged=[2])
    store = tokenize_images(tokenizer, source, tmp_path / "out", rule, **how)
    kept = [0, 1, 3, 4, 5, 6]
    assert store.crops == rule.count
    assert store.grid == (2, 3)
    assert store.paths == [source.paths[number] for number in kept]
    assert store.labels == [number % 2 for number in kept]
    assert store.classes == ["even", "odd"]
    assert store.skipped == [("folder/2.png", "an empty file")]
    for row, number in enumerate(kept):
        picture = source.read(number)
        pixels = torch.from_numpy(rule(picture, number)).movedim(-1, 1) / 255
        assert (store.tokens[row] == tokenizer.encode(pixels).flatten(1).numpy()).all()
        assert (store.table["width"][row].as_py(), store.table["height"][row].as_py()) == picture.size
    own = load_tokenizer(store.directory / "tokenizer")
    assert weights.fingerprint(own) == weights.fingerprint(tokenizer) == store.tokenizer
    assert store.meta["more"]["crops"] == str(rule)
    store.verify()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_run_that_was_stopped_goes_on(tmp_path, tokenizer, monkeypatch, error):
    def run(folder):
        return tokenize_images(
            tokenizer, Noises(9, damaged=[4]), tmp_path / folder, RULES["flip"], batch_size=4, workers=0
        )

    run("undisturbed")
    write, finish = TokenWriter.write, TokenWriter.finish
    steps, written, total = itertools.count(), [], 6  # five batches of a row or two, and the end

    def counted(method):
        def call(*args):
            if next(steps) == last:
                raise error
            written.append(args)
            return method(*args)

        return call

    for last in range(total):
        steps = itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(TokenWriter, "write", counted(write))
            patch.setattr(TokenWriter, "finish", counted(finish))
            with pytest.raises(error):
                run(str(last))
            before = len(written)
            with pytest.raises(FileNotFoundError, match="unfinished: run the same command again"):
                TokenStore.open(tmp_path / str(last))
            run(str(last))
        assert contents(tmp_path / str(last)) == contents(tmp_path / "undisturbed")
        assert len(written) - before == total - last
        written.clear()
    before = contents(tmp_path / "0")
    run("0")  # nothing to do
    assert contents(tmp_path / "0") == before
    with pytest.raises(ValueError, match=r"holds tokens with crops 2, not 1: choose another directory"):
        tokenize_images(tokenizer, Noises(9, damaged=[4]), tmp_path / "0", RULES["centre"])


def test_bfloat16_is_said(tmp_path, tokenizer):
    store = tokenize_images(tokenizer, Noises(3), tmp_path / "out", RULES["centre"], workers=0, dtype=torch.bfloat16)
    assert store.meta["more"]["dtype"] == "bfloat16"


def test_crops_that_do_not_fit_are_refused(tmp_path, tokenizer):
    for rule in (CentreCrops((5, 6), 3), CentreCrops(SIZE, 1)):
        with pytest.raises(ValueError, match="do not fit a tokenizer of 3 channels and 2 pixels a token"):
            tokenize_images(tokenizer, Noises(3), tmp_path / "out", rule)
    assert not (tmp_path / "out").exists()


def test_patches_are_fitted_to_the_images():
    class Grey(Noises):
        def read(self, i):
            return super().read(i).convert("L")

    assert fit_patches(Noises(5, [0]), SIZE, 2, 30).channels == 3
    grey = fit_patches(Grey(5, [0]), SIZE, 2, 30)
    assert (grey.channels, grey.stride) == (1, 2)
    assert 20 < grey.vocab_size <= 30
    assert torch.equal(grey.codebook, fit_patches(Grey(5, [0]), SIZE, 2, 30).codebook)
    with pytest.raises(ValueError, match="none of 3 images of squares could be read"):
        fit_patches(Noises(3, [0, 1, 2]), SIZE)


# values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", VALUE_RULES.values(), ids=VALUE_RULES)
def test_values_become_tokens(tmp_path, rule):
    source = open_source(bands.write_bands(tmp_path / "bands", 6, 12))
    (tmp_path / "bands" / "a" / "0000.tiff").write_bytes(b"II*\0")
    tokenizer = fit_patches(source, SIZE, 2, 30, channels=4)
    assert (tokenizer.channels, tokenizer.value_range) == (4, DEEP)
    store = tokenize_images(tokenizer, source, tmp_path / "out", rule, workers=0)
    assert [path for path, _ in store.skipped] == ["a/0000.tiff"]
    for row, path in enumerate(store.paths):
        number = source.paths.index(path)
        unit = torch.from_numpy(rule(source.values(number), number)).movedim(-1, 1)
        assert (store.tokens[row] == tokenizer.encode(unit).flatten(1).numpy()).all()
        assert (store.table["width"][row].as_py(), store.table["height"][row].as_py()) == (12, 12)
    assert store.meta["tokenizer_config"]["value_range"] == [*DEEP]
    assert "4 channels of 0 to 65535" in store.meta["more"]["crops"]
    assert load_tokenizer(store.directory / "tokenizer").value_range == DEEP


def test_crops_of_another_kind_than_the_tokenizer_reads_are_refused(tmp_path):
    source = open_source(bands.write_bands(tmp_path / "bands", 2, 12, 1))
    tokenizer = fit_patches(source, SIZE, 2, 30, value_range=DEEP)
    with pytest.raises(
        ValueError, match="crops of images of 8 bits do not fit a tokenizer of images of values from 0 to"
    ):
        tokenize_images(tokenizer, source, tmp_path / "out", CentreCrops(SIZE, 1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((12, 12, 3), np.uint16), r"^b/0001\.npy has 3 channels, expected 4: give --channels 3"),
        (
            np.full((12, 12, 4), 70_000),
            r"^b/0001\.npy has values from 70000 to 70000, outside the range from 0 to 65535",
        ),
    ],
)
def test_an_image_that_does_not_fit_ends_it_in_one_sentence(tmp_path, values, message, workers):
    source = open_source(bands.write_bands(tmp_path / "bands", 4, 12, suffix=".npy"))
    tokenizer = fit_patches(source, SIZE, 2, 30, channels=4)
    bands.write_values(tmp_path / "bands" / "b" / "0001.npy", values)
    rule = CentreCrops(SIZE, 4, value_range=DEEP)
    with pytest.raises(UnfitImage, match=message):
        tokenize_images(tokenizer, source, tmp_path / "out", rule, workers=workers)


def test_the_kind_of_values_is_found_or_asked_for(tmp_path):
    source = open_source(bands.write_bands(tmp_path / "bytes", 2, 12, 2, np.uint8))
    assert fit_patches(source, SIZE, 2, 30, channels=2).value_range == (0, 255)
    source = open_source(bands.write_bands(tmp_path / "floats", 2, 12, 5, np.float32))
    assert fit_patches(source, SIZE, 2, 30, value_range=(0.0, 1.0)).channels == 5
    with pytest.raises(ValueError, match=r"the range of the values of .*floats is not known by their type: .*--range"):
        fit_patches(source, SIZE, 2, 30, channels=5)
    bands.write_values(tmp_path / "floats" / "a" / "0000.tiff", np.zeros((12, 12, 3), np.float32))
    with pytest.raises(ValueError, match="have 3 and 5 channels: give images of one kind, or --channels"):
        fit_patches(source, SIZE, 2, 30, value_range=(0.0, 1.0))


# tokens of others -----------------------------------------------------------------------------------------------------

TOKENS = np.random.default_rng(0).integers(0, 9, (6, 2, 4))


def as_tree(root):
    for number, tokens in enumerate(TOKENS):
        path = root / "tree" / str(number % 3) / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, tokens[None])  # as RandAR's code does
    return root / "tree"


def as_tar(root):
    with tarfile.open(root / "tokens.tar", "w") as tar:
        for path in sorted(as_tree(root).rglob("*.npy")):
            tar.add(path, path.relative_to(root / "tree").as_posix())
    return root / "tokens.tar"


def as_lines(root):
    lines = [json.dumps({"class_id": number % 3, "tokens": tokens.tolist()}) for number, tokens in enumerate(TOKENS)]
    (root / "tokens.jsonl").write_text("\n".join(lines) + "\n")
    return root / "tokens.jsonl"


@pytest.mark.parametrize("form", [as_tree, as_tar, as_lines])
@pytest.mark.parametrize("workers", [0, 2])
def test_published_tokens_become_a_store(tmp_path, form, workers):
    source = open_source(form(tmp_path))
    store = import_tokens(source, tmp_path / "out", 9, workers=workers)
    if form is as_lines:
        assert store.paths == [f"tokens.jsonl:{line}" for line in range(1, 7)]
        numbers = list(range(6))
    else:
        numbers = [int(PurePath(path).stem) for path in store.paths]
    assert (store.tokens == TOKENS[numbers]).all()
    assert store.labels == [number % 3 for number in numbers]
    assert (store.grid, store.crops, store.tokenizer) == ((2, 2), 2, "unknown")
    assert store.table["width"].null_count == 6
    store.verify()


def test_published_tokens_are_checked(tmp_path, tokenizer):
    root = as_tree(tmp_path)
    np.save(root / "0" / "0.npy", TOKENS[0][:1])  # the first has one crop
    np.save(root / "1" / "1.npy", TOKENS[1][:1])
    (root / "2" / "2.npy").write_bytes(b"nothing")
    store = import_tokens(open_source(root), tmp_path / "out", 9, tokenizer, workers=0)
    assert len(store) == 2
    assert store.tokenizer == weights.fingerprint(tokenizer)
    assert (store.directory / "tokenizer" / "config.json").is_file()
    reasons = dict(store.skipped)
    assert reasons["0/3.npy"] == "2 crops, where the first image has 1"
    assert reasons["2/2.npy"].startswith("damaged")
    with pytest.raises(ValueError, match="the tokenizer has 9 codes, not 10"):
        import_tokens(open_source(root), tmp_path / "other", 10, tokenizer)
    np.save(root / "0" / "0.npy", TOKENS[0][:1] + 9)
    with pytest.raises(
        RuntimeError, match=r"0/0.npy could not be read: ValueError: it has tokens .* of a vocabulary of 9"
    ):
        import_tokens(open_source(root), tmp_path / "wrong", 9, workers=0)


def test_lines_that_hold_no_tokens_are_named(tmp_path):
    path = as_lines(tmp_path)
    path.write_text(path.read_text() + '{"class_id": 1, "tok')
    with pytest.raises(ValueError, match=r"line 7 of .*tokens.jsonl is no JSON object with tokens: is it cut off"):
        open_source(path)
    path.write_text('{"class_id": 1, "tokens": [1, 2, 3]}\n')
    with pytest.raises(ValueError, match="3 tokens an image: expected those of a square grid"):
        open_source(path)
    table = tmp_path / "images.jsonl"  # still a table of paths
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    table.write_text('{"path": "a.png"}\n')
    assert open_source(table).paths == ["a.png"]
