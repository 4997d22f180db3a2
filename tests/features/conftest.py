"""Fixtures of the tests of extraction."""

from __future__ import annotations

import pytest
from extraction import made
from folders import contents


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Files of an extraction that nothing has stopped."""
    directory = tmp_path_factory.mktemp("undisturbed") / "out"
    made(directory)
    return contents(directory)
