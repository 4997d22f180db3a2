"""The reading study's material of a few digits."""

from __future__ import annotations

import pytest
from study import part


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return part("material").make("digits", tmp_path_factory.mktemp("study"), images=300)


@pytest.fixture(scope="module")
def material(digits):
    return part("material").read("digits", digits)
