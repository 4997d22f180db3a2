"""The reading study, imported from the checkout, and its material of a few digits."""

from __future__ import annotations

import sys

import pytest
from study import ROOT, part


@pytest.fixture(scope="module", autouse=True)
def checkout():
    """The study runs from the checkout: it is imported from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "studies"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return part("material").make("digits", tmp_path_factory.mktemp("study"), images=300)


@pytest.fixture(scope="module")
def material(digits):
    return part("material").read("digits", digits)
