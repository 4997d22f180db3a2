"""A page over tiny models, and Chromium that looks at it as a person would.

Screenshots of what each test left on the page go to $RANDFEAT_SCREENSHOTS, else to pytest's own folder.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import browsing
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from sklearn.datasets import load_digits

from randfeat import Pipeline
from randfeat.tokenizers import PatchTokenizer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROWS = 3000


@pytest.fixture(scope="package")
def chromium():
    if CHROMIUM is None:
        pytest.skip("NO BROWSER HERE, SO THE PAGE IS NOT TESTED: apt-get install chromium, and run this again")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root Chromium has no sandbox; it sees nothing but this page
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def pipeline(name, classes, **config):
    digits = torch.tensor(load_digits().images / 16, dtype=torch.float32).unsqueeze(1)
    tokenizer = PatchTokenizer.fit(digits, 32, 2)
    names = [f"digit {number}" for number in range(classes)]
    return Pipeline(tokenizer, tiny.model(name, (4, 4), vocab_size=32, num_classes=classes, **config), names)


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    """A folder with models, digits as files, and an index of them and of their negatives."""
    from randfeat.features.opening import open_encoder
    from randfeat.index import Index
    from randfeat.index.reader import record_of

    place = tmp_path_factory.mktemp("app")
    pipeline("randar", 10).save(place / "randar")
    pipeline("llamagen", 0).save(place / "raster")
    pipeline("arpg", 10, control=tiny.CONTROL).save(place / "edges")
    digits, truth = load_digits(return_X_y=True)
    pixels = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    pixels = np.concatenate([pixels, 255 - pixels])[:ROWS]
    paths = [place / ("plain" if number < len(truth) else "negative") / f"{number:04}.png" for number in range(ROWS)]
    for folder in ("plain", "negative"):
        (place / folder).mkdir()
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    encoder = open_encoder(str(place / "randar"), ["raster/causal/token/L1/grid4/mean"])
    features = np.concatenate([encoder.features(list(part))[0] for part in np.array_split(pixels, 10)])
    labels = np.resize(truth, ROWS).tolist()
    Index.build(place / "digits.index", features, paths, labels, index_type="flat", encoder_record=record_of(encoder))
    Index.build(place / "numbers.index", features[:20], [f"row {number}" for number in range(20)], index_type="flat")
    return place


@pytest.fixture(scope="package")
def serve():
    """Opens a page for a model and an index; it is there until the last test."""
    from randfeat.commands.app import server, state

    with ExitStack() as pages:

        def start(model=None, index=None):
            listening = pages.enter_context(server.bound(0))
            pages.enter_context(server.served(state.open_all(model, index, "cpu"), listening))
            return server.address(listening)

        yield start


@pytest.fixture(scope="package")
def site(serve, place):
    """A page that can do everything."""
    return serve(index=place / "digits.index")


@pytest.fixture(scope="package")
def raster(serve, place):
    """A page of a model of raster order that saw no labels, without an index."""
    return serve(str(place / "raster"))


@pytest.fixture(scope="package")
def controlled(serve, place):
    """A page of a model that follows the edges of a picture."""
    return serve(str(place / "edges"))


@pytest.fixture
def visit(chromium, request, tmp_path):
    """Opens a page in a session of its own. When the test ends, nothing on it has gone wrong unseen, and nothing was
    asked of anybody but this machine.
    """
    folder = Path(os.environ.get("RANDFEAT_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    visits = []

    def start(address, tab=None, **context):
        visits.append(browsing.Visit(chromium, address, **context))
        if tab:
            visits[-1].open(tab)
        return visits[-1]

    yield start
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    for number, one in enumerate(visits):
        one.page.screenshot(path=folder / f"{name}-{number}.png", full_page=True)
        one.context.close()
    for one in visits:
        assert one.elsewhere == []
        assert not one.errors
