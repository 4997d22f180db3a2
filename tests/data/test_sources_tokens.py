"""Tokens in a store of ours, and as they are published: trees and tars of one file for each image."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import TokenSource, open_source
from randfeat.data.token_store import TokenWriter

CROPS, SIDE = 2, 3


def tokens(seed, n=SIDE * SIDE):
    return np.random.default_rng(seed).integers(0, 50, (CROPS, n))


def content(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write(root, files):
    """Tree and tar of token files, from the content of each file by its name."""
    for name, one in files.items():
        path = root / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one)
    with tarfile.open(root / "codes.tar", "w") as archive:
        archive.add(root / "tree", ".")
    return [root / "tree", root / "codes.tar"]


def test_trees_and_tars_read_alike(tmp_path):
    arrays = {"0/0.npy": tokens(0), "0/1.npy": tokens(1), "10/2.npy": tokens(2), "2/3.npy": tokens(3)}
    for form in write(tmp_path, {name: content(array) for name, array in arrays.items()}):
        source = open_source(form)
        assert isinstance(source, TokenSource)
        assert source.grid == (SIDE, SIDE)
        assert (source.vocab_size, source.tokenizer, source.classes) == (None, None, None)
        found = {path.removeprefix("codes.tar/"): row for row, path in enumerate(source.paths)}
        assert {name: source.labels[row] for name, row in found.items()} == {
            "0/0.npy": 0,
            "0/1.npy": 0,
            "10/2.npy": 10,
            "2/3.npy": 2,
        }
        arrived = pickle.loads(pickle.dumps(source))
        for name, row in found.items():
            assert (arrived.tokens(row) == arrays[name]).all()
        assert arrived.fingerprint() == source.fingerprint()
        with pytest.raises(ValueError, match="has no splits, so there is no 'val'"):
            open_source(form, "val")


def test_class_folders_may_have_names(tmp_path):
    for form in write(tmp_path, {"dog/0.npy": content(tokens(0)), "cat/0.npy": content(tokens(1))}):
        source = open_source(form)
        named = {
            path.split("/")[-2]: source.classes[label] for path, label in zip(source.paths, source.labels, strict=True)
        }
        assert named == {"dog": "dog", "cat": "cat"}
    for form in write(tmp_path / "flat", {"0.npy": content(tokens(0)), "1.npy": content(tokens(1))}):
        assert open_source(form).labels is None


@pytest.mark.parametrize("shape", [(SIDE * SIDE,), (1, CROPS, SIDE * SIDE)])
def test_other_shapes_are_read_as_crops(shape, tmp_path):
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.int64)
    for form in write(tmp_path, {"0/0.npy": content(array)}):
        assert (open_source(form).tokens(0) == array.reshape(-1, SIDE * SIDE)).all()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "damaged"),
        (content(tokens(0))[:-8], "damaged"),
        (content(tokens(0, 16)), "16 tokens, where others have 9"),
        (content(np.zeros((2, 9))), r"float64 of shape \(2, 9\), expected integers \(crops, N\)"),
        (content(np.array({"a": 1}, dtype=object)), "damaged"),
        (content(np.zeros((0, 9), np.int64)), r"int64 of shape \(0, 9\), expected"),
    ],
)
def test_wrong_files_are_rows_that_cannot_be_read(bad, reason, tmp_path):
    for form in write(tmp_path, {"0/0.npy": content(tokens(0)), "0/1.npy": bad}):
        source = open_source(form)
        row = next(row for row, path in enumerate(source.paths) if path.endswith("0/1.npy"))
        with pytest.raises(UnreadableImage, match=reason):
            source.tokens(row)


def test_what_holds_no_tokens_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 8 tokens an image: expected those of a square grid"):
        open_source(write(tmp_path / "a", {"0/0.npy": content(tokens(0, 8))})[0])
    with pytest.raises(ValueError, match=r"0/0.npy of .* holds no tokens: damaged"):
        open_source(write(tmp_path / "b", {"0/0.npy": b"text"})[0])


def store(directory, seed=0, count=200):
    names = [f"{i}.png" for i in range(count)]
    told = {"tokenizer": "abc", "grid": (SIDE, SIDE), "vocab_size": 50, "crops": CROPS, "classes": ["cat", "dog"]}
    writer = TokenWriter(directory, names, [0, 1] * (count // 2), **told)
    writer.write(0, np.stack([tokens(seed + i) for i in range(count)]), np.full((count, 2), 9))
    writer.finish({})
    return directory


def test_a_store_is_a_source(tmp_path):
    source = open_source(store(tmp_path / "a"))
    assert isinstance(source, TokenSource)
    assert (source.grid, source.vocab_size, source.tokenizer) == ((SIDE, SIDE), 50, "abc")
    assert (source.paths[3], source.labels[3], source.classes) == ("3.png", 1, ["cat", "dog"])
    packed = pickle.dumps(source)
    assert len(packed) < 5000  # without the tokens
    arrived = pickle.loads(packed)
    assert (arrived.tokens(7) == tokens(7)).all()
    assert arrived.fingerprint() == source.fingerprint() == open_source(store(tmp_path / "b")).fingerprint()
    assert open_source(store(tmp_path / "c", seed=1)).fingerprint() != source.fingerprint()
    with pytest.raises(ValueError, match="has no splits, so there is no 'val'"):
        open_source(tmp_path / "a", "val")
