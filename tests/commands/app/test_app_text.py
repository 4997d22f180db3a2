"""Search by text on the page, as somebody does it who has no picture at hand."""

from __future__ import annotations

import pytest
import text_image

from randfeat import open_encoder
from randfeat.commands.app import page, state
from randfeat.data.sources import open_source
from randfeat.index import Index, images


@pytest.fixture
def clip(place, tmp_path, monkeypatch):
    """Index of some digits by a text-image model."""
    (tmp_path / "list.txt").write_text("".join(f"{place}/plain/{number:04}.png\n" for number in range(30)))
    encoder = open_encoder(text_image.save(tmp_path, monkeypatch)[2])
    images.build(tmp_path / "index", encoder, open_source(tmp_path / "list.txt"), workers=0)
    return tmp_path / "index"


def test_a_text_finds_what_the_index_finds(clip, serve, visit):
    there = visit(serve(index=clip), "Search")
    text = there.panel.get_by_label("Text")
    text.fill("a round digit")
    text.press("Enter")
    there.sees("Like “a round digit”")
    index = Index.open(clip)
    expected = index.search(index.read_texts(["a round digit"], index.encoder()), 24)[0]
    shown = there.panel.locator(".hits button")
    assert [hit.get_attribute("title") for hit in shown.all()] == [match.path for match in expected]
    shown.nth(2).click()  # a result is searched with, and the text is gone
    there.sees("24 nearest")
    there.panel.get_by_text("Like “a round digit”").wait_for(state="detached")
    assert text.input_value() == ""
    text.fill("word " * 20)
    text.press("Enter")
    assert "reads 12 tokens of a text" in there.told()
    there.open("Read")
    there.sees("has one vector of a picture and no map")


def test_other_models_have_no_box_for_texts(site, visit):
    assert visit(site, "Search").panel.get_by_label("Text").count() == 0


def test_the_summary_names_the_model_without_its_folders(clip):
    assert page.summary(state.open_all(index=clip, device="cpu")) == "index: 30 rows · open_clip:clip"
