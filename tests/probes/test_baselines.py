import numpy as np
import pytest
from randfeat.probes import (
    RBFSVM,
    PatchCounts,
    code_maps,
    colour_histogram,
    colour_maps,
    hog,
    hog_maps,
    match,
    pixel_maps,
    pixels,
    place_maps,
    recentred,
    token_codes,
    token_counts,
)
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline


def pictures(n=4, height=12, width=10, channels=3, seed=0):
    return np.random.default_rng(seed).integers(256, size=(n, height, width, channels), dtype=np.uint8)


def test_pixels_are_the_pixels():
    images = pictures()
    np.testing.assert_allclose(pixels(images), images.reshape(4, -1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(pixels(images[..., 0].astype(np.float64)), images[..., 0].reshape(4, -1))
    assert pixels(images).dtype == np.float32


@pytest.mark.parametrize("paper", [0, 200])
def test_a_drawing_is_recentred_wherever_it_was(paper):
    drawing = np.full((20, 16, 3), paper, dtype=np.uint8)
    drawing[8:11, 6:9] = pictures(1, 3, 3)[0]
    moved = np.stack([np.roll(drawing, (y, x), axis=(0, 1)) for y in (-5, 0, 6) for x in (-3, 0, 5)])
    centred = recentred(moved)
    np.testing.assert_array_equal(centred, centred[:1].repeat(9, axis=0))
    assert not (recentred(moved[:1]) == pixels(moved[:1])).all()


def test_recentring_moves_by_whole_pixels_and_loses_nothing_central():
    image = np.zeros((1, 9, 7))
    image[0, 1, 5] = 1
    expected = np.zeros((1, 9, 7))
    expected[0, 4, 3] = 1
    np.testing.assert_array_equal(recentred(image), expected.reshape(1, -1))
    blank = np.full((2, 5, 5), 0.3)
    np.testing.assert_array_equal(recentred(blank), pixels(blank))


def slow_hog(image, cells_y, cells_x, orientations):
    """One pixel at a time: two directions and up to four cells share its gradient."""
    height, width = image.shape
    by_row, by_column = np.gradient(image)
    cells = np.zeros((cells_y, cells_x, orientations))
    for y in range(height):
        for x in range(width):
            strength = np.hypot(by_row[y, x], by_column[y, x])
            direction = np.arctan2(by_row[y, x], by_column[y, x]) % np.pi / np.pi * orientations
            low, part = int(direction) % orientations, direction % 1
            row, column = (y + 0.5) * cells_y / height - 0.5, (x + 0.5) * cells_x / width - 0.5
            for i in range(cells_y):
                for j in range(cells_x):
                    near = max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
                    cells[i, j, low] += near * strength * (1 - part)
                    cells[i, j, (low + 1) % orientations] += near * strength * part
    blocks = []
    for i in range(cells_y - 1):
        for j in range(cells_x - 1):
            block = cells[i : i + 2, j : j + 2].transpose(2, 0, 1).ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-6), 0.2)
            blocks.append(block / np.sqrt((block**2).sum() + 1e-6))
    return np.concatenate(blocks)


