"""Images of a user, in any form, as tensors of one size."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from damaged import noise as photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from randfeat.data.images import CentreCrop, as_images, to_pil


def test_bytes_survive_the_way_there_and_back():
    for channels in (1, 3):
        pixels = photo(4, 6, channels)
        images = as_images(Image.fromarray(pixels), channels, (4, 6))
        assert images.shape == (1, channels, 4, 6)
        assert images.dtype == torch.float32
        assert (np.asarray(to_pil(images[0])) == pixels).all()


def test_every_kind_of_picture_is_read_alike(tmp_path):
    pictures = [Image.fromarray(photo(4, 6, seed=seed)) for seed in range(2)]
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).movedim(3, 1).float() / 255
    as_array = expected.movedim(1, 3).numpy()
    for images in (
        pictures,
        paths,
        [str(paths[0]), pictures[1]],
        expected,
        (expected * 255).round().byte(),
        expected.double(),
        expected.numpy(),
        as_array,
        (as_array * 255).round().astype(np.uint8),
        as_array[:, :, ::-1].copy()[:, :, ::-1],  # negative strides
        np.broadcast_to(as_array, as_array.shape),  # read-only
    ):
        torch.testing.assert_close(as_images(images, 3, (4, 6)), expected)
    for one in (pictures[0], paths[0], str(paths[0])):
        torch.testing.assert_close(as_images(one, 3, (4, 6)), expected[:1])


def test_modes_are_converted():
    grey, rgba = Image.fromarray(photo(4, 4, 1)), Image.fromarray(photo(4, 4, 4))
    assert torch.equal(as_images(grey, 3, (4, 4)), as_images(grey, 1, (4, 4)).expand(-1, 3, -1, -1))
    on_white = Image.composite(rgba.convert("RGB"), Image.new("RGB", (4, 4), "white"), rgba.getchannel("A"))
    torch.testing.assert_close(as_images(rgba, 3, (4, 4)), as_images(on_white, 3, (4, 4)), rtol=0, atol=1.01 / 255)
    palette = Image.fromarray(photo(4, 4)).quantize(5)
    assert as_images(palette, 1, (4, 4)).shape == (1, 1, 4, 4)


def test_pictures_stand_as_their_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pixels = photo(4, 6)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    expected = torch.from_numpy(np.rot90(pixels, -1).copy()).movedim(2, 0)[None] / 255
    torch.testing.assert_close(as_images(tmp_path / "turned.png", 3, (6, 4)), expected)
    with Image.open(tmp_path / "turned.png") as opened:
        torch.testing.assert_close(as_images(opened, 3, (6, 4)), expected)


def test_pictures_are_scaled_to_cover_and_cropped_at_the_centre():
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 255  # the middle third is white
    assert (as_images(Image.fromarray(wide), 1, (8, 8)) == 1).all()
    half = as_images(Image.fromarray(wide), 1, (4, 12))
    assert half.shape == (1, 1, 4, 12)
    assert half[0, 0, 2].round().tolist() == [0] * 4 + [1] * 4 + [0] * 4


def test_arrays_of_the_size_are_taken_as_they_are():
    exact = torch.rand(2, 3, 4, 6)
    assert torch.equal(as_images(exact, 3, (4, 6)), exact)
    assert torch.equal(as_images(list(exact), 3, (4, 6)), exact)
    assert torch.equal(as_images([exact[0].numpy(), exact[1].movedim(0, -1).numpy()], 3, (4, 6)), exact)
    assert torch.equal(as_images(iter(exact[:, 0]), 1, (4, 6)), exact[:, :1])
    # channels first, where both would do
    assert torch.equal(as_images(exact[:, :, :, :3].numpy(), 3, (4, 3)), exact[:, :, :, :3])
    assert as_images(torch.zeros(0, 1, 4, 4), 1, (4, 4)).shape == (0, 1, 4, 4)


def test_bytes_of_another_size_or_kind_are_pictures():
    for channels in (1, 3, 4):
        array = photo(20, 31, channels)
        expected = as_images(Image.fromarray(array), 3, (4, 6))
        assert torch.equal(as_images(array[None], 3, (4, 6)), expected)
        assert torch.equal(as_images([array], 3, (4, 6)), expected)
        first = torch.from_numpy(array.reshape(20, 31, channels)).movedim(2, 0)
        assert torch.equal(as_images(first[None], 3, (4, 6)), expected)
    grey = photo(4, 6, 1)
    assert torch.equal(as_images(grey[None], 3, (4, 6)), as_images(Image.fromarray(grey), 3, (4, 6)))
    assert as_images(np.zeros((0, 9, 9, 3), np.uint8), 3, (4, 6)).shape[0] == 0


def test_floats_of_another_size_are_refused():
    for images in (torch.zeros(2, 6, 4), [np.zeros((6, 4))]):
        with pytest.raises(ValueError, match="images must be 4 x 6 pixels, got 6 x 4: give PIL images, paths or uint8"):
            as_images(images, 1, (4, 6))
    for images in (torch.zeros(2, 2, 4, 6), np.zeros((1, 4, 6, 4)), torch.zeros(1, 4, 6)):
        with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), got "):
            as_images(images, 3, (4, 6))


@pytest.mark.parametrize("wrong", [1.01, -0.01, float("nan"), float("inf")])
def test_values_out_of_range_are_refused(wrong):
    images = torch.full((2, 1, 4, 4), 0.5)
    images[1, 0, 2, 2] = wrong
    with pytest.raises(ValueError, match=r"image values must lie in \[0, 1\]"):
        as_images(images, 1, (4, 4))


def test_bytes_in_a_wider_type_are_out_of_range():
    with pytest.raises(ValueError, match=r"in \[0, 1\] or be uint8, got 0 to 255: divide them"):
        as_images(np.array([[[0, 255]]]), 1, (1, 2))


def test_one_image_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"images must be \(B, H, W\), .*, got \(4, 4\): give one image in a list"):
        as_images(np.zeros((4, 4)), 1, (4, 4))
    for picture in (photo(20, 31, 3), photo(20, 31, 4)):
        with pytest.raises(ValueError, match=r"looks like one picture, .*: give one picture in a list"):
            as_images(picture, 1, (4, 6))
        assert len(as_images([picture], 1, (4, 6))) == 1
    three_grey = torch.from_numpy(photo(20, 31, 3)).movedim(2, 0)  # as the end of a larger batch may be
    assert len(as_images(three_grey, 1, (4, 6))) == 3


def test_arrays_of_paths_are_paths(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(photo(9, 9, 3)).save(path)
    expected = as_images(paths, 3, (4, 4))
    for array in (np.array([str(path) for path in paths]), np.array(paths, dtype=object)):
        assert torch.equal(as_images(array, 3, (4, 4)), expected)


@pytest.mark.parametrize(
    "wrong", [None, 3, {"image": 1}, np.zeros((2, 2), complex)[None], pd.DataFrame({"path": ["a"]})]
)
def test_what_holds_no_images_is_refused(wrong):
    with pytest.raises(ValueError, match=r"images are PIL images, paths, arrays|must be real"):
        as_images(wrong, 1, (2, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "there are no images"),
        (iter(()), "there are no images"),
        ([None], "an image is a PIL image, a path, an array or a tensor, got NoneType"),
        ([np.zeros((1, 1, 4, 4))], r"in a list must be \(H, W\) or \(1, H, W\), got \(1, 1, 4, 4\)"),
        (np.zeros((1, 0, 5), np.uint8), "no pixels"),
        ("nowhere.png", "nowhere.png cannot be read as a picture: no such file"),
    ],
)
def test_what_is_no_image_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        as_images(wrong, 1, (4, 4))


# the one size --------------------------------------------------------------------------------------------------------


def adm(picture, side):
    """ADM's rule for squares, as its paper's code states it."""
    while min(picture.size) >= 2 * side:
        picture = picture.resize(tuple(length // 2 for length in picture.size), Image.Resampling.BOX)
    scale = side / min(picture.size)
    scaled = picture.resize(tuple(round(length * scale) for length in picture.size), Image.Resampling.BICUBIC)
    left, top = (scaled.width - side) // 2, (scaled.height - side) // 2
    return np.asarray(scaled)[top : top + side, left : left + side]


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 8, 11, 16]))
def test_the_centre_crop_is_that_of_adm(height, width, side):
    height, width = min(height, 8 * width), min(width, 8 * height)
    picture = Image.fromarray(photo(height, width))
    assert (CentreCrop((side, side), 3)(picture) == adm(picture, side)).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))
def test_the_centre_crop_covers_any_target(height, width, h, w, channels):
    cropped = CentreCrop((h, w), channels)(Image.fromarray(np.full((height, width), 77, np.uint8)))
    assert cropped.shape == (h, w, channels)
    assert cropped.dtype == np.uint8
    assert (cropped == 77).all()


@pytest.mark.parametrize("shape", [(30_000, 1), (1, 30_000), (1, 1)])
def test_strips_and_dots_are_scaled_in_little_memory(shape):
    assert CentreCrop((256, 256), 3)(Image.new("RGB", shape, "red")).shape == (256, 256, 3)


def test_the_rule_states_itself_and_travels():
    rule = CentreCrop((4, 6), 3)
    assert str(rule) == "RGB 4 x 6: box-halved while at least twice as large, bicubic until it covers, centre crop"
    assert pickle.loads(pickle.dumps(rule)) == rule
