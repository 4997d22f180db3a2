"""Pictures of reports that are made from stores: where the files are, and a sentence where they are not."""

from __future__ import annotations

import re

import pytest
from PIL import Image
from probing import probe

from randfeat.commands.probe.pictures import pictures_of
from randfeat.features.store import FeatureStore


@pytest.mark.parametrize("there", [True, False])
def test_a_report_of_stores_shows_pictures_or_says_why_not(stores, table, tmp_path, there, monkeypatch):
    if not there:
        monkeypatch.setattr(FeatureStore, "absolute_paths", lambda store: [f"/gone/{path}" for path in store.paths])
    out = tmp_path / "out"
    assert probe("retrieval", "--train", stores / "train", "--test", stores / "test", out=out) == 0
    page = (out / "report.html").read_text()
    assert any(path.name.endswith(("-best.png", "-worst.png")) for path in (out / "plots").iterdir()) == there
    note = r"No pictures: /gone/ant/0\d\d.png is not there any more, and no other image is; or give DATA as well."
    assert (re.search(note, page) is None) == there


class Paths(FeatureStore):
    """A store of two pictures in a folder."""

    paths = ["a.png", "b.png"]  # noqa: RUF012

    def __init__(self, directory, **source):
        super().__init__(directory, {"count": 2, "source": {"name": "shards.tar", **source}})


def test_some_that_are_gone_are_grey_squares(tmp_path):
    Image.new("L", (3, 5), 7).save(tmp_path / "a.png")
    pictures, note = pictures_of([], [Paths(tmp_path, root=str(tmp_path))])
    assert note == "1 of 2 images are not where they were read: grey squares."
    assert pictures("a.png").size == (3, 5)
    assert pictures("b.png").size == (64, 64)
    pictures, note = pictures_of([], [Paths(tmp_path, root=None)])
    assert pictures is None
    assert "is of shards.tar, no folder or list of image files that is known" in note
    assert pictures_of([], []) == (None, "")
