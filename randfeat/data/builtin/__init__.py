"""Built-in data sets, made without a download: digits, digits in clutter, letters of the installed typefaces, crops of
photographs that packages contain, and Fashion-MNIST as Debian packages it.

Each is a pure function of its seeds and of what is installed. The first four are split by group: all digits of one
writer, all letters of one typeface design, and one half of a photograph lie on the same side. Fashion-MNIST has the
split of its authors.
"""

from collections.abc import Callable

from .base import BuiltinDataset, is_made, write_folder
from .cluttered import make_cluttered
from .digits import make_digits
from .fashion import load_fashion_part, make_fashion, write_fashion
from .letters import make_letters
from .photographs import make_photographs

DATASETS: dict[str, Callable[..., BuiltinDataset]] = {
    "digits": make_digits,
    "cluttered": make_cluttered,
    "letters": make_letters,
    "photographs": make_photographs,
    "fashion": make_fashion,
}

__all__ = [
    "DATASETS",
    "BuiltinDataset",
    "is_made",
    "load_fashion_part",
    "make_cluttered",
    "make_digits",
    "make_fashion",
    "make_letters",
    "make_photographs",
    "write_fashion",
    "write_folder",
]
