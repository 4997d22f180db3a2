"""Crops of images, of pictures and of values."""

from __future__ import annotations

from dataclasses import replace

import bands
import numpy as np
import pytest
from crops import RULES, SIZE, VALUE_RULES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from randfeat.pretrain import CentreCrops, MovedCrops, RandomCrops, TenCrops

from randfeat.data.images import CentreCrop


def gradient(width, height):
    """Red says the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], -1).astype(np.uint8))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_every_rule_makes_its_crops_of_any_picture_the_first_from_the_middle(width, height, number):
    picture = Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for rule in RULES.values():
        crops = rule(picture, number)
        assert crops.shape == (rule.count, *SIZE, 3)
        assert crops.dtype == np.uint8
        assert (rule(picture, number) == crops).all()
    middle = CentreCrop(SIZE, 3)(picture)
    for rule in (RULES[name] for name in ("centre", "flip", "random", "moved")):
        assert (rule(picture, number)[0] == middle).all()
    assert (RULES["flip"](picture, number)[1] == middle[:, ::-1]).all()
    grey = CentreCrops(SIZE, 1)(picture, number)
    assert grey.shape == (2, *SIZE, 1)


def test_ten_crops_are_the_corners_of_a_larger_crop():
    crops = TenCrops((4, 4), 3, (2.0,))(gradient(8, 8), 0)  # the larger crop is the picture itself
    origins = [(crop[0, 0, 1], crop[0, 0, 0]) for crop in crops[:5]]
    assert origins == [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    assert (crops[5:] == crops[:5, :, ::-1]).all()
    assert TenCrops((4, 4), 3, (1.1, 1.05)).count == 20


def test_random_crops_have_the_area_and_shape_that_was_asked_for():
    rule = RandomCrops((8, 8), 3, 200, scale=(0.2, 0.5), ratio=(0.5, 2), seed=1)
    crops = rule(gradient(200, 200), 3)[1:].astype(float)
    spans = [np.abs(crops[:, 0, -1, 0] - crops[:, 0, 0, 0]), np.abs(crops[:, -1, 0, 1] - crops[:, 0, 0, 1])]
    width, height = (span * 8 / 7 for span in spans)  # pixels are averages around their middles
    area, ratio = width * height / 200**2, width / height
    assert 0.15 < area.min() < 0.25
    assert 0.45 < area.max() < 0.58
    assert 0.4 < ratio.min() < 0.65
    assert 1.6 < ratio.max() < 2.4
    assert 0.35 < (crops[:, 0, -1, 0] < crops[:, 0, 0, 0]).mean() < 0.65  # mirrored
    assert not (rule(gradient(200, 200), 4)[1:] == crops).all()


def test_the_contrast_of_random_crops_changes_their_values_alone():
    picture = gradient(20, 20)
    plain, changed = (RandomCrops((8, 8), 3, 300, contrast=contrast)(picture, 3) for contrast in (0, 0.5))
    assert (plain[0] == changed[0]).all()
    bright = plain[1:].max((1, 2, 3)).astype(float)
    factors = changed[1:].max((1, 2, 3)) / bright
    assert 0.48 < factors.min() < 0.55
    assert 1.45 < factors.max() < 1.55
    for crop, other, factor in zip(plain[1:], changed[1:], factors, strict=True):
        assert np.abs(np.minimum(crop * factor, 255) - other).max() < 3
    values = RandomCrops((8, 8), 1, 5, contrast=0.5, value_range=(0.0, 255.0))(np.asarray(picture)[:, :, :1], 3)
    assert values.dtype == np.float32
    assert values.max() <= 1


def test_moved_crops_are_the_centre_crop_moved_and_mirrored():
    picture = gradient(8, 8)
    rule = MovedCrops((8, 8), 3, 200, reach=2)
    middle = np.asarray(picture)
    expected = set()
    for down in range(-2, 3):
        for right in range(-2, 3):
            rows, columns = (np.clip(np.arange(8) + move, 0, 7) for move in (down, right))
            moved = middle[rows][:, columns]
            expected |= {moved.tobytes(), moved[:, ::-1].tobytes()}
    found = {crop.tobytes() for crop in rule(picture, 3)}
    assert found <= expected
    assert len(found) > 0.9 * len(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrops(SIZE, 3, contrast=1.0), "contrast must be from 0 to less than 1"),
        (lambda: MovedCrops(SIZE, 3, 0), "others must be 1 or more moved crops"),
        (lambda: MovedCrops((4, 8), 3, reach=4), "reach must be from 1 to less than the 4 pixels of a side"),
        (lambda: TenCrops(SIZE, 3, ()), "ranges of ten-crops must be one or more numbers from 1 to 4"),
        (lambda: TenCrops(SIZE, 3, (0.9,)), "ranges of ten-crops"),
        (lambda: RandomCrops(SIZE, 3, 0), "others must be 1 or more random crops"),
        (lambda: RandomCrops(SIZE, 3, scale=(0.5, 0.2)), "smaller first"),
        (lambda: RandomCrops(SIZE, 3, ratio=(0, 2)), "two numbers above 0"),
    ],
)
def test_wrong_rules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("rule", VALUE_RULES.values(), ids=VALUE_RULES)
def test_rules_crop_values_as_they_crop_pictures(rule):
    grey = bands.bands(31, 1, np.uint8, 7)
    crops = rule(np.tile(grey, 4).astype(np.uint16) * 257, 3)
    assert crops.shape == (rule.count, *SIZE, 4)
    assert crops.dtype == np.float32
    as_pictures = replace(rule, channels=1, value_range=None)(Image.fromarray(grey[..., 0]), 3)
    np.testing.assert_allclose(crops, np.tile(as_pictures / 255, 4), atol=4 / 255)  # of which each step is rounded
