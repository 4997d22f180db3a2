"""The page: what is open, and a tab for each thing to do with it."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from . import classify, html, paint, read, sample, search
from .state import Opened

TABS = {"Search": search, "Paint": paint, "Sample": sample, "Read": read, "Classify": classify}
STYLE = Path(__file__).parent / "page.css"
KEEP = 3600  # seconds that uploads stay on the disk


def build(opened: Opened) -> gr.Blocks:
    """Return the page for what is open. A tab that cannot do its work says why."""
    with gr.Blocks(title="randfeat", analytics_enabled=False, delete_cache=(KEEP, KEEP), fill_width=True) as page:
        gr.HTML(f"<h1>randfeat</h1><p>{escape(what_is_open(opened))}</p>", elem_id="head")
        possible = [name for name, tab in TABS.items() if not tab.why_not(opened)]
        with gr.Tabs(selected=possible[0], elem_id="tabs"):
            for name, tab in TABS.items():
                with gr.Tab(name, id=name):
                    if why := tab.why_not(opened):
                        gr.HTML(html.note(why))
                    else:
                        tab.build(opened)
    return page


def what_is_open(opened: Opened) -> str:
    """In a line."""
    parts = []
    if (index := opened.index) is not None:
        parts.append(f"{Path(index.directory or 'index').name}: {len(index):,} rows")
    if (model := opened.model) is not None:
        height, width = model.image_size
        classes = f"{model.classes.count:,} classes" if model.classes.count else "trained without labels"
        kind = type(model.generator).__name__
        parts.append(f"{_name(opened)}: {kind} of {width} × {height} pixels, {classes}")
    elif opened.encoder is not None:
        parts.append(_name(opened))
    return " · ".join(parts)


def _name(opened: Opened) -> str:
    """Of the model, without the folders around it."""
    name = opened.encoder.name if opened.encoder else ""
    return Path(name).name if Path(name).exists() else name
