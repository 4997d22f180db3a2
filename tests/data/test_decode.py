"""Pictures in files: every format, and every way in which a file may be damaged."""

import contextlib
import io
import pickle
import warnings
from unittest.mock import Mock

import damaged
import numpy as np
import pytest
from damaged import noise as photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from randfeat.data.decode import UnreadableImage, as_seen, open_picture
from randfeat.data.images import as_images


@pytest.mark.parametrize("i", range(len(damaged.GOOD)), ids=list(damaged.GOOD))
def test_every_kind_of_picture_is_opened(i, tmp_path):
    path = damaged.write_good(tmp_path / "picture", i)
    picture = open_picture(path)
    assert picture.mode in ("L", "RGB")
    assert np.ptp(np.asarray(picture)) > 100 or 1 in picture.size  # noise, neither dark nor saturated
    assert as_seen(picture) is picture
    with path.open("rb") as file:
        assert open_picture(file).tobytes() == picture.tobytes()
    assert as_images(path, 3, (4, 4)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("how", damaged.DAMAGES)
def test_damaged_files_are_refused_with_a_reason(how, tmp_path):
    path = damaged.write_damaged(tmp_path / "picture", how)
    with pytest.raises(UnreadableImage, match=damaged.REASONS[how]) as error:
        open_picture(path)
    assert len(str(error.value)) < 100
    assert "\n" not in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    with pytest.raises(UnreadableImage, match=f"{path.name} cannot be read as a picture: "):
        as_images(path, 3, (4, 4))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@given(share=st.floats(0, 0.95))
def test_wherever_a_file_is_cut_it_is_refused(format, share):
    content = damaged.encoded(format)
    with pytest.raises(UnreadableImage):
        open_picture(io.BytesIO(content[: int(len(content) * share)]))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0"]))
def test_no_content_leads_to_another_error(content, beginning):
    with contextlib.suppress(UnreadableImage):
        open_picture(io.BytesIO(beginning + content))


def test_what_is_no_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (("x.jpg", "is a directory"), ("y.jpg", "no such file"), ("file/z.jpg", "not a directory")):
        with pytest.raises(UnreadableImage, match=reason):
            open_picture(tmp_path / name)
    for error, expected in (
        (PermissionError(13, "Permission denied"), UnreadableImage),
        (OSError(24, "full"), OSError),
    ):
        monkeypatch.setattr("pathlib.Path.read_bytes", Mock(side_effect=error))
        with pytest.raises(expected, match=r"full|permission denied"):
            open_picture(tmp_path / "z.jpg")


def test_a_leniency_of_somebody_else_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableImage, match="truncated"):
        open_picture(damaged.write_damaged(tmp_path / "cut", "half a JPEG"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_large_pictures_are_read_without_a_warning(tmp_path, monkeypatch):
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow warns from here, and refuses from twice as much
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_picture(tmp_path / "large.png").size == (30, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(UnreadableImage, match="more than 800 pixels"):
        open_picture(tmp_path / "large.png")


def test_a_broken_exif_block_turns_nothing(tmp_path):
    pixels = photo(4, 6)
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09 and no more")
    assert open_picture(tmp_path / "x.jpg").size == (6, 4)
    Image.fromarray(pixels).save(tmp_path / "y.jpg", exif=b"Exif\0\0nonsense")
    assert open_picture(tmp_path / "y.jpg").size == (6, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone_once(orientation, tmp_path):
    turned_by = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}
    turned_by |= {5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: np.rot90}
    pixels = photo(3, 5, 1)
    exif = Image.Exif()
    exif[damaged.ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    picture = open_picture(tmp_path / "x.png")
    assert (np.asarray(picture) == turned_by[orientation](pixels)).all()
    assert (np.asarray(as_seen(picture)) == np.asarray(picture)).all()


def test_deep_greys_are_scaled_to_bytes():
    def grey(values, dtype):
        return np.asarray(as_seen(Image.fromarray(np.array([values], dtype)))).tolist()[0]

    assert grey([0, 257, 32896, 65535], np.uint16) == [0, 1, 128, 255]
    assert grey([0, 1, 255], np.uint16) == [0, 0, 1]  # 16 bits, however dark
    assert grey([0, 100, 255], np.int32) == [0, 100, 255]
    assert grey([0, 257, 65535], np.int32) == [0, 1, 255]
    assert grey([-1000, 0, 1000], np.int32) == [0, 128, 255]
    assert grey([0, 10**9], np.int32) == [0, 255]
    assert grey([0, 0.5, 1], np.float32) == [0, 128, 255]
    assert grey([0, 100, 255], np.float32) == [0, 100, 255]
    assert grey([-2, -2], np.float32) == [0, 0]
    big_endian = Image.frombytes("I;16B", (2, 1), b"\x80\x80\xff\xff")
    assert np.asarray(as_seen(big_endian)).tolist() == [[128, 255]]
    with pytest.raises(UnreadableImage, match="values that are not finite"):
        grey([0, float("nan")], np.float32)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGBa", "La", "L", "RGB", "1"])
def test_transparent_pixels_lie_on_white(mode, tmp_path):
    clear = {"RGBA": (0, 0, 0, 0), "RGBa": (0, 0, 0, 0), "LA": (0, 0), "La": (0, 0), "PA": (0, 0)}.get(mode, 0)
    picture = Image.new(mode, (2, 2), clear)
    if mode in ("P", "PA"):
        picture.putpalette([10, 20, 30])
    if mode in ("P", "L", "1"):
        picture.info["transparency"] = 0
    if mode == "RGB":
        picture.info["transparency"] = (0, 0, 0)
    assert (np.asarray(as_seen(picture).convert("RGB")) == 255).all()


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (200, 10)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (np.asarray(open_picture(tmp_path / "moving.gif")) == 200).all()
