"""TIFFs of several pages are told where a picture is the first page alone."""

import warnings

import numpy as np
import pytest
import tifffile
import tiny
from PIL import Image

from randfeat import Pipeline, cli
from randfeat.data import pages
from randfeat.data.sources import open_source
from randfeat.tokenizers import PatchTokenizer

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Two TIFFs of several pages, one of one page, a PNG, and a damaged TIFF."""
    made = tmp_path / "images"
    made.mkdir()
    for number, count in enumerate((1, 3, 2)):
        picture = RNG.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        tifffile.imwrite(made / f"{number}.tif", picture, photometric="minisblack", metadata=None)
    Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(made / "3.png")
    (made / "4.TIFF").write_bytes(b"II*\0")
    return made


def test_files_of_several_pages_are_counted(folder):
    found = [path.name for path in sorted(folder.iterdir()) if pages.has_several(path)]
    assert found == ["1.tif", "2.tif"]
    with pytest.warns(UserWarning, match=r"^2 of 5 images of .* are TIFFs of several pages, such as 1.tif, and of"):
        pages.warn_of_pages(open_source(str(folder)))


def test_an_overview_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "scan.tif") as file:
        file.write(np.zeros((32, 32), np.uint8), subifds=1)
        file.write(np.zeros((16, 16), np.uint8), subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "flat.tif") as file:
        file.write(np.zeros((32, 32), np.uint8))
        file.write(np.zeros((16, 16), np.uint8), subfiletype=1)
    assert not any(pages.has_several(path) for path in tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pages.warn_of_pages(open_source(str(tmp_path)))


def test_extract_says_so(folder, tmp_path, capsys):
    Pipeline(PatchTokenizer(7, 4, 1), tiny.model("randar", (2, 2))).save(tmp_path / "model")
    words = ["extract", tmp_path / "model", folder, "-o", tmp_path / "out", "--workers", 0, "--device", "cpu"]
    assert cli.main([*map(str, words)]) == 3  # the damaged one is skipped
    told = capsys.readouterr().err
    assert told.count("2 of 5 images of") == 1
    assert "the first page alone is read" in told
