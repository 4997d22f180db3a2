"""Fixtures of the tests of extraction."""

from __future__ import annotations

import pytest
from extraction import made
from folders import contents
from pipelines import make_sampler


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Files of an extraction that nothing has stopped."""
    directory = tmp_path_factory.mktemp("undisturbed") / "out"
    made(directory)
    return contents(directory)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Path of a small model on disk, as Ray's workers open it."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return str(path)
