"""The page: a line on what is open, and a tab for each job."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from ...index.reader import split_path
from . import classify, html, paint, read, sample, search
from .state import AppState

TABS = {"Search": search, "Paint": paint, "Sample": sample, "Read": read, "Classify": classify}
STYLE = Path(__file__).parent / "page.css"
KEEP = 3600  # seconds that uploads stay on the disk


def build(state: AppState) -> gr.Blocks:
    """Return the page. A tab that cannot work shows why."""
    with gr.Blocks(title="randfeat", analytics_enabled=False, delete_cache=(KEEP, KEEP), fill_width=True) as page:
        gr.HTML(f"<h1>randfeat</h1><p>{escape(summary(state))}</p>", elem_id="head")
        possible = [name for name, tab in TABS.items() if not tab.unavailable(state)]
        with gr.Tabs(selected=possible[0], elem_id="tabs"):
            for name, tab in TABS.items():
                with gr.Tab(name, id=name):
                    if why := tab.unavailable(state):
                        gr.HTML(html.note(why))
                    else:
                        tab.build(state)
    return page


def summary(state: AppState) -> str:
    """Return what is open, in one line."""
    parts = []
    if (index := state.index) is not None:
        parts.append(f"{Path(index.directory or 'index').name}: {len(index):,} rows")
    if (model := state.model) is not None:
        height, width = model.image_size
        classes = f"{model.classes.count:,} classes" if model.classes.count else "trained without labels"
        kind = type(model.generator).__name__
        parts.append(f"{_name(state)}: {kind} of {width} × {height} pixels, {classes}")
    elif state.encoder is not None:
        parts.append(_name(state))
    return " · ".join(parts)


def _name(state: AppState) -> str:
    """Return the name of the model, without the folders around it."""
    before, path = split_path(state.encoder.name) if state.encoder else ("", "")
    return f"{before}{Path(path).name}"
