"""Zoo: small trained models that are part of the package and open without a download.

Each is a folder beside this file, a model directory as `Pipeline.save_pretrained` writes it, with a model card. Weights
are float16 on disk and opened in the type that is asked for, float32 by default.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from .. import format

NAMES = ("fashion-arpg-free", "fashion-randar-free", "fashion-arpg", "fashion-randar")


def directory(name: str) -> Path:
    """Return the model directory of a name in `NAMES`.

    Raises a FileNotFoundError where this installation of randfeat lacks it.
    """
    found = resources.files(__package__) / name
    if not isinstance(found, Path) or not (found / format.CONFIG).is_file():
        has = f"it has {', '.join(present)}" if (present := installed()) else "it has no model of its zoo"
        raise FileNotFoundError(
            f"this installation of randfeat is without the model {name} ({has}, of {', '.join(NAMES)}): install it "
            "again from a wheel, unpacked on the disk"
        )
    return found


def installed() -> list[str]:
    """Return the names of the models that this installation has, in the order of `NAMES`."""
    here = resources.files(__package__)
    return [name for name in NAMES if isinstance(here, Path) and (here / name / format.CONFIG).is_file()]
