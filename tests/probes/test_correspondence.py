import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from keypoints import CELLS, one_hot, pair, right_and_wrong_pairs
from randfeat.probes import Placement, bootstrap, match, pck, read_spair, stretched
from torch.nn import functional as F


def centred(size, side):
    return Placement((1.0, 1.0), ((side - size[0]) / 2, (side - size[1]) / 2), (side, side))


def centre_cropped(size):
    """The largest centred square of a picture fills the input."""
    return centred(size, min(size))


def padded(size):
    """The picture stands in the middle of a square input."""
    return centred(size, max(size))


def test_a_hand_computed_pair():
    # The target holds the source's cells mirrored: cell (row, column) is found at (row, 3 - column).
    maps = {Path("a"): one_hot(CELLS), Path("b"): one_hot(CELLS[:, ::-1])}
    # the centres of cells lie at pixels 4.5, 14.5, ...; a box of 40 x 20 allows errors below 4 and 2 pixels
    source = [(4, 4), (12, 25), (33, 38)]
    target = [(34.5, 4.5), (24.5, 27), (4.5, 38.6)]  # errors 0, 2.5 and 4.1
    result = pck([pair(source, target)], maps.__getitem__)
    assert (result.alphas, result.points.tolist(), result.lost.tolist()) == ((0.1, 0.05), [3], [0])
    assert result.found.tolist() == [[2, 1]]
    assert result.per_point() == pytest.approx([2 / 3, 1 / 3])


def test_an_error_of_exactly_alpha_is_wrong():
    maps = {Path("a"): one_hot(CELLS), Path("b"): one_hot(CELLS)}
    at = [(4, 4)] * 2
    assert pck([pair(at, [(8.5, 4.5), (8.4375, 4.5)])], maps.__getitem__, alphas=(0.1,)).found.tolist() == [[1]]


def test_averages_over_points_and_over_images_are_told_apart():
    maps, pairs = right_and_wrong_pairs()
    result = pck(pairs, maps.__getitem__, alphas=(0.1,))
    assert result.per_point() == pytest.approx([2 / 6])
    assert result.per_image() == pytest.approx([(1 + 1 / 3 + 0) / 3])
    assert result.per_point("cat") == pytest.approx([2 / 4])
    assert result.per_image("cat") == pytest.approx([(1 + 1 / 3) / 2])
    assert result.per_point("dog") == [0]
    assert bootstrap(result.scores()[:, 0]).value == pytest.approx(result.per_image()[0])
    with pytest.raises(ValueError, match="no point of owl lies in both inputs"):
        result.per_image("owl")


def test_points_that_were_cropped_away_are_counted():
    maps = {Path("a"): one_hot(CELLS), Path("b"): one_hot(CELLS)}
    points = [(5, 5), (25, 5), (55, 5), (39, 5)]  # the middle square of 80 x 40 spans 20..59
    other = [(25, 5), (25, 5), (55, 5), (60, 5)]
    result = pck([pair(points, other, size=(80, 40))], maps.__getitem__, place=centre_cropped)
    assert (result.points.tolist(), result.lost.tolist(), result.found[0, 0]) == ([2], [2], 2)


