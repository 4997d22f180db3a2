"""Painting in pictures: the sampling loop with known tokens first in the order.

`masks` says what to paint, `framing` what of a picture of any size the model sees, `canvas` completes a grid of tokens
of any size, `guessing` says which class the known part is of, and `jobs` puts them together.
"""

from ..guessing import guess, known_log_prob
from .canvas import complete, paint
from .framing import Fit, Framing, View, as_framing
from .masks import Mask, as_mask

__all__ = ["Fit", "Framing", "Mask", "View", "as_framing", "as_mask", "complete", "guess", "known_log_prob", "paint"]
