"""Values of image files as they are written, and the crops of them."""

import contextlib
import io
import re
import struct
import tarfile
import zlib

import bands
import damaged
import numpy as np
import pytest
import tifffile
import torch
from damaged import noise
from folders import write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, PngImagePlugin

from randfeat.data import values
from randfeat.data.decode import natural_range, open_picture, open_values
from randfeat.data.errors import UnfitImage, UnreadableImage
from randfeat.data.images import CentreCrop
from randfeat.data.sources import open_source

DEEP = (0.0, 65535.0)


def tiff(array, **options):
    """Return the bytes of a TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array, **options):
    """Return the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def saved(picture, format, **options):
    """Return the bytes of a picture of Pillow."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def deep_png(pixels):
    """Return a PNG of 16 bits and 3 channels, which Pillow does not write."""
    h, w, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return PngImagePlugin._MAGIC + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


DEEP_NOISE = noise(8, 10, 4, dtype=np.uint16)
PAGES = np.moveaxis(DEEP_NOISE, -1, 0)
KEPT = {
    "pages": (tiff(PAGES, photometric="minisblack"), DEEP_NOISE),
    "pages without metadata": (tiff(PAGES, photometric="minisblack", metadata=None), DEEP_NOISE),
    "planes": (tiff(PAGES, photometric="minisblack", planarconfig="separate"), DEEP_NOISE),
    "samples": (tiff(DEEP_NOISE, photometric="minisblack", planarconfig="contig"), DEEP_NOISE),
    "ImageJ": (tiff(PAGES, imagej=True), DEEP_NOISE),
    "OME": (tiff(PAGES, ome=True, photometric="minisblack"), DEEP_NOISE),
    "BigTIFF": (tiff(PAGES, bigtiff=True, photometric="minisblack"), DEEP_NOISE),
    "big-endian": (tiff(PAGES, byteorder=">", photometric="minisblack"), DEEP_NOISE),
    "deflated": (tiff(PAGES, compression="zlib", predictor=True, photometric="minisblack"), DEEP_NOISE),
    "LZW": (
        saved(
            Image.fromarray(PAGES[0]),
            "TIFF",
            compression="tiff_lzw",
            save_all=True,
            append_images=[Image.fromarray(page) for page in PAGES[1:]],
        ),
        DEEP_NOISE,
    ),
    "one page": (tiff(PAGES[0]), DEEP_NOISE[..., :1]),
    "floats": (tiff(PAGES[0].astype(np.float32)), DEEP_NOISE[..., :1].astype(np.float32)),
    "bits": (tiff(PAGES[0] > 9999), (DEEP_NOISE[..., :1] > 9999).astype(np.uint8)),
    "colours": (tiff(noise(8, 10), photometric="rgb"), noise(8, 10)),
    "many bands": (
        tiff(noise(60, 11, 11, dtype=np.uint16), photometric="minisblack"),
        np.moveaxis(noise(60, 11, 11, dtype=np.uint16), 0, -1),
    ),
    "array": (npy(DEEP_NOISE), DEEP_NOISE),
    "grey array": (npy(PAGES[0]), DEEP_NOISE[..., :1]),
    "columns first": (npy(np.asfortranarray(DEEP_NOISE)), DEEP_NOISE),
    "big-endian array": (npy(DEEP_NOISE.astype(">i4")), DEEP_NOISE.astype(np.int32)),
    "grey": (saved(Image.fromarray(noise(8, 10, 1)), "PNG"), noise(8, 10, 1)[..., None]),
    "opacity": (saved(Image.fromarray(noise(8, 10, 4)), "PNG"), noise(8, 10, 4)),
    "16 bits": (saved(Image.fromarray(PAGES[0]), "PNG"), DEEP_NOISE[..., :1]),
    "16 bits of colours": (deep_png(DEEP_NOISE[..., :3]), DEEP_NOISE[..., :3]),
    "palette": (
        saved(Image.fromarray(noise(8, 10)).quantize(200), "PNG"),
        np.asarray(Image.fromarray(noise(8, 10)).quantize(200).convert("RGB")),
    ),
    "palette of a TIFF": (
        saved(Image.fromarray(noise(8, 10)).quantize(200), "TIFF"),
        np.asarray(Image.fromarray(noise(8, 10)).quantize(200).convert("RGB")),
    ),
    "one bit": (
        saved(Image.fromarray(noise(8, 10, 1) > 99), "PNG"),
        (noise(8, 10, 1) > 99).astype(np.uint8)[..., None],
    ),
}


@pytest.mark.parametrize("kind", KEPT)
def test_files_keep_their_values(kind, tmp_path, capfd):
    content, expected = KEPT[kind]
    (tmp_path / "file").write_bytes(content)
    found = open_values(tmp_path / "file")
    assert found.dtype == expected.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_values_stand_as_pictures_do(orientation, tmp_path):
    pixels, exif = noise(3, 5, 1), Image.Exif()
    exif[damaged.ORIENTATION] = orientation
    for format in ("PNG", "TIFF"):
        for more in {}, {"compression": "tiff_lzw"} if format == "TIFF" else {}:
            content = saved(Image.fromarray(pixels), format, exif=exif, **more)
            expected = np.asarray(open_picture(io.BytesIO(content)))
            np.testing.assert_array_equal(open_values(io.BytesIO(content))[..., 0], expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (npy(np.array([[{}, 1]], dtype=object), allow_pickle=True), "an array of Python objects"),
        (npy(np.zeros((2, 3, 4, 5))), r"an array of shape \(2, 3, 4, 5\), expected \(H, W, C\) or \(H, W\)"),
        (npy(np.zeros(5)), r"an array of shape \(5,\)"),
        (npy(np.zeros((4, 4, 0))), "no pixels"),
        (npy(np.zeros((4, 4), complex)), "values of the type complex128"),
        (npy(np.full((4, 4), np.nan)), "values that are not finite"),
        (npy(np.full((4, 4), np.inf)), "values that are not finite"),
        (npy(DEEP_NOISE)[:-1], "truncated"),
        (npy(DEEP_NOISE)[:30], "truncated|damaged"),
        (tiff(np.full((4, 4), np.nan)), "values that are not finite"),
        (tiff(np.zeros((2, 3, 8, 10), np.uint16), imagej=True), r"a TIFF of axes ZCYX and shape \(2, 3, 8, 10\)"),
        (tiff(np.zeros((5, 8, 10, 3), np.uint8), photometric="rgb"), "pages or samples as channels, not both"),
        (tiff(np.zeros((40, 30, 4), np.uint16), photometric="minisblack"), "looks like an image of 4 channels"),
        (
            saved(Image.new("L", (8, 8)), "TIFF", save_all=True, append_images=[Image.new("L", (9, 8))]),
            "a TIFF of 2 im",
        ),
        (b"II*\0" + bytes(20), "a TIFF of 0 images|truncated|damaged"),
        (b"a note that somebody renamed", "text, no picture"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(content, reason, capfd):
    with pytest.raises(UnreadableImage, match=reason) as error:
        open_values(io.BytesIO(content))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["pages", "pages without metadata", "planes", "deflated", "LZW", "array", "16 bits"])
@given(share=st.floats(0, 0.97))
@settings(max_examples=25)
def test_wherever_a_file_is_cut_it_is_refused(kind, share):
    content = KEPT[kind][0]
    cut = content[: int(len(content) * share)]
    with contextlib.suppress(UnreadableImage):
        # what lies behind the last pixel may be missing
        np.testing.assert_array_equal(open_values(io.BytesIO(cut)), KEPT[kind][1])


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0+", b"\x93NUMPY\1\0", b"II+\0\x08\0\0\0"]))
def test_no_content_leads_to_another_error(content, beginning):
    with contextlib.suppress(UnreadableImage):
        open_values(io.BytesIO(beginning + content))


def test_more_pixels_than_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    for content in (npy(DEEP_NOISE), tiff(PAGES, photometric="minisblack")):
        with pytest.raises(UnreadableImage, match="more than 60 pixels"):
            open_values(io.BytesIO(content))


def test_natural_ranges():
    assert natural_range(np.uint8) == (0, 255)
    assert natural_range(np.dtype(">u2")) == DEEP
    assert all(natural_range(dtype) is None for dtype in (np.int16, np.float32, np.uint32))


# crops ---------------------------------------------------------------------------------------------------------------


@given(arrays.arrays(st.sampled_from([np.uint16, np.uint8]), st.tuples(*[st.integers(1, 7)] * 3)), st.data())
@settings(deadline=None)
def test_values_survive_file_crop_and_way_back_bit_for_bit(image, data):
    h, w, channels = image.shape
    content = npy(image) if data.draw(st.booleans()) else tiff(np.moveaxis(image, -1, 0), photometric="minisblack")
    with contextlib.suppress(UnreadableImage):  # a TIFF that may be meant as channels last
        read = open_values(io.BytesIO(content))
        value_range = natural_range(read.dtype)
        crop = CentreCrop((h, w), channels, value_range)(read)
        assert crop.dtype == np.float32
        back = values.from_unit(torch.from_numpy(crop).movedim(-1, 0)[None], value_range)[0]
        assert back.dtype == image.dtype
        assert (back == image).all()


def test_ranges_without_a_natural_type_come_back_as_floats():
    image = np.linspace(-1000, 3000, 16).reshape(4, 4, 1).astype(np.int16)
    crop = CentreCrop((4, 4), 1, (-1000, 3000))(image)
    assert (crop.min(), crop.max()) == (0, 1)
    back = values.from_unit(torch.from_numpy(crop).movedim(-1, 0)[None], (-1000.0, 3000.0))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[0], image, atol=1e-3)


@pytest.mark.parametrize("shape", [(9, 20), (31, 16), (8, 8), (3, 5), (70, 33)])
def test_arrays_are_cropped_by_the_rule_of_pictures(shape):
    grey = np.asarray(Image.fromarray(noise(6, 6, 1)).resize(shape[::-1], Image.Resampling.BICUBIC))
    as_array = CentreCrop((8, 8), 2, (0, 255))(np.stack([grey, 255 - grey], axis=-1))
    as_picture = CentreCrop((8, 8), 1)(Image.fromarray(grey))[..., 0] / 255
    np.testing.assert_allclose(as_array[..., 0], as_picture, atol=4 / 255)  # which is rounded at each step
    np.testing.assert_allclose(as_array[..., 0] + as_array[..., 1], 1, atol=0.2)  # but for clipping
    assert as_array.min() >= 0
    assert as_array.max() <= 1


@pytest.mark.parametrize(
    ("values_", "channels", "value_range", "message"),
    [
        (DEEP_NOISE, 3, DEEP, r"^a/0\.npy has 4 channels, expected 3: give --channels 4"),
        (np.full((8, 8, 2), 70_000), 2, DEEP,
         r"^a/0\.npy has values from 70000 to 70000, outside the range from 0 to 65535: .*--range LOW HIGH"),
        (np.full((8, 8, 2), -0.5), 2, (0.0, 1.0), r"has values from -0\.5 to -0\.5, outside the range from 0 to 1"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_named(values_, channels, value_range, message, tmp_path):
    bands.write_values(tmp_path / "a" / "0.npy", values_)
    with pytest.raises(UnfitImage, match=message) as error:
        CentreCrop((4, 4), channels, value_range).of(open_source(tmp_path), 0)
    assert len(re.findall(r"\n", str(error.value))) == 0


def test_constant_and_tiny_images_are_images():
    assert (CentreCrop((4, 4), 2, DEEP)(np.full((1, 1, 2), 65535, np.uint16)) == 1).all()
    assert np.ptp(CentreCrop((4, 4), 1, (0, 1))(np.full((9, 1, 1), 0.5))) == 0


def test_crops_of_rows(tmp_path):
    source = open_source(bands.write_bands(tmp_path, 2, 12))
    expected = bands.bands(12, seed=1)
    found = CentreCrop((12, 12), 4, DEEP).of(source, 1)
    assert found.shape == (12, 12, 4)
    np.testing.assert_array_equal((found * 65535).round().astype(np.uint16), expected)


# sources of arrays ---------------------------------------------------------------------------------------------------


def in_a_tar(tmp_path, folder):
    """Return a tar of samples `<class>/<number>.npy`."""
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(folder, arcname=".")
    return tmp_path / "shard.tar"


def in_a_list(tmp_path, folder):
    """Return a list of paths and labels."""
    lines = [f"{path} {path.parent.name}" for path in sorted(folder.rglob("*.npy"))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


def in_a_table(tmp_path, folder):
    """Return a table with a path and a label in each row."""
    paths = sorted(folder.rglob("*.npy"))
    columns = {"path": [str(path) for path in paths], "label": [path.parent.name for path in paths]}
    return write_table(tmp_path / "table.csv", columns)


def in_parquet(tmp_path, folder):
    """Return a parquet file with the bytes of each."""
    paths = sorted(folder.rglob("*.npy"))
    columns = {"image": [path.read_bytes() for path in paths], "label": [path.parent.name for path in paths]}
    return write_table(tmp_path / "images.parquet", columns)


@pytest.mark.parametrize("form", [lambda _, folder: folder, in_a_tar, in_a_list, in_a_table, in_parquet])
def test_arrays_are_images_in_every_form(form, tmp_path):
    folder = bands.write_bands(tmp_path / "arrays", 4, 6, 5, np.float32, suffix=".npy")
    source = open_source(form(tmp_path, folder))
    assert (source.classes, source.labels) == (["a", "b"], [0, 0, 1, 1])
    for row, number in enumerate((0, 2, 1, 3)):
        np.testing.assert_array_equal(source.values(row), bands.bands(6, 5, np.float32, number))
    with pytest.raises(UnreadableImage, match=r"5 channels of float32, which is no picture: .*--range LOW HIGH"):
        source.read(0)


def test_folders_of_arrays_have_splits_and_classes(tmp_path):
    for split in ("train", "val"):
        bands.write_bands(tmp_path / split, 2, 6, suffix=".npy")
    assert open_source(tmp_path, "val").paths == ["val/a/0000.npy", "val/b/0001.npy"]
    with pytest.raises(ValueError, match="has the splits train, val"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("array", "is_image"),
    [
        (np.zeros((1, 3, 16), np.int64), False),
        (np.zeros((3, 16), np.uint16), False),
        (np.zeros(16, np.int32), False),
        (np.zeros((4, 4, 3), np.uint8), True),
        (np.zeros((4, 4, 1), np.int16), True),
        (np.zeros((4, 4)), True),
    ],
)
def test_arrays_are_tokens_or_images_by_their_header(array, is_image, tmp_path):
    (tmp_path / "0.npy").write_bytes(b"")  # says nothing
    np.save(tmp_path / "1.npy", array)
    if is_image:
        assert open_source(tmp_path).values(1).shape[:2] == (4, 4)
        (tmp_path / "0.npy").unlink()
    else:
        (tmp_path / "0.npy").unlink()
        assert open_source(tmp_path).grid == (4, 4)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_pictures_are_seen_as_pictures(channels, tmp_path):
    np.save(tmp_path / "0.npy", noise(5, 6, channels).reshape(5, 6, channels))
    picture = open_source(tmp_path).read(0)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    expected = open_picture(io.BytesIO(saved(Image.fromarray(noise(5, 6, channels)), "PNG")))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


def test_arrays_of_16_bits_are_seen_with_8(tmp_path):
    np.save(tmp_path / "0.npy", DEEP_NOISE[..., :3])
    seen = np.asarray(open_source(tmp_path).read(0))
    np.testing.assert_allclose(seen, DEEP_NOISE[..., :3] / 257, atol=0.51)
