"""Tab Search: the images of an index that look like a picture, or show what a text says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ...index import Filter, Index, Match
from . import html, thumbnails, widgets
from .events import listen
from .state import AppState

HERE = Path(__file__).parent
MOST, INITIAL = 100, 24  # results, at most and at first
GROUPS, IN_GROUP = 20, 12  # of near-duplicates on the page, at most
QUEUE = "search"  # its own, so that a search does not wait for painting


@dataclass(frozen=True)
class Query:
    """Query of a search: a row of the index, or the features (1, F) of a picture that was dropped or of a text."""

    name: str
    id: int | None = None
    features: np.ndarray | None = None


def unavailable(state: AppState) -> str:
    """Return why the tab cannot work, "" if it can."""
    if state.index is None:
        return "There is no index to search here: make one with `randfeat index build`, and give it with --index."
    return ""


@dataclass(frozen=True)
class Searcher:
    """Searches of the tab, each as HTML. labels, pattern: of a `Filter`; empty ones let every row through."""

    index: Index

    def results(self, query: Query | None, labels: Sequence[str], pattern: str, k: float) -> str:
        """Return the `k` rows most like a query; without one, rows to begin with."""
        self.index.refresh()
        where = Filter(labels or (), pattern.strip() or ())
        if query is None:
            return tiles("", self._arbitrary(int(k), where))
        if query.id is None:
            assert query.features is not None
            found = self.index.search(query.features, int(k), where or None)[0]
        else:
            found = self.index.similar([query.id], int(k), where or None)[0]
        return tiles(f"Like {query.name}", found)

    def _arbitrary(self, k: int, where: Filter) -> list[Match]:
        """Return the rows nearest to a random direction, without scores."""
        direction = np.random.default_rng(0).standard_normal((1, self.index.width)).astype(np.float32)
        return [match._replace(score=np.nan) for match in self.index.search(direction, k, where or None)[0]]

    def duplicates(self, threshold: float | None, labels: Sequence[str], pattern: str) -> str:
        """Return the groups of rows that are alike from a threshold on."""
        if threshold is None:
            raise ValueError("The threshold is empty: give a number.")
        self.index.refresh()
        where = Filter(labels or (), pattern.strip() or ())
        return in_groups(self.index.near_duplicates(float(threshold), where=where or None), threshold)


def build(state: AppState) -> None:
    """Add the tab's widgets and listeners to the page."""
    index, reader = state.index, state.reader
    assert index is not None
    searcher = Searcher(index)

    def take(upload: Mapping[str, Any], *how: Any) -> Iterator[tuple]:
        assert reader is not None
        picture = widgets.open_upload(upload)
        query = Query(str(upload.get("orig_name") or "your picture"), features=reader.features([picture])[0])
        yield gr.skip(), "", query, searcher.results(query, *how)
        yield widgets.for_box(picture), gr.skip(), gr.skip(), gr.skip()

    def ask(text: str, *how: Any) -> Iterator[tuple]:
        assert reader is not None
        query = Query(f"“{text.strip()}”", features=index.read_texts([text], reader)) if text.strip() else None
        yield None, gr.skip(), query, searcher.results(query, *how)

    def follow(event: gr.EventData, *how: Any) -> Iterator[tuple]:
        (row,) = index.rows([int(event.id)])
        query = Query(Path(row.path).name, id=row.id)
        yield gr.skip(), "", query, searcher.results(query, *how)
        picture = thumbnails.open_reduced(row.path)
        yield None if picture is None else widgets.for_box(picture), gr.skip(), gr.skip(), gr.skip()

    def again(query: Query | None, *how: Any) -> Iterator[tuple]:
        yield (searcher.results(query, *how),)

    def begin(*how: Any) -> Iterator[tuple]:
        yield None, searcher.results(None, *how)

    def duplicates(*given: Any) -> Iterator[tuple]:
        yield (searcher.duplicates(*given),)

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280):
            box = widgets.picture_box("Picture") if reader else gr.Image(visible=False)
            if reader is None:
                gr.HTML(html.note("Its rows came as numbers, which no model here reads: start from one of them."))
            words = gr.Textbox(label="Text", info="what a picture shows", visible=bool(reader and reader.reads_texts))
            query = gr.State()
            names = list(index.labels())
            labels = gr.Dropdown(
                names, value=[], multiselect=True, label="Labels", visible=bool(names), info="any if none"
            )
            pattern = gr.Textbox(label="Path", info="a pattern, such as cats/*.jpg", value="")
            k = gr.Slider(1, MOST, INITIAL, step=1, label="Results", buttons=[])
            with gr.Accordion("Near-duplicates", open=False):
                threshold = threshold_box(index)
                with gr.Row(elem_classes="press"):
                    find = gr.Button("Find them")
        with gr.Column(scale=5, min_width=280):
            message = gr.HTML(elem_classes="message")
            hits = gr.HTML(
                searcher.results(None, [], "", INITIAL),
                elem_classes="result",
                js_on_load=(HERE / "search.js").read_text("utf-8"),
            )
    how = [labels, pattern, k]
    options: dict[str, Any] = {"show_progress_on": hits, "concurrency_id": QUEUE}
    found, failed = [box, words, query, hits], (None, gr.skip(), gr.skip(), gr.skip())
    listen([box.upload], take, [box, *how], found, message, failed, preprocess=False, **options)
    listen([words.submit], ask, [words, *how], found, message, failed, **options)
    listen([hits.select], follow, how, found, message, **options)
    changes = [labels.change, pattern.submit, pattern.blur, k.release]
    listen(changes, again, [query, *how], [hits], message, **options)
    listen([box.clear], begin, how, [query, hits], message, **options)
    listen([find.click], duplicates, [threshold, labels, pattern], [hits], message, **options)


