"""Data sets made on the spot from what a machine has, for trials without a download: digits, digits in clutter, letters
of the typefaces installed and crops of the photographs that packages bring along.

Every one is real material, is a pure function of its seeds and of what is installed, and is split by group: what one
writer wrote, one family of typefaces or one half of a photograph lies on one side.
"""

from .base import Made, is_made, write_folder
from .cluttered import make_cluttered
from .digits import make_digits
from .letters import make_letters
from .photographs import make_photographs

BUILDERS = {
    "digits": make_digits,
    "cluttered": make_cluttered,
    "letters": make_letters,
    "photographs": make_photographs,
}

__all__ = [
    "BUILDERS",
    "Made",
    "is_made",
    "make_cluttered",
    "make_digits",
    "make_letters",
    "make_photographs",
    "write_folder",
]
