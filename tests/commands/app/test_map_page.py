"""The page of `randfeat map` in a browser: pointed at, by keys, by search, by class, in light and dark."""

from __future__ import annotations

from functools import partial

import browsing
import damaged
import numpy as np
import pytest
from PIL import Image

from randfeat.commands.map.page import page
from randfeat.commands.map.rows import MapRows

COUNT = 24


@pytest.fixture
def address(tmp_path):
    names = [f"{('cat', 'dog', '<b>&')[number % 3]}/{number:02}.png" for number in range(COUNT)]
    features = np.random.default_rng(0).normal(size=(COUNT, 6)).astype(np.float32)
    features[np.arange(COUNT), np.arange(COUNT) % 3] += 6
    pictures = [partial(Image.fromarray, damaged.noise(9, 9, seed=number)) for number in range(COUNT)]
    labels = [name.partition("/")[0] if number else None for number, name in enumerate(names)]
    rows = MapRows("photos", "", COUNT, names, labels, features, pictures, [""] * COUNT)
    (tmp_path / "map.html").write_text(page(rows), encoding="utf-8")
    return f"file://{tmp_path / 'map.html'}"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (600, "dark")])
def test_a_map_is_used(chromium, address, width, scheme):
    context = chromium.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
    context.set_default_timeout(browsing.PATIENCE)
    asked, wrong = [], []
    view = context.new_page()
    view.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.goto(address)
    title = view.locator("#title")
    view.focus("#map")
    view.keyboard.press("ArrowRight")
    first = title.inner_text()
    for key in ("ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "+", "-", "0", "p"):
        view.keyboard.press(key)
    assert view.locator("#pictures").get_attribute("aria-pressed") == "true"
    assert first
    view.keyboard.press("/")
    view.keyboard.type("DOG/04")
    assert view.locator("#found").inner_text() == "1 of 24; Enter goes to the next"
    view.keyboard.press("Enter")
    assert title.inner_text() == "dog · 04.png"
    assert view.locator("#path").inner_text() == "dog/04.png"
    near = view.locator("#near button")
    assert near.count() == 8
    assert near.first.get_attribute("aria-label").startswith("dog, ")
    near.first.click()
    assert title.inner_text() != "dog · 04.png"
    assert view.locator("#legend").inner_text().split() == ["<b>&", "8", "cat", "7", "dog", "8"]
    view.locator("#legend button").first.click()
    assert view.locator("#legend button").first.get_attribute("aria-pressed") == "true"
    view.get_by_role("button", name="Show all").click()
    view.fill("#search", "nothing like it")
    assert view.locator("#found").inner_text() == "nothing is called so"
    view.focus("#map")
    view.keyboard.press("Escape")
    assert view.locator("#chosen").is_hidden()
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert set(asked) <= {"file", "data"}
    assert wrong == []


def test_pointing_shows_the_picture(chromium, address):
    context = chromium.new_context(viewport={"width": 1200, "height": 850})
    context.set_default_timeout(browsing.PATIENCE)
    view = context.new_page()
    view.goto(address)
    x, y = view.evaluate("[screenX(5), screenY(5)]")
    box = view.locator("#map").bounding_box()
    view.mouse.move(box["x"] + x, box["y"] + y)
    tip = view.locator("#tip")
    assert tip.inner_text().split() == ["<b>&", "05.png"]
    assert tip.locator("canvas").count() == 1
    view.mouse.down()
    view.mouse.up()
    assert view.locator("#title").inner_text() == "<b>& · 05.png"
    context.close()
