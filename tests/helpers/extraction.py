"""Extractions of thirteen squares, five of them damaged, in shards of three."""

from __future__ import annotations

import pytest
from readers import Means, Squares

from randfeat.features import extract as extracting
from randfeat.features.extract import extract

DAMAGED = (0, 3, 4, 5, 12)
KEPT = [number for number in range(13) if number not in DAMAGED]


def made(directory, source=None, specs=("number", "map"), **how):
    how = {"batch_size": 2, "workers": 0, "shard_size": 3} | how
    return extract(Means(specs), Squares(13, DAMAGED) if source is None else source, directory, **how)


def begun(directory, monkeypatch):
    """All shards are there, the store is not."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extracting, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            made(directory)
    return directory
