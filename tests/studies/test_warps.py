"""PCK of images against themselves after a random known warp."""

import numpy as np
import pytest
from PIL import Image

from studies.reading.warps import warped_pck


def smooth(n=3, height=48, width=40, channels=16, seed=0):
    """Images whose every small part is different, smooth enough to be resampled."""
    rng = np.random.default_rng(seed)
    small = rng.random((n, height // 4, width // 4, channels)).astype(np.float32)
    enlarge = [
        np.stack([np.asarray(Image.fromarray(image[..., c]).resize((width, height), 2)) for c in range(channels)], -1)
        for image in small
    ]
    return np.stack(enlarge)


def as_features(images):
    return (images - 0.5).transpose(0, 3, 1, 2)


def test_what_moves_with_the_picture_is_found_and_what_does_not_is_lost():
    images = smooth()
    found = warped_pck(images, as_features, alphas=(0.1, 0.03))
    assert found.per_point()[0] > 0.97
    assert found.per_point()[1] > 0.9
    rng = np.random.default_rng(0)
    noise = warped_pck(images, lambda x: rng.normal(size=(len(x), 16, 12, 10)), alphas=(0.1,))
    assert noise.per_point()[0] < 0.15
    assert (noise.points + noise.lost == 64).all()
    assert noise.lost.sum() > 0


def test_features_of_places_fail_by_how_far_the_picture_moved():
    """A code of the position matches every point to its old place, so only small moves pass."""
    rows, columns = np.mgrid[:48, :40]
    places = np.stack([np.cos(rows / 40), np.sin(rows / 40), np.cos(columns / 40), np.sin(columns / 40)])
    still = warped_pck(smooth(), lambda x: np.stack([places] * len(x)), turn=0, zoom=1, shift=0)
    assert still.per_image().tolist() == [1, 1]
    moved = warped_pck(smooth(8), lambda x: np.stack([places] * len(x)), turn=0, zoom=1, shift=0.4, alphas=(0.1, 0.9))
    assert moved.per_point()[0] < 0.5
    assert moved.per_point()[1] == 1


def test_images_and_seed_decide():
    images = smooth()

    def run(x, **options):
        return warped_pck(x, as_features, alphas=(0.02,), **options)

    assert (run(images).found == run(images).found).all()
    assert (run(images).lost[:2] == run(images[:2]).lost).all()
    assert (run(images).lost != run(images, seed=1).lost).any()


def test_grey_bytes_and_upsampling():
    grey = (smooth(channels=1)[..., 0] * 255).astype(np.uint8)
    seen = []

    def patches(x):
        seen.append((x.shape, x.dtype))
        return x.reshape(3, 12, 4, 10, 4).transpose(0, 2, 4, 1, 3).reshape(3, 16, 12, 10) - 127.0

    result = warped_pck(grey, patches, upsample=2, grid=4, turn=5, zoom=1.05)
    assert seen == [((3, 48, 40), np.uint8)] * 2
    assert (result.points + result.lost).tolist() == [16] * 3
    assert result.per_point()[0] > 0.4  # noise would find 0.03


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.ones((4, 4)), {}, "expected \\(n, H, W\\)"),
        (np.ones((1, 4, 4)), {"zoom": 0.5}, "zoom >= 1"),
        (np.ones((1, 4, 4)), {"upsample": 0}, "upsample=0"),
        (np.ones((2, 4, 4, 1)), {"dense": lambda x: np.ones((1, 2, 2, 2))}, r"dense gave \(1, 2, 2, 2\), expected"),
        (np.ones((1, 4, 4, 1)), {"dense": lambda x: np.full((1, 1, 2, 2), np.nan)}, "expected finite features"),
    ],
)
def test_bad_input(images, options, message):
    with pytest.raises(ValueError, match=message):
        warped_pck(images, **{"dense": as_features, **options})
