import numpy as np
import pytest
import torch
from PIL import Image

from randfeat.data import as_images, to_pil


def photo(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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
    assert torch.equal(as_images(rgba, 3, (4, 4)), as_images(rgba.convert("RGB"), 3, (4, 4)))
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


def test_arrays_are_taken_as_they_are():
    assert as_images(torch.zeros(2, 5, 7), 1, (4, 4)).shape == (2, 1, 5, 7)
    assert as_images(np.zeros((2, 3, 5, 3)), 3, (4, 4)).shape == (
        2,
        3,
        5,
        3,
    )  # channels first, where both would do
    assert as_images(torch.zeros(0, 1, 4, 4), 1, (4, 4)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("wrong", [1.01, -0.01, float("nan"), float("inf")])
def test_values_out_of_range_are_refused(wrong):
    images = torch.full((2, 1, 4, 4), 0.5)
    images[1, 0, 2, 2] = wrong
    with pytest.raises(ValueError, match=r"image values must lie in \[0, 1\]"):
        as_images(images, 1, (4, 4))


def test_bytes_in_a_wider_type_are_out_of_range():
    with pytest.raises(ValueError, match=r"\(or be uint8\), got 0 to 255"):
        as_images(np.array([[[0, 255]]]), 1, (1, 2))


def test_one_image_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"images must be \(B, H, W\) or \(B, 1, H, W\), got \(4, 4\)"):
        as_images(np.zeros((4, 4)), 1, (4, 4))


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="there are no images"):
        as_images([], 1, (4, 4))
