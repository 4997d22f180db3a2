"""Sheet of images above their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from randfeat.data.images import preview
from randfeat.utils import drawing

COLUMNS = 8  # images in a row


def reconstructions(originals: Sequence[Tensor], made: Sequence[Tensor]) -> Image.Image:
    """Return the sheet: images (channels, H, W) in [0, 1], and below each its reconstruction."""
    above, below = ([preview(image) for image in images] for images in (originals, made))
    columns = min(COLUMNS, len(above))
    gap = Image.new("RGB", above[0].size, drawing.PAPER)
    rows: list[Image.Image] = []
    for start in range(0, len(above), columns):
        for images in (above[start : start + columns], below[start : start + columns]):
            rows += [*images, *[gap] * (columns - len(images))]  # a last row that is not full stands above its own
    return drawing.grid(rows, columns)
