"""Tab Classify: the classes that make a picture likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from ...data.images import CentreCrop
from ...inference.successive_halving import SuccessiveHalving
from . import html, widgets
from .events import disabled, enabled, listen
from .state import AppState

SHOWN = 10  # classes in the answer
EMPTY = html.empty("Drop a picture, and press Classify.")
MANY = 50  # classes; of more, only the leading ones are read to the end, by successive halving


def unavailable(state: AppState) -> str:
    """Return why the tab cannot work, "" if it can."""
    if why := state.missing_generator():
        return why
    if not state.generator().classes.count:
        return (
            "This model was trained without labels, so it cannot say which class makes a picture likeliest: give one "
            "that saw labels with --model."
        )
    return ""


def build(state: AppState) -> None:
    """Add the tab's widgets and listeners to the page."""
    model = state.generator()
    crop = CentreCrop(model.image_size, model.tokenizer.channels)

    def take(upload: Mapping[str, Any]) -> tuple:
        picture = widgets.open_upload(upload)
        return widgets.for_box(picture), html.from_array(crop(picture)), enabled(), EMPTY

    def classify(picture: Image.Image | None, orders: float) -> Iterator[tuple]:
        if picture is None:
            raise ValueError("The picture is gone: drop it again.")
        halving = SuccessiveHalving() if model.classes.count > MANY else None
        yield (html.progress(0, "reading in the first order"),)
        for count in rounds(int(orders), halving is None and model.generator.many_orders):
            found = model.classify([picture], orders=count, halving=halving)
            best = found.top(SHOWN)[0]
            several = model.generator.many_orders
            read = f"read in {count} order{'s' * (count > 1)}" if several else "read row by row"
            progress = html.progress(count / orders, read) if several and count < orders else ""
            title = f"{best[0].name}, {100 * best[0].probability:.1f} %"
            yield (progress + html.answer(title, read) + html.bars((one.name, one.probability) for one in best),)

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280):
            box = widgets.picture_box("Picture")
            picture = gr.State()
            orders = gr.Slider(
                1,
                64,
                16,
                step=1,
                label="Orders",
                info="more are more accurate, and take longer",
                buttons=[],
                visible=model.generator.many_orders,
            )
            with gr.Row(elem_classes="press"):
                go = gr.Button("Classify", variant="primary", interactive=False)
        with gr.Column(scale=3, min_width=280):
            message = gr.HTML(elem_classes="message")
            result = gr.HTML(EMPTY, elem_classes="result")
    place, none = [picture, go, result], (None, disabled(), EMPTY)
    listen([box.upload], take, [box], [box, *place], message, (None, *none), preprocess=False)
    listen([box.clear], lambda: none, [], place, message)
    listen([go.click], classify, [picture, orders], [result], message)


def rounds(orders: int, several: bool) -> list[int]:
    """Return growing numbers of orders, each four times the last, up to `orders`: the page shows the answer settle."""
    counts = [4**power for power in range(orders) if 4**power < orders] if several else []
    return [*counts, orders]
