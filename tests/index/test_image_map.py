import numpy as np
import pytest
import torch
from PIL import Image

from randfeat.index import image_map

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def groups(count):
    """Pictures of two colours in turn, and features in which the colours lie far apart."""
    noise = np.random.default_rng(0).normal(size=(count, 60)).astype(np.float32)
    kinds = [list(COLOURS.values())[i % 2] for i in range(count)]
    noise[:, 0] += [20 if kind == COLOURS["red"] else -20 for kind in kinds]
    return [Image.new("RGB", (30, 20), kind) for kind in kinds], noise


def places(canvas, colour):
    """Rows and columns of the pixels of a colour."""
    return np.argwhere((np.array(canvas) == colour).all(-1))


def test_alike_images_lie_together_and_none_hides_another():
    pictures, features = groups(80)
    canvas = image_map.image_map(pictures, features, size=400)
    assert canvas.size == (400, 400)
    red, blue = (places(canvas, colour) for colour in COLOURS.values())
    width = 400 // 15 - image_map.GAP  # 80 images in 15 x 15 cells
    assert len(red) == len(blue) == 40 * width**2
    between = np.linalg.norm(red.mean(0) - blue.mean(0))
    assert between > 3 * max(np.median(np.linalg.norm(group - group.mean(0), axis=1)) for group in (red, blue)) / 2


def test_paths_and_a_seed(tmp_path):
    pictures, features = groups(12)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    maps = [image_map.image_map(images, features, size=100).tobytes() for images in (pictures, paths)]
    assert maps[0] == maps[1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_few_images(count):
    pictures, features = groups(count)
    canvas = image_map.image_map(pictures, features, size=100)
    assert sum(len(places(canvas, colour)) for colour in COLOURS.values()) == count * _pixels(canvas, count)


def _pixels(canvas, count):
    side = int((image_map.ROOM * count + 0.5) ** 0.5) + 1
    return (canvas.width // side - image_map.GAP) ** 2


def test_of_many_images_an_even_share_is_shown(monkeypatch):
    monkeypatch.setattr(image_map, "MOST", 10)
    pictures, features = groups(80)
    canvas = image_map.image_map(pictures, features, size=100)
    assert sum(len(places(canvas, colour)) for colour in COLOURS.values()) == 10 * _pixels(canvas, 10)


def test_features_that_are_all_the_same_are_no_reason_to_fall_over():
    pictures, _ = groups(30)
    for same in (np.ones((30, 4)), np.zeros((30, 60)), np.ones((30, 1)), np.arange(30.0)[:, None]):
        canvas = image_map.image_map(pictures, same, size=100)
        assert sum(len(places(canvas, colour)) for colour in COLOURS.values()) == 30 * _pixels(canvas, 30)


def test_arrays_are_images_too():
    pictures, features = groups(12)
    expected = image_map.image_map(pictures, features, size=100).tobytes()
    arrays = np.stack([np.array(picture) for picture in pictures])
    floats = torch.from_numpy(arrays).movedim(-1, 1) / 255
    for images in (arrays, list(arrays), floats, (picture for picture in pictures)):
        assert image_map.image_map(images, features, size=100).tobytes() == expected


def test_what_does_not_fit_is_refused():
    pictures, features = groups(4)
    for images, rows in ((pictures[:3], features), (pictures, features[0]), ([], features[:0])):
        with pytest.raises(ValueError, match="a map takes features"):
            image_map.image_map(images, rows)
    features[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"the feature of image 2 \(of 1\) is not finite"):
        image_map.image_map(pictures, features)
