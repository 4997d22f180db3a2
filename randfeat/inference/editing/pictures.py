"""Pictures to paint in: picture and mask, the pixels that a model sees of them, and the way back into the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...data import conditions
from ...data.decode import MODES
from ...data.images import Images, pictures, to_pil
from ...models.orders import Grid
from ...utils.checks import is_whole_number
from . import masks
from .framing import Framing, View

Sides = Sequence[int]  # pixels on the left, at the top, on the right and at the bottom


@dataclass(frozen=True)
class MaskedPicture:
    """A picture, uint8 (H, W) or (H, W, 3), with a mask of the pixels to paint, bool (H, W).

    corner: row and column of a pixel that shall be the first of a token, see `Framing.view`.
    """

    picture: np.ndarray
    mask: np.ndarray
    corner: tuple[int, int] = (0, 0)

    def task(self, grid: Grid, stride: int, framing: Framing) -> EditTask | None:
        """Return the task for a model of this grid and `stride` pixels a token; None where the mask is empty."""
        if not self.mask.any():
            return None
        view = framing.view(self.mask, grid, stride, self.corner)
        anew = masks.token_mask(view.of(self.mask), view.grid, framing.cover, framing.grow)
        feather = view.half_token() if framing.feather is None else framing.feather
        return EditTask(self.picture, self.mask, view, anew, feather)


@dataclass(frozen=True)
class EditTask:
    """A picture, uint8 (H, W) or (H, W, 3), with a mask, bool (H, W), and the view that the model has of both."""

    picture: np.ndarray
    mask: np.ndarray
    view: View
    anew: np.ndarray  # tokens to make anew, bool of the view's grid
    feather: int = 0
    hide: bool = True  # whether masked pixels are hidden from the model
    condition: Tensor | None = None  # images (1, c, H, W) for the control of the model, as large as `pixels`

    def pixels(self, stride: int, channels: int) -> Tensor:
        """Return what the model sees, without any hidden pixel: (1, channels, H, W) in [0, 1]."""
        seen = self.view.of(self.picture)
        if self.hide:
            seen = masks.fill(seen, self.view.of(self.mask))
        return self._scaled(seen, stride, channels)

    def with_condition(self, control: np.ndarray, kind: str, stride: int, channels: int) -> EditTask:
        """Return the task with a condition of this kind, made of a picture as large as its own."""
        return replace(self, condition=conditions.make(self._scaled(self.view.of(control), stride, channels), kind))

    def finished(self, made: Tensor) -> Image.Image:
        """Return the picture with pixels that a model made, (channels, H, W) in [0, 1], where the mask is set."""
        mode = "L" if self.picture.ndim == 2 else "RGB"
        ours, theirs = self.view.inside((self.mask.shape[0], self.mask.shape[1]))
        painted = self.view.back(to_pil(made.float()).convert(mode))[theirs]
        picture = self.picture.copy()
        picture[ours] = masks.paste(picture[ours], painted, self.mask[ours], self.feather)
        return Image.fromarray(picture)

    def _scaled(self, seen: np.ndarray, stride: int, channels: int) -> Tensor:
        """Return the pixels of a view as the tokenizer takes them: (1, channels, H, W) in [0, 1]."""
        picture = self.view.scaled(seen, stride).convert(MODES[channels])
        rows, columns = self.view.grid
        pixels = np.array(picture).reshape(rows * stride, columns * stride, -1)
        return torch.from_numpy(pixels).movedim(2, 0)[None] / 255


def as_arrays(images: Images) -> list[np.ndarray]:
    """Return each picture upright, uint8 (H, W) or (H, W, 3). Raises a ValueError for one without pixels."""
    arrays = [np.asarray(picture) for picture in pictures(images)]
    if any(0 in array.shape for array in arrays):
        raise ValueError("a picture without pixels cannot be painted in: leave it out")
    return arrays


def masked(images: Images, mask: masks.Mask | Sequence[masks.Mask]) -> list[MaskedPicture]:
    """Return pictures with their masks, one mask for all or one for each."""
    arrays = as_arrays(images)
    each = masks.as_masks(mask, [array.shape[:2] for array in arrays])
    return [MaskedPicture(*one) for one in zip(arrays, each, strict=True)]


def entirely_masked(images: Images) -> list[MaskedPicture]:
    """Return pictures with masks that are set everywhere."""
    return [MaskedPicture(array, np.ones(array.shape[:2], dtype=bool)) for array in as_arrays(images)]


def extended(images: Images, size: tuple[int, int] | None, sides: Sides = (0, 0, 0, 0)) -> list[MaskedPicture]:
    """Return pictures as `extend` makes them, with sides as of `sides_of`."""
    return [extend(array, sides_of(array, size, sides)) for array in as_arrays(images)]


def sides_of(picture: np.ndarray, size: tuple[int, int] | None, sides: Sides) -> Sides:
    """Return the pixels to add on each side of a picture.

    size: width and height of the result with the picture in its middle, instead of sides.
    """
    height, width = picture.shape[:2]
    if size is not None:
        if any(sides):
            raise ValueError("outpainting takes a size or sides, not both: leave one out")
        if not (isinstance(size, (list, tuple)) and len(size) == 2 and all(is_whole_number(side, 1) for side in size)):
            raise ValueError(f"a size is width and height, whole numbers of pixels from 1, got {size!r}")
        if size[0] < width or size[1] < height:
            raise ValueError(
                f"the picture is {width} pixels wide and {height} high, more than the size {size[0]} x {size[1]}: "
                "give a larger one"
            )
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        sides = left, top, size[0] - width - left, size[1] - height - top
    if not all(is_whole_number(side, 0) for side in sides):
        raise ValueError(f"sides are whole numbers of pixels from 0, left, top, right and bottom, got {tuple(sides)}")
    return sides


def extend(picture: np.ndarray, sides: Sides) -> MaskedPicture:
    """Return a picture with its edges repeated on each side, masked there, and tokens that begin at its first pixel."""
    left, top, right, bottom = sides
    around = ((top, bottom), (left, right))
    larger = np.pad(picture, (*around, *(((0, 0),) * (picture.ndim - 2))), mode="edge")
    mask = np.pad(np.zeros(picture.shape[:2], dtype=bool), around, constant_values=True)
    return MaskedPicture(larger, mask, (top, left))