@pytest.mark.parametrize("place", [stretched, centre_cropped, padded])
def test_a_placement_is_how_pictures_are_resized(place):
    """A bright pixel is found where the placement says, after the resizing itself."""
    for size in ((90, 40), (40, 90)):
        width, height = size
        picture = torch.zeros(1, 1, height, width)
        x, y = width // 2 + 7, height // 2 - 6
        picture[0, 0, y, x] = 1
        side, longer = min(size), max(size)
        if place is centre_cropped:
            left, top = (width - side) // 2, (height - side) // 2
            picture = picture[..., top : top + side, left : left + side]
        if place is padded:
            picture = F.pad(picture, ((longer - width) // 2,) * 2 + ((longer - height) // 2,) * 2)
        resized = F.interpolate(picture, size=(320, 320), mode="bilinear")[0, 0]
        mass = resized / resized.sum()
        middles = (torch.arange(320) + 0.5) / 320
        centre = [mass.sum(0) @ middles, mass.sum(1) @ middles]
        point = np.array([[x, y]], dtype=float)
        np.testing.assert_allclose(place(size).into(point)[0], centre, atol=1e-4)
        np.testing.assert_allclose(place(size).back(place(size).into(point)), point)


def cosines(source, target, point, upsample):
    """Similarities of one point's feature with every cell, both maps enlarged by torch."""
    enlarged = []
    for features in (source, target):
        torched = torch.tensor(features)[None]
        enlarged.append(F.interpolate(torched, scale_factor=upsample, mode="bilinear")[0].numpy())
    source, target = enlarged
    wanted = source[:, int(point[1] * source.shape[1]), int(point[0] * source.shape[2])]
    return np.einsum("d,dhw->hw", wanted, target) / np.linalg.norm(target, axis=0) / np.linalg.norm(wanted)


@given(st.integers(0, 99), st.sampled_from([1, 2, 5]), st.tuples(*[st.integers(1, 6)] * 4))
@settings(max_examples=60, deadline=None)
def test_matches_have_the_highest_cosine_of_the_enlarged_maps(seed, upsample, sizes):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(5, *sizes[:2])).astype(np.float32)
    target = rng.normal(size=(5, *sizes[2:])).astype(np.float32)
    at = rng.random((7, 2))
    for point, found in zip(at, match(source, target, at, upsample), strict=True):
        every = cosines(source, target, point, upsample)
        column, row = np.floor(found * every.shape[::-1]).astype(int)
        np.testing.assert_allclose(found, (np.array([column, row]) + 0.5) / every.shape[::-1])
        assert every[row, column] >= every.max() - 1e-5


def test_length_does_not_matter_and_zero_features_are_like_nothing():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(4, 5, 5)).astype(np.float32)
    at = rng.random((6, 2))
    longer = cells * rng.uniform(0.1, 9, size=(1, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(match(cells, cells, at), match(longer, longer, at))
    assert match(np.zeros((4, 2, 2)), cells, at).shape == (6, 2)
    empty = -np.ones((4, 2, 2))
    empty[:, 1, 1] = 0
    assert (match(np.ones((4, 1, 1)), empty, at[:1]) == [0.75, 0.75]).all()


def spair(root, **changes):
    held = {
        "src_imname": "a.jpg",
        "trg_imname": "b.jpg",
        "category": "cat",
        "src_imsize": [500, 375, 3],
        "trg_imsize": [300, 200, 3],
        "src_bndbox": [10, 20, 110, 220],
        "trg_bndbox": [0, 0, 50, 30],
        "src_kps": [[12, 30], [100, 200]],
        "trg_kps": [[1, 2], [40, 20]],
    } | changes
    folder = root / "PairAnnotation" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "000001-a-b:cat.json").write_text(json.dumps({k: v for k, v in held.items() if v is not None}))


def test_spair_is_read(tmp_path):
    spair(tmp_path)
    (read,) = read_spair(tmp_path)
    assert (read.source, read.target) == (tmp_path / "JPEGImages/cat/a.jpg", tmp_path / "JPEGImages/cat/b.jpg")
    assert (read.category, read.source_size, read.target_size) == ("cat", (500, 375), (300, 200))
    assert (read.source_box, read.target_box) == ((10, 20, 110, 220), (0, 0, 50, 30))
    assert read.source_points.tolist() == [[12, 30], [100, 200]]
    same = np.random.default_rng(0).normal(size=(8, 30, 20))
    result = pck([read], lambda path: same, alphas=(0.1, 10))
    assert (result.points.tolist(), result.found[0, 1]) == ([2], 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"trg_kps": [[1, 2]]},
        {"src_kps": None},
        {"trg_bndbox": [0, 0, 5]},
        {"trg_bndbox": [5, 0, 5, 9]},
        {"src_imsize": 3},
    ],
)
def test_a_broken_pair_is_named(tmp_path, changes):
    spair(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"a-b:cat\.json is no pair of SPair-71k"):
        read_spair(tmp_path)


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no PairAnnotation/val/\*\.json"):
        read_spair(tmp_path, "val")
    fine, pairs = np.ones((2, 3, 3)), [pair([(1, 1)], [(1, 1)])]
    for broken, message in (
        (np.ones((3, 3)), r"features of a are float64 \(3, 3\)"),
        (fine * np.nan, "features of a hold NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            pck(pairs, {Path("a"): broken, Path("b"): fine}.__getitem__)
    with pytest.raises(ValueError, match="have 2 and 1 dimensions"):
        pck(pairs, {Path("a"): fine, Path("b"): fine[:1]}.__getitem__)
    with pytest.raises(ValueError, match="pairs are empty"):
        pck([], lambda path: fine)
    for options in ({"alphas": ()}, {"alphas": (0,)}, {"upsample": 0}):
        with pytest.raises(ValueError, match="expected alphas > 0"):
            pck(pairs, lambda path: fine, **options)
