"""Dense maps that features have to beat, against loops over cells."""

import numpy as np
import pytest
from randfeat.probes import code_maps, colour_maps, hog_maps, pixel_maps, place_maps
from randfeat.probes.tasks.correspondence import match


def pictures(n=3, height=12, width=10, seed=0):
    return np.random.default_rng(seed).integers(256, size=(n, height, width, 3), dtype=np.uint8)


def test_pixels_and_colours_are_those_of_the_cell():
    images, grid = pictures(), (4, 5)
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
    assert hog_maps(pictures(), (12, 10)).shape == (3, 36, 12, 10)


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
        (lambda: pixel_maps(pictures(), (5, 5)), "12 x 10, which 5 x 5 cells do not divide"),
        (lambda: colour_maps(pictures(), (0, 5)), "do not divide"),
        (lambda: hog_maps(pictures(), (13, 2)), "expected a pixel for each cell"),
        (lambda: hog_maps(pictures(), (2, 2), 0), "one orientation or more"),
        (lambda: code_maps([[0, 1]], np.eye(2), (3, 1)), "for a grid of 3 x 1; give one per cell"),
        (lambda: code_maps([[0, 2]], np.eye(2), (2, 1)), "reach from 0 to 2, expected 0 to 1"),
        (lambda: code_maps([[0]], [1.0], (1, 1)), r"codebook has shape \(1,\)"),
        (lambda: place_maps(0, (2, 2)), "n=0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
