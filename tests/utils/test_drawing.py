"""Letters of captions, and sheets whose last row is not full."""

import numpy as np
import pytest
import torch
from PIL import Image

from randfeat.commands.training.sheet import COLUMNS, reconstructions
from randfeat.utils import drawing

MISSING = "\ufffe"  # no font has it


@pytest.mark.parametrize("text", ["boot", "Brücke", "größte Käfer", "Łódź", "кошка", "γάτα"])
def test_captions_have_all_their_letters(text):
    font = drawing.font_for(["plain", text], 16)
    box = bytes(font.getmask(MISSING))
    assert all(bytes(font.getmask(letter)) != box for letter in text if letter != " ")


def test_umlauts_differ_in_a_grid():
    picture = Image.new("RGB", (128, 100))
    sheets = [drawing.grid([picture], captions=[text]).tobytes() for text in ("Brücke", "Bräcke", "Bröcke")]
    assert len(set(sheets)) == 3


@pytest.mark.parametrize("count", [1, 3, 8, 14, 16])
def test_every_reconstruction_stands_below_its_original(count):
    shades = torch.linspace(0.2, 0.8, count)
    originals = [torch.full((3, 128, 128), float(shade)) for shade in shades]
    made = [1 - image for image in originals]
    sheet = np.asarray(reconstructions(originals, made).convert("L"), np.float64) / 255
    gap, columns = 4, min(COLUMNS, count)
    for number, shade in enumerate(shades.tolist()):
        left = gap + number % columns * (128 + gap) + 64
        top = gap + number // columns * 2 * (128 + gap) + 64
        assert sheet[top, left] == pytest.approx(shade, abs=0.01)
        assert sheet[top + 128 + gap, left] == pytest.approx(1 - shade, abs=0.01)
