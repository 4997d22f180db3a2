"""Paint: a mask drawn by mouse or by keyboard, and what comes back."""

from __future__ import annotations

import browsing
import numpy as np
import pytest
from PIL import Image

from randfeat import load


@pytest.fixture
def painter(visit, site, place):
    painter = visit(site, "Paint")
    painter.drop(place / "plain" / "0003.png")
    painter.panel.locator("canvas").wait_for()
    painter.page.wait_for_function("document.querySelector('#painter canvas')?.width == 8")
    return painter


def drag(visit, start, end):
    """Draws a line, between places given as shares of the picture."""
    box = visit.panel.locator("canvas").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    visit.page.mouse.move(*at[0])
    visit.page.mouse.down()
    visit.page.mouse.move(*at[1], steps=4)
    visit.page.mouse.up()


def test_what_is_drawn_over_is_made_anew_and_the_rest_stays(painter, place):
    drag(painter, (0.1, 0.7), (0.9, 0.7))
    mask = painter.mask()
    assert mask.shape == (8, 8)
    assert mask[5].sum() >= 6
    assert not mask[:4].any()
    painter.press("Inpaint")
    painter.sees("seed 3")
    assert (
        painter.panel.get_by_label("Seed", exact=True).input_value() == "4"
    )  # so that pressing again shows other ones
    picture, model = Image.open(place / "plain" / "0003.png"), load(place / "randar")
    made = painter.figures()
    assert len(made) == 4
    (guessed,) = {caption.split(", taken for ")[1] for caption in made}
    expected = model.inpaint(picture, mask, guessed, samples=4)
    for number, (caption, shown) in enumerate(made.items()):
        assert caption.startswith(f"seed {number}")
        assert (np.asarray(shown) == browsing.as_shown(expected[number])).all()


def test_by_keyboard_and_with_a_class(painter, place):
    painter.panel.get_by_label("Brush").fill("1")  # a pixel
    painter.panel.locator("canvas").focus()
    for key in ("Space", "ArrowRight", "Space", "ArrowDown", "Space", "e"):
        painter.page.keyboard.press(key)
    mask = painter.mask()
    assert mask.sum() == 2
    assert mask[4, 4]
    assert mask[4, 5]
    painter.panel.get_by_label("Class").click()
    painter.page.get_by_role("option", name="digit 7").click()
    painter.panel.get_by_label("number input for Samples").fill("1")
    painter.press("Inpaint")
    painter.sees("seed 0")
    (made,) = painter.figures().values()
    expected = load(place / "randar").inpaint(Image.open(place / "plain" / "0003.png"), mask, 7)[0]
    assert (np.asarray(made) == browsing.as_shown(expected)).all()


def test_erasing_clearing_and_another_picture(painter, place):
    drag(painter, (0.1, 0.5), (0.9, 0.5))
    before = painter.mask().sum()
    painter.panel.get_by_label("Erase").check()
    drag(painter, (0.1, 0.5), (0.4, 0.5))
    assert 0 < painter.mask().sum() < before
    painter.press("Clear")
    assert not painter.mask().any()
    painter.press("Inpaint")
    assert painter.told() == "Nothing is painted over yet: draw over what the model shall make anew."
    painter.press("Another picture")
    painter.panel.locator("canvas").wait_for(state="hidden")
    assert painter.panel.get_by_role("button", name="Inpaint").is_disabled()
    tall = place / "tall.png"
    Image.new("RGB", (500, 3000), "navy").save(tall)
    painter.drop(tall)
    painter.page.wait_for_function("document.querySelector('#painter canvas')?.height == 1024")  # reduced to that
    box = painter.panel.locator("canvas").bounding_box()
    assert box["height"] < 900
    width = painter.page.evaluate("document.querySelector('canvas').width")
    assert abs(box["height"] / box["width"] - 1024 / width) < 0.1
    drag(painter, (0.1, 0.1), (0.12, 0.12))
    rows, columns = np.nonzero(painter.mask())
    assert abs(rows.mean() / 1024 - 0.11) < 0.02  # what is marked is what was pointed at
    assert abs(columns.mean() / painter.mask().shape[1] - 0.11) < 0.1


def test_a_model_of_raster_order_says_what_it_does_not_see(visit, raster, place):
    painter = visit(raster, "Paint")
    painter.sees("This model writes row by row: it does not see what comes after the mask.")
    assert painter.panel.get_by_label("Class").count() == 0
    painter.drop(place / "plain" / "0001.png")
    painter.page.wait_for_function("document.querySelector('#painter canvas')?.width == 8")
    drag(painter, (0.5, 0.9), (0.6, 0.9))
    painter.press("Inpaint")
    painter.sees("seed 3")


def test_what_is_painted_keeps_the_edges_of_the_picture(visit, site, controlled, place):
    assert visit(site, "Paint").panel.get_by_label("Keep the picture's edges under the mask").count() == 0
    painter = visit(controlled, "Paint")
    painter.drop(place / "plain" / "0003.png")
    painter.panel.locator("canvas").wait_for()
    painter.page.wait_for_function("document.querySelector('#painter canvas')?.width == 8")
    drag(painter, (0.1, 0.7), (0.9, 0.7))
    mask = painter.mask()
    painter.panel.get_by_label("Class").click()
    painter.page.get_by_role("option", name="digit 3").click()
    painter.panel.get_by_label("Keep the picture's edges under the mask").check()
    painter.press("Inpaint")
    painter.sees("seed 3")
    picture, model = Image.open(place / "plain" / "0003.png"), load(place / "edges")
    expected = model.inpaint(picture, mask, "digit 3", samples=4, control=picture)
    for number, shown in enumerate(painter.figures().values()):
        assert (np.asarray(shown) == browsing.as_shown(expected[number])).all()
