"""The page as a whole: by keyboard, on a phone, in the dark, for two people at once."""

from __future__ import annotations

import urllib.request

import pytest

TABS = ["Search", "Paint", "Sample", "Read", "Classify"]
# what has no name for those who do not see it
NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, canvas, [role=tab]')]
  .filter(e => e.offsetParent && e.tabIndex >= 0)
  .filter(e => !(e.innerText || e.ariaLabel || e.title || e.labels?.[0]?.innerText || '').trim())
  .map(e => e.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_it_fits_and_every_control_has_a_name(visit, site, width, scheme):
    page = visit(site, width=width, scheme=scheme)
    assert page.page.title() == "randfeat"
    assert page.page.get_by_role("tab").all_inner_texts() == TABS  # none hides in a menu
    for tab in TABS:
        page.open(tab)
        page.page.wait_for_timeout(100)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width, tab
        assert page.page.evaluate(NAMELESS) == [], tab
    background, ink = page.page.evaluate(
        "[document.querySelector('.gradio-container'), document.querySelector('#head h1')]"
        ".map((e, i) => getComputedStyle(e)[i ? 'color' : 'backgroundColor'].match(/\\d+/g).map(Number))"
    )
    light = sum(background) > 600, sum(ink) > 600
    assert light == ((True, False) if scheme == "light" else (False, True))


def test_a_sample_by_keyboard_alone(visit, site):
    page = visit(site)
    keyboard, focused = page.page.keyboard, "document.activeElement"

    def until(expression):
        for _ in range(60):
            if page.page.evaluate(expression):
                return
            keyboard.press("Tab")
        raise AssertionError(f"the Tab key never came to {expression}")

    until(f"{focused}.innerText === 'Sample' && {focused}.role === 'tab'")
    keyboard.press("Enter")
    until(f"{focused}.ariaLabel === 'Class'")
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    keyboard.press("Enter")
    until(f"{focused}.ariaLabel === 'range slider for Steps'")
    keyboard.press("Home")
    until(f"{focused}.tagName === 'BUTTON' && {focused}.innerText === 'Sample' && {focused}.role !== 'tab'")
    assert page.page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"  # one sees where one is
    keyboard.press("Enter")
    page.sees("16 of 16 tokens")


def test_two_people_do_not_mix(visit, site, place):
    one, other = visit(site, "Search"), visit(site, "Search")
    one.drop(place / "plain" / "0010.png")
    other.drop(place / "plain" / "0020.png")
    one.sees("Like 0010.png")
    other.sees("Like 0020.png")
    for person, name in ((one, "0010.png"), (other, "0020.png")):
        number = person.panel.get_by_label("number input for Results")
        number.fill("3")
        number.press("Tab")
        person.sees("3 nearest")
        person.sees(f"Like {name}")
    one.open("Sample")
    one.press("Sample")
    other.open("Classify")
    one.open("Classify")
    one.drop(place / "plain" / "0010.png")
    one.press("Classify")
    one.sees("read in 16 orders")
    assert other.panel.get_by_role("button", name="Classify", exact=True).is_disabled()  # it is not the other's picture
    one.open("Sample")
    one.sees("seed 0, step 16")
    assert one.panel.get_by_role("alert").count() == 0


def test_nothing_is_offered_but_the_page(site):
    page = urllib.request.urlopen(site).read().decode()
    for outside in ("fonts.googleapis", "fonts.gstatic", "cdn."):
        assert outside not in page
    style = urllib.request.urlopen(f"{site}theme.css").read().decode()
    assert "@import" not in style
    assert "url(http" not in style
    assert "url(//" not in style
