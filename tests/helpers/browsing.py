"""A person at the page: what they see, press, drop and draw."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

PATIENCE = 60_000  # milliseconds; machines are shared


class Visit:
    """A session in a window of its own. elsewhere: addresses that were asked for and are not this machine's; errors:
    what the browser's console says has gone wrong.
    """

    def __init__(self, browser, address, width=1280, scheme="light"):
        self.elsewhere, self.errors = [], []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.context.set_default_timeout(PATIENCE)
        self.context.route("**/*", self._only_here)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self._wrong(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self._wrong(str(error)))
        self.page.goto(address)
        self.page.get_by_role("tab").first.wait_for()

    def _wrong(self, said):
        if self.errors is not None:
            self.errors.append(said)

    def _only_here(self, route):
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def forgive(self):
        """Ignore what the console says from now on: the page's server is gone, or refuses something."""
        self.errors = None

    def open(self, tab):
        self.page.get_by_role("tab", name=tab).click()

    @property
    def panel(self):
        """Return the text of the open tab."""
        return self.page.locator("[role=tabpanel]:visible")

    def press(self, name):
        self.panel.get_by_role("button", name=name, exact=True).click()

    def drop(self, path):
        self.panel.locator("input[type=file]").first.set_input_files(path)

    def sees(self, text):
        """Waits until a text is to be seen in the open tab."""
        self.panel.get_by_text(text).first.wait_for()

    def told(self):
        """Waits for a sentence about an error, and returns it."""
        wrong = self.panel.get_by_role("alert")
        wrong.wait_for()
        return wrong.inner_text()

    def figures(self):
        """The pictures under the open tab's results, as they came, by caption."""
        found = {}
        for figure in self.panel.locator("figure").all():
            source = figure.locator("img").get_attribute("src")
            found[figure.locator("figcaption").inner_text()] = decoded(source)
        return found

    def mask(self):
        """Return the mask that the painter would send: bool (H, W)."""
        return np.asarray(decoded(self.page.evaluate("document.querySelector('#painter').mask()")).convert("L")) > 127


def decoded(source):
    """The picture in a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))


def as_shown(picture):
    """A small picture as the page magnifies it, and back: every pixel's value, (H, W)."""
    from randfeat.commands.app import html

    return np.asarray(html.on_screen(picture).convert("RGB"))
