"""Editing: the sampling loop with known tokens first in the order.

`masks` turn pictures into tokens to make anew, `framing` fits a picture of any size to the grid of a model, `canvas`
completes a grid of tokens of any size. `pipeline.painting` puts them together.
"""

from .canvas import complete, paint
from .framing import Fit, Framing, View, as_framing
from .masks import Mask, as_mask

__all__ = ["Fit", "Framing", "Mask", "View", "as_framing", "as_mask", "complete", "paint"]
