"""Pictures that were read wrongly: half a download of what phones write, PNGs with large texts, masks of strokes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from damaged import noise
from PIL import ExifTags, Image, PngImagePlugin

from randfeat.data.decode import open_picture, open_values
from randfeat.data.errors import UnreadableImage
from randfeat.inference.editing import as_mask

SIDE = 64


def encoded(form: str, side: int = SIDE, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(side, side)).save(file, form, **options)
    return file.getvalue()


def mpo(thumbnail: bool = False) -> bytes:
    """Return two pictures in a file, as phones write a picture and its depth or its other exposure."""
    both = {"save_all": True, "append_images": [Image.fromarray(noise(SIDE, SIDE, seed=1))]}
    if thumbnail:  # a small JPEG in the header, which has an end of its own
        both["comment"] = encoded("JPEG", 8)
    return encoded("MPO", **both)


def first_size(content: bytes) -> int:
    """Return the bytes of the first picture of an MPO."""
    with Image.open(io.BytesIO(content)) as picture:
        return picture.mpinfo[0xB002][0]["Size"]


def filled(content: bytes, share: float) -> bytes:
    """Return a file of which only a part has arrived, and zeros for the rest."""
    kept = int(len(content) * share)
    return content[:kept] + bytes(len(content) - kept)


# name -> whether the file is cut off, and its content
CUT = {
    f"{name}, {share:.0%} {how}": cut
    for name, content in (("MPO", mpo()), ("MPO with a thumbnail", mpo(thumbnail=True)))
    for share in (0.2, 0.3, 0.4)
    for how, cut in (("and zeros", filled(content, share)), ("alone", content[: int(len(content) * share)]))
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("read", [open_picture, open_values])
def test_a_part_of_an_mpo_is_truncated(name, read):
    with pytest.raises(UnreadableImage, match="truncated"):
        read(io.BytesIO(CUT[name]))


@pytest.mark.parametrize("thumbnail", [False, True])
def test_an_mpo_is_its_first_picture_also_where_the_second_is_cut_off(thumbnail):
    content = mpo(thumbnail)
    expected = np.asarray(open_picture(io.BytesIO(content)))
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(expected, np.asarray(picture))
    size = first_size(content)
    for cut in (content[:size] + bytes(len(content) - size), filled(content, 0.8)):
        np.testing.assert_array_equal(np.asarray(open_picture(io.BytesIO(cut))), expected)


def texts(*sizes: int, kind: str = "text", compressed: bool = True) -> PngImagePlugin.PngInfo:
    made = PngImagePlugin.PngInfo()
    for number, size in enumerate(sizes):
        if kind == "text":
            made.add_text(f"parameters {number}", "a" * size, zip=compressed)
        else:
            made.add_itxt(f"parameters {number}", "a" * size, zip=compressed)
    return made


PNGS = {
    "a compressed text of 2 MB": {"pnginfo": texts(2 << 20)},
    "a compressed international text of 2 MB": {"pnginfo": texts(2 << 20, kind="itxt")},
    "70 texts of 1 MB": {"pnginfo": texts(*[1 << 20] * 70)},
    "plain texts of 2 MB": {"pnginfo": texts(2 << 20, compressed=False)},
    "a colour profile of 3 MB": {"icc_profile": bytes(3 << 20)},
    "both": {"pnginfo": texts(2 << 20), "icc_profile": bytes(3 << 20)},
}


@pytest.mark.parametrize("name", PNGS)
@pytest.mark.parametrize("read", [open_picture, open_values])
def test_a_sound_png_with_much_beside_its_pixels_is_read(name, read):
    content = encoded("PNG", **PNGS[name])
    np.testing.assert_array_equal(np.asarray(read(io.BytesIO(content))), noise(SIDE, SIDE))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_png_of_16_bits_with_a_large_text_is_read_without_a_word(compressed, capfd):
    file, values = io.BytesIO(), noise(SIDE, SIDE, 1, dtype=np.uint16)
    Image.fromarray(values).save(file, "PNG", pnginfo=texts(9 << 20, compressed=compressed))
    np.testing.assert_array_equal(open_values(io.BytesIO(file.getvalue()))[..., 0], values)
    assert capfd.readouterr().err == ""


def test_a_text_behind_the_pixels_may_be_large_too():
    plain, with_text = encoded("PNG"), encoded("PNG", pnginfo=texts(2 << 20))
    at = with_text.index(b"zTXt") - 4
    chunk = with_text[at : at + 12 + int.from_bytes(with_text[at : at + 4], "big")]
    content = plain[:-12] + chunk + plain[-12:]
    np.testing.assert_array_equal(np.asarray(open_picture(io.BytesIO(content))), noise(SIDE, SIDE))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_png_with_a_large_text_is_still_checked(cut):
    content = encoded("PNG", pnginfo=texts(2 << 20))
    with pytest.raises(UnreadableImage, match=r"truncated|damaged"):
        open_picture(io.BytesIO(content[: int(len(content) * cut)]))


def test_the_orientation_beside_a_large_text_counts():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = encoded("PNG", pnginfo=texts(2 << 20), exif=exif)
    np.testing.assert_array_equal(np.asarray(open_picture(io.BytesIO(content))), np.rot90(noise(SIDE, SIDE), -1))


# masks ---------------------------------------------------------------------------------------------------------------

STROKES = np.zeros((8, 10), bool)
STROKES[2:5, 3:7] = True


def layer(colour: int, opacity: np.ndarray, ground: int = 255) -> Image.Image:
    """Return strokes of a grey level on a ground that is seen as far as `opacity` lets it."""
    grey = np.where(STROKES, colour, ground).astype(np.uint8)
    return Image.fromarray(np.dstack([grey, grey, grey, opacity.astype(np.uint8)]))


SOLID, SOFT = STROKES * 255, np.where(STROKES, 255, 0)
SOFT[1, 3:7] = 90  # what editors make of an edge
# name -> mask, and what is painted
MASKS = {
    "white strokes on transparent white": (layer(255, SOLID), STROKES),
    "white strokes on transparent black": (layer(255, SOLID, 0), STROKES),
    "soft white strokes": (layer(255, SOFT), STROKES),
    "nearly white strokes": (layer(252, SOLID), STROKES),
    "grey with opacity": (layer(255, SOLID).convert("LA"), STROKES),
    "white on opaque black": (layer(255, np.full_like(SOLID, 255), 0), STROKES),
    "a hole in black": (layer(0, ~STROKES * 255, 0), STROKES),
    "a hole in a picture": (layer(90, ~STROKES * 255, 90), STROKES),
    "all of it transparent": (layer(255, 0 * SOLID), np.ones_like(STROKES)),
    "all of it white": (layer(255, np.full_like(SOLID, 255)), np.ones_like(STROKES)),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("way", ["picture", "path", "palette"])
def test_what_a_mask_paints(name, way, tmp_path):
    mask, painted = MASKS[name]
    if way == "palette" and mask.mode == "RGBA" and "soft" not in name:
        mask = mask.quantize(8)
    if way != "picture":
        mask.save(tmp_path / "mask.png")
    found = as_mask(mask if way == "picture" else tmp_path / "mask.png", STROKES.shape)
    np.testing.assert_array_equal(found, painted)


def test_a_layer_is_turned_as_the_picture_is(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    layer(255, SOLID).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(as_mask(tmp_path / "mask.png", STROKES.shape[::-1]), np.rot90(STROKES, -1))