@pytest.mark.parametrize("cell", [2, 3, 5])
def test_hog_is_its_definition(cell):
    images = np.random.default_rng(0).random((3, 13, 10))
    expected = [slow_hog(image, 13 // cell, 10 // cell, 6) for image in images]
    np.testing.assert_allclose(hog(images, cell, 6), expected, atol=1e-5)


def test_hog_sees_edges_not_brightness():
    stripes = np.tile(np.repeat([0.2, 0.8], 4), (16, 2))[None]
    made = hog(stripes, cell=8, orientations=4).reshape(4, 2, 2)
    assert (made[0] > 0.4).all()  # brightness changes along a row
    np.testing.assert_allclose(made[1:], 0, atol=1e-6)
    turned = hog(stripes.transpose(0, 2, 1), cell=8, orientations=4).reshape(4, 2, 2)
    assert (turned[2] > 0.4).all()
    np.testing.assert_allclose(hog(stripes / 2 + 0.3), hog(stripes), atol=1e-3)
    np.testing.assert_allclose(hog(1 - stripes), hog(stripes), atol=1e-5)
    assert (hog(np.ones((2, 8, 8))) == 0).all()


def test_hog_takes_the_strongest_channel_and_works_in_blocks(monkeypatch):
    images = pictures(5)
    np.testing.assert_allclose(hog(images * np.array([0, 1, 0]) / 255), hog(images[..., 1]), atol=1e-5)
    whole = hog(images)
    monkeypatch.setattr("randfeat.probes.baselines._BLOCK", 2000)
    np.testing.assert_allclose(hog(images), whole, atol=1e-6)


def test_colours_are_counted_together():
    image = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    image[0, 0, 0] = 255, 0, 0
    image[0, 0, 1] = 0, 200, 0
    made = colour_histogram(image, bins=2).reshape(2, 2, 2)
    assert (made[0, 0, 0], made[0, 0, 1], made[0, 1, 0]) == (0.5, 0.25, 0.25)
    shuffled = np.random.default_rng(0).permutation(pictures(1)[0].reshape(-1, 3)).reshape(1, 12, 10, 3)
    np.testing.assert_array_equal(colour_histogram(shuffled), colour_histogram(pictures(1)))
    np.testing.assert_allclose(colour_histogram(pictures()).sum(1), 1, rtol=1e-5)
    assert colour_histogram(pictures()[..., 0], bins=16).shape == (4, 16)


def test_tokens():
    tokens = np.array([[0, 2, 2], [1, 1, 1]], dtype=np.uint16)
    assert token_counts(tokens, 4).tolist() == [[1, 0, 2, 0], [0, 3, 0, 0]]
    codebook = np.arange(8.0).reshape(4, 2)
    assert token_codes(tokens, codebook)[0].tolist() == [0, 1, 4, 5, 4, 5]


def test_patches_are_counted_by_kind_and_place():
    """Two kinds of patches: dark on the left, bright on the right."""
    images = np.zeros((3, 8, 8))
    images[:, :, 4:] = 1
    images[2] = 0
    model = PatchCounts(words=9, patch=4, stride=4).fit(images)
    counts = model.transform(images)
    assert counts.shape == (3, 2)  # no more kinds than there are
    assert sorted(counts[0]) == [0.5, 0.5]
    assert sorted(counts[2]) == [0, 1]
    places = PatchCounts(words=2, patch=4, stride=4, cells=2).fit(images).transform(images)
    assert places.shape == (3, 8)
    assert sorted(places[0]) == [0] * 4 + [0.25] * 4
    np.testing.assert_allclose(places.reshape(3, 4, 2).sum(1), counts)


def test_patches_of_a_new_image_belong_to_the_nearest_centre():
    images = pictures(6)
    model = PatchCounts(words=5, patch=3, stride=2).fit(images[:4])
    made = model.transform(images[4:])
    for image, counts in zip(images[4:] / np.float32(255), made, strict=True):
        patches = [
            image[y : y + 3, x : x + 3].transpose(2, 0, 1).ravel() for y in range(0, 10, 2) for x in range(0, 8, 2)
        ]
        apart = np.square(np.array(patches)[:, None] - model.kmeans_.cluster_centers_).sum(-1)
        np.testing.assert_allclose(counts, np.bincount(apart.argmin(1), minlength=5) / len(patches), rtol=1e-6)
    assert (made == PatchCounts(words=5, patch=3, stride=2).fit(images[:4]).transform(images[4:])).all()


def test_they_are_strong_on_digits():
    digits = load_digits()
    images, y = digits.images / 16, digits.target
    fit, test = slice(0, 700), slice(900, 1797)
    for features, least in ((hog(images), 0.94), (recentred(images), 0.92)):
        assert RBFSVM(C=10).fit(features[fit], y[fit]).score(features[test], y[test]) > least
    bag = make_pipeline(PatchCounts(64, patch=3, stride=1, cells=2), RBFSVM(C=10)).fit(images[fit], y[fit])
    assert bag.score(images[test], y[test]) > 0.9


@pytest.mark.parametrize("make", [pixels, recentred, hog, colour_histogram, PatchCounts().fit])
def test_bad_images(make):
    with pytest.raises(ValueError, match=r"images are float64 \(3, 4\), expected"):
        make(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"expected numbers"):
        make(np.ones((0, 4, 4)))
    bad = np.ones((3, 4, 4))
    bad[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"images hold NaN or infinity in 1 of 3 rows \(first: 1\)"):
        make(bad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hog(np.ones((1, 1, 9))), "expected two pixels"),
        (lambda: hog(pictures(), cell=0), "cell=0"),
        (lambda: colour_histogram(np.full((1, 2, 2), 16.0)), "reach from 16 to 16, expected 0 to 1"),
        (lambda: colour_histogram(pictures(), bins=99), "take fewer bins"),
        (lambda: token_counts([[0, 4]], 4), "reach from 0 to 4, expected 0 to 3"),
        (lambda: token_counts([[0.5]], 4), r"tokens are float64 \(1, 1\)"),
        (lambda: token_codes([[0]], [1.0]), r"codebook has shape \(1,\)"),
        (lambda: PatchCounts(words=0).fit(pictures()), "words=0"),
        (lambda: PatchCounts(patch=11).fit(pictures()), "smaller than a patch of 11"),
        (lambda: PatchCounts(words=3).fit(pictures()).transform(pictures()[..., 0]), "have 1 channels, .* had 3"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# dense maps ---------------------------------------------------------------------------------------------------------


def test_pixels_and_colours_are_those_of_the_cell():
    images, grid = pictures(3), (4, 5)
    maps, colours = pixel_maps(images, grid), colour_maps(images, grid)
    assert maps.shape == (3, 3 * 2 * 3, 4, 5)
    assert colours.shape == (3, 3, 4, 5)
    for row in range(4):
        for column in range(5):
            cell = images[:, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2] / 255
            np.testing.assert_allclose(maps[:, :, row, column], cell.reshape(3, -1), rtol=1e-6)
            np.testing.assert_allclose(colours[:, :, row, column], cell.mean((1, 2)), rtol=1e-6)


def test_edges_are_relative_to_the_four_blocks_around():
    """Stripes change along a row everywhere; a faint half is as clear as a strong one but for the seam."""
    stripes = np.tile(np.repeat([0.2, 0.8], 4), (32, 4))[None]
    made = hog_maps(stripes, (4, 4), orientations=4)
    assert made.shape == (1, 16, 4, 4)
    np.testing.assert_allclose(np.square(made).sum(1), 1, atol=1e-3)
    by_direction = made.reshape(4, 4, 4, 4)  # blocks, directions, rows, columns
    assert (by_direction[:, 0] > 0.4).all()
    np.testing.assert_allclose(by_direction[:, 1:], 0, atol=1e-6)
    np.testing.assert_allclose(hog_maps(stripes / 3 + 0.1, (4, 4), 4), made, atol=1e-3)
    turned = hog_maps(stripes.transpose(0, 2, 1), (4, 4), orientations=4).reshape(4, 4, 4, 4)
    np.testing.assert_allclose(turned[:, 2], by_direction[:, 0].transpose(0, 2, 1), atol=1e-5)
    assert (hog_maps(np.ones((2, 8, 8)), (2, 2)) == 0).all()
    assert hog_maps(pictures(3), (12, 10)).shape == (3, 36, 12, 10)


def test_codes_lie_where_their_tokens_do():
    book = np.arange(8.0).reshape(4, 2)
    made = code_maps(np.array([[0, 1, 2, 3, 3, 3]], dtype=np.uint16), book, (2, 3))
    assert made[0, 0].tolist() == [[0, 2, 4], [6, 6, 6]]
    assert made[0, 1].tolist() == [[1, 3, 5], [7, 7, 7]]


@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (1, 5), (16, 16)])
def test_the_nearest_neighbour_of_a_place_is_the_same_place(grid):
    one, other = place_maps(2, grid)
    rows, columns = np.indices(grid)
    centres = np.stack([(columns.ravel() + 0.5) / grid[1], (rows.ravel() + 0.5) / grid[0]], axis=1)
    np.testing.assert_allclose(match(one, other, centres), centres)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pixel_maps(pictures(3), (5, 5)), "12 x 10, which 5 x 5 cells do not divide"),
        (lambda: colour_maps(pictures(3), (0, 5)), "do not divide"),
        (lambda: hog_maps(pictures(3), (13, 2)), "expected a pixel for each cell"),
        (lambda: hog_maps(pictures(3), (2, 2), 0), "one orientation or more"),
        (lambda: code_maps([[0, 1]], np.eye(2), (3, 1)), "for a grid of 3 x 1; give one per cell"),
        (lambda: code_maps([[0, 2]], np.eye(2), (2, 1)), "reach from 0 to 2, expected 0 to 1"),
        (lambda: code_maps([[0]], [1.0], (1, 1)), r"codebook has shape \(1,\)"),
        (lambda: place_maps(0, (2, 2)), "n=0"),
    ],
)
def test_bad_input_of_maps(call, message):
    with pytest.raises(ValueError, match=message):
        call()
