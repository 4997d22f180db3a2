"""Fixtures of the tests of indexes."""

from __future__ import annotations

import pytest

from randfeat.index import faiss_index


@pytest.fixture
def codes_of_few(monkeypatch):
    """Compressed vectors already of a thousand rows."""
    monkeypatch.setattr(faiss_index, "COMPRESSED_FROM", 1000)
    monkeypatch.setattr(faiss_index, "CODE_SAMPLE", 1000)
