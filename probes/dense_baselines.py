"""What dense features have to beat: maps of the same cells made of pixels, edges, colours, tokens, or of nothing but
the place. Images are as in `baselines`, maps float32 (n, D, h, w), a grid is (h, w); nothing here learns anything.
"""

import numpy as np
from numpy.typing import ArrayLike

from .baselines import Features, as_pictures, as_tokens, cell_edges, unit

Grid = tuple[int, int]


def pixel_maps(images: ArrayLike, grid: Grid) -> Features:
    """Return the pixels of each cell, (n, cell height * cell width * C, h, w)."""
    pictures = _divided(images, grid)
    return np.ascontiguousarray(pictures.transpose(0, 2, 4, 5, 1, 3)).reshape(len(pictures), -1, *grid)


def colour_maps(images: ArrayLike, grid: Grid) -> Features:
    """Return the mean colour of each cell, (n, C, h, w)."""
    return _divided(images, grid).mean(axis=(2, 4)).transpose(0, 3, 1, 2)


def hog_maps(images: ArrayLike, grid: Grid, orientations: int = 9) -> Features:
    """How strong edges of each direction are in each cell, relative to each of the four blocks of 2 x 2 cells that hold
    it (n, 4 * orientations, h, w). Cells at the border are repeated outside."""
    pictures = as_pictures(images)
    _, height, width, _ = pictures.shape
    if orientations < 1 or min(grid) < 1 or height < max(2, grid[0]) or width < max(2, grid[1]):
        raise ValueError(
            f"images are {height} x {width}, grid={grid}, orientations={orientations}: expected "
            "a pixel for each cell, two a side or more, and one orientation or more."
        )
    return np.concatenate([_relative(cells) for cells in cell_edges(pictures, grid, orientations)]).astype(np.float32)


def code_maps(tokens: ArrayLike, codebook: ArrayLike, grid: Grid) -> Features:
    """Return the tokenizer's own vectors of the tokens (n, c, h, w). tokens: (n, h * w), row by row. codebook:
    (vocab_size, c)."""
    vectors = np.asarray(codebook, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"codebook has shape {vectors.shape}, expected (vocab_size, c); give one vector per token.")
    codes = as_tokens(tokens, len(vectors))
    if codes.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"tokens have shape {codes.shape} for a grid of {grid[0]} x {grid[1]}; give one per cell.")
    return np.moveaxis(vectors[codes.reshape(len(codes), *grid)], 3, 1)


def place_maps(n: int, grid: Grid) -> Features:
    """Where each cell lies and nothing else (n, 4, h, w), all images alike: by cosine a cell is most like the one at
    the same place, then like those around it. It takes the memory of one image."""
    if n < 1 or min(grid) < 1:
        raise ValueError(f"n={n}, grid={grid}: expected one image and one cell or more.")
    row, column = (np.pi * (np.indices(grid)[axis] + 0.5) / grid[axis] for axis in (0, 1))
    place = np.stack([np.cos(row), np.sin(row), np.cos(column), np.sin(column)]).astype(np.float32)
    return np.broadcast_to(place, (n, *place.shape))


def _divided(images: ArrayLike, grid: Grid) -> Features:
    """Pictures as (n, h, cell height, w, cell width, C)."""
    pictures = as_pictures(images)
    n, height, width, channels = pictures.shape
    h, w = grid
    if min(grid) < 1 or height % h or width % w:
        raise ValueError(f"images are {height} x {width}, which {h} x {w} cells do not divide; scale them first.")
    return pictures.reshape(n, h, height // h, w, width // w, channels)


def _relative(cells: Features) -> Features:
    """Cells (n, h, w, o) -> (n, 4 * o, h, w): each by the length of each block that holds it, no number above 0.2."""
    _, h, w, _ = cells.shape
    around = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    squares = np.square(around).sum(axis=3, keepdims=True)
    blocks = squares[:, :-1, :-1] + squares[:, 1:, :-1] + squares[:, :-1, 1:] + squares[:, 1:, 1:]
    lengths = [np.sqrt(blocks[:, top : top + h, left : left + w] + 1e-6) for top in (0, 1) for left in (0, 1)]
    flat = np.concatenate([np.minimum(cells / length, 0.2) for length in lengths], axis=3)
    return unit(flat).transpose(0, 3, 1, 2)
