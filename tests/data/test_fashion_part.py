"""The 5,000 images of Fashion-MNIST that the package holds."""

from pathlib import Path

import numpy as np
import pytest

from randfeat.data.builtin import fashion, load_fashion_part, make_fashion
from randfeat.data.sources import idx, open_source

SHA256 = {  # of the images and the labels of each split, as IDX files
    "train": (
        "85a0ed91fc149c8f56cbcd4faffd965abbddf9bb83d5e7308ec20af22a3a8c87",
        "d91bcde777777d8b779ccfade8da8df64050ef1cde830c67b3036ee13e26ec28",
    ),
    "test": (
        "862035b0a96959b614c9574f4c2b0ae9584ca234813e8d6d7adb7838b12ca46b",
        "aa3f574d30afaf0d4d9da084a6f8541771e20693d6a97fae6e9a4953fca8f078",
    ),
}


def digests(made, train, test):
    """The SHA-256 of the first images and labels of each split."""
    found = {}
    for split, count in (("train", train), ("test", test)):
        rows = np.flatnonzero(made.test == (split == "test"))[:count]
        found[split] = idx.digest(made.images[rows]), idx.digest(made.labels[rows].astype(np.uint8))
    return found


def test_the_part_is_what_it_was():
    part = load_fashion_part()
    assert digests(part, None, None) == SHA256
    assert part.images.shape == (5000, 28, 28)
    assert part.test.tolist() == [False] * 3000 + [True] * 2000
    assert part.classes == idx.FASHION
    assert (part.group_names[2999], part.group_names[3000]) == ("train/02999", "test/00000")


@pytest.mark.skipif(
    not Path(fashion.PACKAGE).is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_part_is_the_beginning_of_what_zalando_published():
    assert digests(make_fashion(), 3000, 2000) == SHA256


def test_its_folder_is_data_of_every_command():
    part, train, test = load_fashion_part(), *(open_source(fashion.PART, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (3000, 2000)
    assert train.labels + test.labels == part.labels.tolist()
    assert tuple(train.classes) == part.classes
    assert np.array_equal(np.asarray(test.read(7)), part.images[3007])
    assert "Permission is hereby granted" in (fashion.PART / "README.md").read_text(encoding="utf-8")


def test_an_installation_without_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion, "PART", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"this installation of randfeat is without the images of .*: install"):
        load_fashion_part()


def test_xz_is_read_as_gzip_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    for end in ("", ".gz", ".xz"):
        file = tmp_path / f"a{end[1:]}-images-idx3-ubyte{end}"
        idx.write_idx(file, images)
        assert np.array_equal(idx.read_idx(file, "images"), images)
    packed = (tmp_path / "axz-images-idx3-ubyte.xz").read_bytes()
    for damaged in (packed[:-9], packed[:40] + bytes([packed[40] ^ 255]) + packed[41:]):
        (tmp_path / "b-images-idx3-ubyte.xz").write_bytes(damaged)
        with pytest.raises(ValueError, match="is truncated or damaged"):
            idx.read_idx(tmp_path / "b-images-idx3-ubyte.xz", "images")
