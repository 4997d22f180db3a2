"""Masks of pictures: from boxes, arrays and pictures to pixels and tokens to paint; filling and pasting by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt
from torch import Tensor

from ...data.decode import as_seen
from ...data.images import Array, Picture, as_picture, layer_of
from ...models.orders import Grid
from ...utils.checks import is_whole_number

Mask: TypeAlias = "Array | Picture | Sequence[int]"  # a sequence is a box
WHITE = 250  # the darkest white of a stroke
NOTHING = 1e-9  # share of a token's area that rounding alone makes


def as_mask(mask: Mask, size: tuple[int, int]) -> np.ndarray:
    """Return a mask as bool (H, W), True where to paint. size: height and width of the picture.

    mask: an array or tensor (H, W), bool or of zeros and ones; a picture or its path, white or transparent where to
    paint, and of one that is white wherever it is not transparent, as editors export strokes, the white pixels alone;
    or a box, left, top, right and bottom in pixels, the last two outside of it.
    """
    h, w = size
    if is_box(mask):
        left, top, right, bottom = (int(side) for side in mask)  # type: ignore[union-attr]
        if not (0 <= left < right <= w and 0 <= top < bottom <= h):
            raise ValueError(
                f"the box {left} {top} {right} {bottom} does not lie in a picture {w} pixels wide and {h} high: "
                "give left, top, right, bottom"
            )
        made = np.zeros(size, dtype=bool)
        made[top:bottom, left:right] = True
        return made
    if isinstance(mask, (Tensor, np.ndarray)):
        values = mask.cpu().numpy() if isinstance(mask, Tensor) else mask
        two_valued = values.dtype == bool or (values.dtype.kind in "iu" and (values.size == 0 or values.max() <= 1))
        made = values.astype(bool) if two_valued and values.ndim == 2 else _white(mask)
    else:
        made = _white(mask)
    if made.shape != (h, w):
        raise ValueError(
            f"the mask is {made.shape[1]} pixels wide and {made.shape[0]} high, the picture {w} and {h}: "
            "give a mask of the picture's size"
        )
    return made


def is_box(mask: Any) -> bool:
    """Return whether a mask is given as a box, four whole numbers."""
    whole = isinstance(mask, (list, tuple)) and all(map(is_whole_number, mask))
    return whole and len(mask) == 4


def as_masks(mask: Mask | Sequence[Mask], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Return a mask for each picture, as `as_mask`.

    mask: one for all pictures, or a list, or an array of three dimensions, with one for each.
    """
    several = getattr(mask, "ndim", 0) == 3 or (isinstance(mask, (list, tuple)) and not is_box(mask))
    masks: Sequence[Any] = mask if several else [mask] * len(sizes)  # type: ignore[assignment]
    if len(masks) != len(sizes):
        raise ValueError(f"{len(masks)} masks for {len(sizes)} pictures: give one for each, or one for all")
    return [as_mask(one, size) for one, size in zip(masks, sizes, strict=True)]


def _white(mask: Any) -> np.ndarray:
    """Return where a picture is painted, see `as_mask`: bool (H, W)."""
    if (strokes := _strokes(mask)) is not None:
        return strokes
    return np.asarray(as_seen(as_picture(mask)).convert("L")) > 127


def _strokes(mask: Any) -> np.ndarray | None:
    """Return where a layer of white strokes on transparent ground is painted; None for any other picture."""
    layer = layer_of(mask)
    if layer is None:
        return None
    values = np.asarray(layer)
    opacity = values[..., 3]
    visible = opacity > 0
    if opacity.min() == opacity.max() or not visible.any() or (values[visible, :3] < WHITE).any():
        return None
    return opacity > 127


def token_mask(mask: np.ndarray, grid: Grid, cover: float = 0.0, grow: int = 0) -> np.ndarray:
    """Return the tokens to make anew: mask bool (H, W) -> bool (rows, columns) of a grid laid over it.

    They are the tokens of whose area more than the share `cover` is masked, at 0 those with any masked pixel, and
    `grow` tokens around them. The sides of the mask need not be multiples of the grid's.
    """
    share = _shares(mask.shape[0], grid[0]) @ mask @ _shares(mask.shape[1], grid[1]).T
    anew = share > max(cover, NOTHING)
    return binary_dilation(anew, np.ones((3, 3)), iterations=grow) if grow else anew


def _shares(pixels: int, cells: int) -> np.ndarray:
    """Return the share of each cell that each pixel covers, where both divide the same line: (cells, pixels)."""
    ends = np.arange(cells + 1)[:, None] * pixels / cells
    pixel = np.arange(pixels)
    overlap = np.minimum(ends[1:], pixel + 1) - np.maximum(ends[:-1], pixel)
    return overlap.clip(0) * cells / pixels


def fill(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return pixels with each masked one replaced by the nearest other one, by grey if there is none.

    So no hidden pixel reaches the tokens beside it. pixels: uint8 (H, W) or (H, W, 3); mask: bool (H, W).
    """
    if mask.all():
        return np.full_like(pixels, 128)
    rows, columns = distance_transform_edt(mask, return_distances=False, return_indices=True)
    return pixels[rows, columns]


def paste(original: np.ndarray, made: np.ndarray, mask: np.ndarray, feather: int = 0) -> np.ndarray:
    """Return the made pixels where the mask is set, the original ones, bit for bit, elsewhere.

    feather: depth in pixels over which made pixels are shifted, less and less, by the difference at the nearest
    original pixel, which fades the seam. Arrays are uint8 (H, W) or (H, W, 3), the mask bool (H, W).
    """
    where = mask if original.ndim == 2 else mask[..., None]
    if feather and not mask.all():
        distance, (rows, columns) = distance_transform_edt(mask, return_indices=True)
        fading = (1 - distance / (feather + 1)).clip(0)
        off = (original.astype(np.float32) - made)[rows, columns]
        made = (made + off * (fading if original.ndim == 2 else fading[..., None])).round().clip(0, 255)
    return np.where(where, made, original).astype(np.uint8)
