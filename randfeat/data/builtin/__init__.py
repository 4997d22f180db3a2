"""Built-in data sets, made without a download: digits, digits in clutter, letters of the installed typefaces, and crops
of photographs that packages contain.

Each is a pure function of its seeds and of what is installed, and is split by group: all digits of one writer, all
letters of one typeface design, and one half of a photograph lie on the same side.
"""

from .base import BuiltinDataset, is_made, write_folder
from .cluttered import make_cluttered
from .digits import make_digits
from .letters import make_letters
from .photographs import make_photographs

DATASETS = {
    "digits": make_digits,
    "cluttered": make_cluttered,
    "letters": make_letters,
    "photographs": make_photographs,
}

__all__ = [
    "DATASETS",
    "BuiltinDataset",
    "is_made",
    "make_cluttered",
    "make_digits",
    "make_letters",
    "make_photographs",
    "write_folder",
]
