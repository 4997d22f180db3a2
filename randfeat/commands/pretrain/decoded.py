"""Images of a run above their tokens, decoded: what no generator on these tokens can be better than."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from randfeat.data.errors import UnreadableImage
from randfeat.data.sources import Source, open_source
from randfeat.data.token_store import TokenStore
from randfeat.probes.tasks.reconstruction import psnr
from randfeat.tokenizers import Tokenizer
from randfeat.utils import atomic, drawing

from ..tokenizer.reconstruction import Images, Named, shown
from ..training.sheet import reconstructions

SHEET, RECORD = "reconstructions.png", "reconstructions.json"
FORMAT = "tokens of a pretraining run of randfeat, decoded, version 1"
TITLE = "Tokens, decoded"
COUNT = 16  # images


@dataclass(frozen=True)
class Decoded:
    """Record of the sheet of a run. about: a sentence. psnr: dB, the mean; None where there is no sheet."""

    about: str
    psnr: float | None = None
    images: int = 0
    held_out: bool = False

    def write(self, directory: Path) -> None:
        """Write RUN/reconstructions.json."""
        atomic.write_json(directory / RECORD, {"format": FORMAT, **vars(self)})

    @classmethod
    def read(cls, directory: Path) -> Decoded | None:
        """Return that of a run, None where there is none."""
        record = atomic.read_json(directory / RECORD, FORMAT)
        return None if record is None else cls(**{name: value for name, value in record.items() if name != "format"})


def write_decoded(
    directory: Path, source: Source | None, store: TokenStore, tokenizer: Tokenizer, rows: list[int], held_out: bool
) -> Decoded:
    """Decode the tokens of some images of a run and write RUN/reconstructions.png, where the images are at hand.

    source: the images, None to look where the store says that they are. rows: of the store. held_out: True where these
    are not trained on. Images are cropped at the centre, as the first crop is.
    """
    try:
        source = source or _source(store)
        numbers = _numbers(source, [store.paths[row] for row in rows])
        (height, width), stride = store.grid, tokenizer.stride
        size = height * stride, width * stride
        originals, (made,) = shown([Named("", tokenizer)], Images(source, numbers, size), numbers)
    except (OSError, ValueError, UnreadableImage) as error:
        found = Decoded(f"No images beside their tokens: {error}.")
        (directory / SHEET).unlink(missing_ok=True)
        found.write(directory)
        return found
    sheet = reconstructions(list(map(torch.from_numpy, originals)), list(map(torch.from_numpy, made)))
    atomic.write_bytes(directory / SHEET, drawing.png(sheet))
    decibels = float(psnr(((originals - made) ** 2).mean((1, 2, 3))).mean())
    which = "held-out images" if held_out else "images of the training"
    about = (
        f"{len(numbers)} {which} and what the tokenizer makes of their tokens: {decibels:.1f} dB PSNR, the mean. "
        "Samples are no finer than that."
    )
    found = Decoded(about, decibels, len(numbers), held_out)
    found.write(directory)
    return found


def _source(store: TokenStore) -> Source:
    """Return the images that the tokens of a cache were made of. Raises a ValueError where they are not at hand."""
    name = store.meta.get("more", {}).get("source", {}).get("name", "")
    if not name or not Path(name).exists():
        raise ValueError(f"{store.directory} holds tokens alone, and their images are not at {name or 'hand'}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which were told when the tokens were made
        source = open_source(name, "all")
    if not isinstance(source, Source):
        raise ValueError(f"{name} holds tokens, no images")
    return source


def _numbers(source: Source, paths: list[str]) -> list[int]:
    """Return the numbers of images by their paths."""
    wanted = {path: place for place, path in enumerate(paths)}
    found = {path: number for number, path in enumerate(source.paths) if path in wanted}
    if missing := [path for path in paths if path not in found]:
        raise ValueError(f"{missing[0]} is not among the images of {source.name} any more")
    return [found[path] for path in paths]
