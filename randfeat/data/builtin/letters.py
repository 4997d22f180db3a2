"""Letters of the typefaces installed on this machine, at random places, sizes and angles."""

from __future__ import annotations

import hashlib
import logging
import string
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...utils import progress
from .base import BuiltinDataset, held_out

ALPHABET = string.ascii_lowercase
SIDE, SIZES, ANGLE = 24, (13.0, 19.0), 12.0  # pixels, of the letter's longer side, and degrees
DRAWN = 96  # pixels of a letter's longer side before it is scaled down
FACES = 2  # of a family, at most
LIKENESS, COMPARED = 0.94, 12  # correlation from which two faces are one design, computed on so many pixels a side
TEST_SHARE = 0.3


@dataclass(frozen=True)
class Face:
    """A typeface file. family: the name in the file. glyphs: uint8 (26, DRAWN, DRAWN), each letter centred."""

    path: Path
    family: str
    glyphs: np.ndarray


def make_letters(
    seed: int = 0, split_seed: int | None = None, fonts: Sequence[str | Path] | None = None
) -> BuiltinDataset:
    """Return the letters a to z, white on black in 24 x 24 pixels, from up to two faces of every Latin typeface family.

    The longer side of a letter has 13 to 19 pixels; it is turned by up to 12 degrees and lies anywhere.
    A group is a family together with all others that hold a near copy of one of its faces, since many names stand for
    one design. fonts: files; by default all that are installed, so the set depends on the machine: Debian's font
    packages have hundreds of families (docs/reading.md). split_seed: draws the groups for test, 0 by default. seed: of
    places, sizes and angles.
    """
    faces = read_faces(fonts)
    designs = same_design(faces)
    tests = held_out(int(designs.max()) + 1, TEST_SHARE, split_seed or 0)
    images = []
    with progress.bar(len(faces), "placing letters", "typeface") as bar:
        for number, face in enumerate(faces):
            for letter, glyph in enumerate(face.glyphs):
                images.append(placed(glyph, np.random.default_rng([seed, number, letter])))
            bar.update()
    each = designs.repeat(len(ALPHABET))
    first = {int(design): faces[number].family for number, design in reversed([*enumerate(designs)])}
    names = tuple(f"{design:03} {first[design]}" for design in range(len(first)))
    return BuiltinDataset(
        np.stack(images),
        np.tile(np.arange(len(ALPHABET)), len(faces)),
        each,
        tests[each],
        tuple(ALPHABET),
        "design",
        names,
    )


def read_faces(fonts: Sequence[str | Path] | None = None) -> list[Face]:
    """Return the usable faces, the first `FACES` of each family by name: those with all 26 letters, no two alike.

    Raises a ValueError where fewer than two of the files are usable.
    """
    if fonts is None:
        from matplotlib.font_manager import findSystemFonts

        fonts = findSystemFonts()
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it logs every small fault of a file
    chosen: dict[str, dict[str, Face]] = {}
    paths = sorted({Path(font) for font in fonts}, key=lambda path: (path.name, str(path)))
    with progress.bar(len(paths), "reading typefaces", "file") as bar:
        for path in paths:
            face = read_face(path)
            bar.update()
            if face and len(chosen.setdefault(face.family, {})) < FACES:
                chosen[face.family].setdefault(hashlib.sha256(face.glyphs.tobytes()).hexdigest(), face)
    faces = [face for _, family in sorted(chosen.items()) for face in family.values()]
    if len(faces) < 2:
        raise ValueError(f"{len(faces)} of {len(paths)} typeface files have a Latin alphabet: install more fonts")
    return faces


def read_face(path: Path) -> Face | None:
    """Return a face with its letters drawn; None if letters are missing or alike, or the file cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with path.open("rb") as file, TTFont(file, fontNumber=0, lazy=True) as font:
            if not set(map(ord, ALPHABET)) <= set(font.getBestCmap() or ()):
                return None
        font = ImageFont.truetype(str(path), 100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            glyphs = np.stack([drawn(letter, font) for letter in ALPHABET])
    except (OSError, TTLibError, ValueError, AssertionError, KeyError, Warning):
        return None  # damaged, a format that one of the two libraries does not know, or empty letters
    if len({glyph.tobytes() for glyph in glyphs}) < len(ALPHABET):
        return None  # symbols or placeholders, with one box for every letter
    return Face(path, str(font.getname()[0]), glyphs)


def drawn(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Return a letter cropped to its ink, its longer side DRAWN pixels, in the middle of a black square.

    Raises a ValueError for a letter without ink.
    """
    left, top, right, bottom = font.getbbox(letter)
    image = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(image).text((2 - left, 2 - top), letter, fill=255, font=font)
    box = image.getbbox()
    if box is None:
        raise ValueError("empty letter")
    image = image.crop(box)
    scale = DRAWN / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    square = Image.new("L", (DRAWN, DRAWN))
    square.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((DRAWN - width) // 2, (DRAWN - height) // 2))
    return np.array(square)


def same_design(faces: Sequence[Face]) -> np.ndarray:
    """Return the number of each face's design, int64 (n,).

    Faces of one family, and faces whose alphabets correlate by LIKENESS or more, are linked; a design is a connected
    component of these links.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    block = DRAWN // COMPARED
    small = np.stack([face.glyphs for face in faces]).astype(np.float32)
    small = small.reshape(len(faces), -1, COMPARED, block, COMPARED, block).mean((3, 5)).reshape(len(faces), -1)
    small -= small.mean(1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    families = np.array([face.family for face in faces])
    alike = (small @ small.T >= LIKENESS) | (families[:, None] == families[None])
    return connected_components(coo_array(alike), directed=False)[1].astype(np.int64)


def placed(glyph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a letter of random size and angle at a random place on SIDE x SIDE pixels of black."""
    size, angle = rng.uniform(*SIZES), rng.uniform(-ANGLE, ANGLE)
    turned = Image.fromarray(glyph).rotate(angle, Image.Resampling.BICUBIC, expand=True)
    turned = turned.crop(turned.getbbox())
    scale = size / max(turned.size)
    width, height = (max(1, round(scale * side)) for side in turned.size)
    canvas = Image.new("L", (SIDE, SIDE))
    corner = (int(rng.integers(SIDE - width + 1)), int(rng.integers(SIDE - height + 1)))
    canvas.paste(turned.resize((width, height), Image.Resampling.BOX), corner)
    return np.array(canvas)
