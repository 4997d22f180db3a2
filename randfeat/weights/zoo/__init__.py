"""Zoo: small trained models that are part of the package and open without a download.

Each is a folder beside this file, a model directory as `Pipeline.save_pretrained` writes it, with a model card, but
that the folder `tokenizer` beside them holds, once, the tokenizer of those that have none of their own. Weights are
float16 on disk and opened in the type that is asked for, float32 by default.
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
    found = folder() / name
    if not (found / format.CONFIG).is_file():
        has = f"it has {', '.join(present)}" if (present := installed()) else "it has no model of its zoo"
        raise FileNotFoundError(
            f"this installation of randfeat is without the model {name} ({has}, of {', '.join(NAMES)}): install it "
            "again from a wheel, unpacked on the disk"
        )
    return found


def installed() -> list[str]:
    """Return the names of the models that this installation has, in the order of `NAMES`."""
    return [name for name in NAMES if (folder() / name / format.CONFIG).is_file()]


def tokenizer_folder(model: Path) -> Path:
    """Return the folder of a model directory's tokenizer: the shared one for a model of the zoo without its own."""
    own = model / format.TOKENIZER
    shared = model.resolve().parent == folder().resolve() and not own.is_dir()
    return folder() / format.TOKENIZER if shared else own


def folder() -> Path:
    """Return the folder of the models, which need not exist."""
    return Path(str(resources.files(__package__)))
