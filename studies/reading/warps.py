"""PCK without annotations: the points of an image are matched with those of a known random warp of it."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from randfeat.probes import PCK, match, stretched
from randfeat.probes.tasks.correspondence import check_options, inner, tabulate


def warped_pck(
    images: ArrayLike,
    dense: Callable[[NDArray], ArrayLike],
    alphas: Sequence[float] = (0.1, 0.05),
    turn: float = 30.0,
    zoom: float = 1.25,
    shift: float = 0.1,
    grid: int = 8,
    seed: int = 0,
    upsample: int = 1,
) -> PCK:
    """Return the PCK of images against themselves after a random known warp.

    images: (n, H, W) or (n, H, W, C), uint8 or float. dense: maps such images to features (n, D, h, w).
    alphas: shares of max(height, width) of the image. turn: largest angle in degrees. zoom: largest factor, in or out.
    shift: largest share of each side. grid: grid x grid points are spread over each image; points that leave the
    picture are lost. Beyond the picture its edge is repeated, because a mirror would hold points twice. The warps
    depend on the seed and on the position of an image in the list only.
    """
    check_options(alphas, upsample)
    pictures = np.asarray(images)
    if pictures.ndim not in (3, 4) or not pictures.size or grid < 1 or zoom < 1 or shift < 0:
        raise ValueError(
            f"images have shape {pictures.shape}, zoom={zoom}, shift={shift}, grid={grid}; expected "
            "(n, H, W) or (n, H, W, C), zoom >= 1, shift >= 0 and grid >= 1."
        )
    height, width = pictures.shape[1:3]
    warps = [_draw(np.random.default_rng([seed, i]), turn, zoom, shift) for i in range(len(pictures))]
    moved = np.stack([_warp(picture, *warp) for picture, warp in zip(pictures, warps, strict=True)])
    maps = [np.asarray(dense(side), dtype=np.float32) for side in (pictures, moved)]
    if maps[0].ndim != 4 or len(maps[0]) != len(pictures) or not all(np.isfinite(m).all() for m in maps):
        raise ValueError(f"dense gave {maps[0].shape}, expected finite features ({len(pictures)}, D, h, w).")
    place = stretched((width, height))
    ticks = (np.arange(grid) + 0.5) / grid
    shares = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    points = place.back(shares)
    rows = []
    for source, target, (matrix, move) in zip(*maps, warps, strict=True):
        wanted = _moved(points, matrix, move, height, width)
        inside = inner(place.into(wanted))
        matched = place.back(match(source, target, shares[inside], upsample))
        error = np.linalg.norm(matched - wanted[inside], axis=1) / max(height, width)
        rows.append((error, int((~inside).sum())))
    return tabulate(rows, ["warp"] * len(pictures), alphas)


def _draw(rng: np.random.Generator, turn: float, zoom: float, shift: float) -> tuple[NDArray, NDArray]:
    """Draw the matrix (2, 2) that multiplies points around the image's centre, and the shift in shares of its sides."""
    angle = math.radians(turn) * rng.uniform(-1, 1)
    scale = zoom ** rng.uniform(-1, 1)
    matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return matrix, shift * rng.uniform(-1, 1, size=2)


def _moved(points: NDArray, matrix: NDArray, move: NDArray, height: int, width: int) -> NDArray[np.float64]:
    centre = np.array([width - 1, height - 1]) / 2
    return (points - centre) @ matrix.T + centre + move * (width, height)


def _warp(picture: NDArray, matrix: NDArray, move: NDArray) -> NDArray:
    """Return the picture (H, W) or (H, W, C) warped so that each point lies where `_moved` puts it."""
    from scipy.ndimage import affine_transform

    height, width = picture.shape[:2]
    centre = np.array([width - 1, height - 1]) / 2
    back = np.linalg.inv(matrix)
    offset = centre - back @ (centre + move * (width, height))
    channels = [
        affine_transform(channel, back[::-1, ::-1], offset[::-1], order=1, mode="nearest")  # rows come before columns
        for channel in np.moveaxis(picture.reshape(height, width, -1), -1, 0)
    ]
    return np.stack(channels, axis=-1).reshape(picture.shape)
