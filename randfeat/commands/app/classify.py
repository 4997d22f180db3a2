"""Classify: which class makes a picture likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from ...data.images import CentreCrop
from ...inference.successive_halving import SuccessiveHalving
from . import html, uploads
from .events import disabled, enabled, listen
from .state import Opened

SHOWN = 10  # classes
EMPTY = html.empty("Drop a picture, and press Classify.")
MANY = 50  # classes, of which only those in front are read to the end


def why_not(opened: Opened) -> str:
    if why := opened.no_generator():
        return why
    if not opened.generator().classes.count:
        return (
            "This model was trained without labels, so it cannot say which class makes a picture likeliest: give one "
            "that saw labels with --model."
        )
    return ""


def build(opened: Opened) -> None:
    model = opened.generator()
    crop = CentreCrop(model.image_size, model.tokenizer.channels)

    def take(upload: Mapping[str, Any]) -> tuple:
        picture = uploads.opened(upload)
        return uploads.in_box(picture), html.of_array(crop(picture)), enabled(), EMPTY

    def classify(picture: Image.Image | None, orders: float) -> Iterator[tuple]:
        if picture is None:
            raise ValueError("The picture is gone: drop it again.")
        race = SuccessiveHalving() if model.classes.count > MANY else None
        yield (html.progress(0, "reading in the first order"),)
        for count in rounds(int(orders), race is None and not model.generator.raster_only):
            found = model.classify([picture], orders=count, race=race)
            best = found.top(SHOWN)[0]
            read = "read row by row" if model.generator.raster_only else f"read in {count} order{'s' * (count > 1)}"
            progress = "" if count == orders or model.generator.raster_only else html.progress(count / orders, read)
            title = f"{best[0].name}, {100 * best[0].probability:.1f} %"
            yield (progress + html.answer(title, read) + html.bars((one.name, one.probability) for one in best),)

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280):
            box = uploads.box("Picture")
            picture = gr.State()
            orders = gr.Slider(
                1,
                64,
                16,
                step=1,
                label="Orders",
                info="more are more accurate, and take longer",
                buttons=[],
                visible=not model.generator.raster_only,
            )
            with gr.Row(elem_classes="press"):
                go = gr.Button("Classify", variant="primary", interactive=False)
        with gr.Column(scale=3, min_width=280):
            says = gr.HTML(elem_classes="says")
            result = gr.HTML(EMPTY, elem_classes="result")
    place, none = [picture, go, result], (None, disabled(), EMPTY)
    listen([box.upload], take, [box], [box, *place], says, (None, *none), preprocess=False)
    listen([box.clear], lambda: none, [], place, says)
    listen([go.click], classify, [picture, orders], [result], says)


def rounds(orders: int, several: bool) -> list[int]:
    """Numbers of orders, each four times the one before, up to all: the answer is seen to settle."""
    counts = [4**power for power in range(orders) if 4**power < orders] if several else []
    return [*counts, orders]
