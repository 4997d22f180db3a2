"""Small pictures of files: of any kind, and of none."""

from __future__ import annotations

import damaged
import numpy as np
import pytest
from PIL import Image

from randfeat.commands.app import thumbnails
from randfeat.data.decode import open_picture


@pytest.mark.parametrize("longest", [10, 30, 1000])
@pytest.mark.parametrize("name", ["plain.png", "photo.jpg", "grey.jpg", "print.jpg", "turned.jpg", "deep.png"])
def test_a_preview_is_the_picture_reduced(tmp_path, name, longest):
    noise, path = Image.fromarray(damaged.noise(40, 60)), tmp_path / name
    if name == "turned.jpg":
        noise.save(path, exif=damaged._exif(6))
    elif name == "deep.png":
        Image.fromarray(damaged.noise(40, 60, 1, dtype=np.uint16)).save(path)
    else:
        noise.convert({"grey.jpg": "L", "print.jpg": "CMYK"}.get(name, "RGB")).save(path)
    seen, whole = thumbnails.open_reduced(str(path), longest), open_picture(path)
    assert seen is not None
    assert max(seen.size) == min(longest, 60)
    assert (seen.width < seen.height) == (whole.width < whole.height)
    if longest > 60:
        assert (np.asarray(seen) == np.asarray(whole)).all()
    assert thumbnails.url(str(path)).startswith("data:image/png;base64,")


def test_what_is_no_picture_has_no_preview(tmp_path):
    for name in ("half a PNG", "text", "bomb"):
        assert thumbnails.url(str(damaged.write_damaged(tmp_path / name.replace(" ", "-"), name))) == ""
    assert thumbnails.url(str(tmp_path / "nowhere.png")) == ""
    assert thumbnails.url("row 7 of an archive\0") == ""


def test_a_file_that_changed_has_a_new_preview(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (20, 20), "navy").save(path)
    before = thumbnails.url(str(path))
    Image.new("RGB", (20, 20), "gold").save(path)
    assert thumbnails.url(str(path)) != before