def threshold_box(index: Index) -> gr.Slider | gr.Number:
    """Return the widget for the score from which two rows are near-duplicates."""
    if index.metric == "cosine":
        return gr.Slider(0.5, 1, 0.97, step=0.005, label="Alike from", info="cosine similarity", buttons=[])
    return gr.Number(label="Alike to" if index.metric == "l2" else "Alike from", info=index.metric)


def tiles(title: str, found: Sequence[Match]) -> str:
    """Return matches as buttons; pressing one searches with it."""
    if not found:
        return html.answer(title or "Nothing", "no row of the index is of these labels and paths")
    return (html.answer(title, f"{len(found)} nearest") if title else "") + _list(found)


def in_groups(groups: Sequence[Sequence[Match]], threshold: float) -> str:
    """Return groups of near-duplicates, the largest first."""
    if not groups:
        return html.answer("No near-duplicates", f"no two rows are so alike ({threshold:g})")
    count = sum(map(len, groups))
    title = f"{len(groups)} group{'s' * (len(groups) > 1)} of near-duplicates"
    more = f"{count:,} rows" + (f", the {GROUPS} largest groups are shown" if len(groups) > GROUPS else "")
    parts = [html.answer(title, more)]
    for group in groups[:GROUPS]:
        shown = f", {IN_GROUP} of them" if len(group) > IN_GROUP else ""
        parts.append(f"<h3>{len(group)} alike{shown}</h3>{_list(group[:IN_GROUP])}")
    return "".join(parts)


def _list(found: Sequence[Match]) -> str:
    return f'<ul class="hits">{"".join(map(_tile, found))}</ul>'


def _tile(match: Match) -> str:
    name, preview = Path(match.path).name, thumbnails.url(match.path)
    score = "" if np.isnan(match.score) else f"{match.score:.3f}"
    description = escape(", ".join(part for part in (name, match.label and f"label {match.label}", score) if part))
    picture = f'<img src="{preview}" alt="">' if preview else f'<span class="gone">{escape(name)}</span>'
    label = "" if match.label is None else f"<span>{escape(match.label)}</span>"
    return (
        f'<li><button type="button" data-id="{match.id}" title="{escape(match.path)}" aria-label="{description}">'
        f"{picture}<small>{label}<b>{score}</b></small></button></li>"
    )
