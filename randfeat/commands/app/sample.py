"""Tab Sample: choose a class, and watch a picture being decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from ...data.crop import CentreCrop
from ...pipeline.painting import Frame
from ...utils import drawing
from . import html, widgets
from .events import listen
from .state import AppState


def unavailable(state: AppState) -> str:
    """Return why the tab cannot work, "" if it can."""
    return state.missing_generator()


def build(state: AppState) -> None:
    """Add the tab's widgets and listeners to the page."""
    model = state.generator()
    crop = CentreCrop(model.image_size, model.tokenizer.channels)

    def take(upload: Mapping[str, Any]) -> tuple:
        picture = widgets.open_upload(upload)
        return widgets.for_box(picture), html.from_array(crop(picture))

    def sample(
        choice: int, scale: float, steps: float, seed: float | None, control: Image.Image | None, towards: float
    ) -> Iterator[tuple]:
        first = widgets.seed_of(seed)
        how = widgets.sampling_of(model, scale, steps, 1 if control is None else towards)
        frames = model.watch(widgets.label_of(choice), seed=first, sampling=how, control=control)
        for step, frame in enumerate(frames):
            yield frame_figures(frame, step, f"seed {first}"), first
        yield frame_figures(frame, step, f"seed {first}"), first + 1

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280):
            choice = widgets.class_menu(model)
            scale, steps, seed = widgets.guidance_slider(model), widgets.steps_slider(model), widgets.seed_box()
            with gr.Column(visible=model.generator.control is not None):
                box = widgets.picture_box(f"Control: a picture whose {widgets.control_kind(model)} to follow")
                control = gr.State()
                towards = widgets.control_slider(model)
            with gr.Row(elem_classes="press"):
                go = gr.Button("Sample", variant="primary")
                stop = gr.Button("Stop")
        with gr.Column(scale=3, min_width=280):
            message = gr.HTML(elem_classes="message")
            result = gr.HTML(html.empty("A picture appears here, token by token."), elem_classes="result")
    listen([box.upload], take, [box], [box, control], message, (None, None), preprocess=False)
    listen([box.clear], lambda: (None,), [], [control], message)
    given = [choice, scale, steps, seed, control, towards]
    running = listen([go.click], sample, given, [result, seed], message, show_progress_on=result)
    stop.click(None, cancels=[running], api_visibility="private")


def frame_figures(frame: Frame, step: int, name: str) -> str:
    """Return the picture decoded so far, the step of each of its tokens, and the progress."""
    made, tokens = int((frame.made_at >= 0).sum()), frame.made_at.size
    caption = f"{name}, step {step}, {made} of {tokens} tokens"
    order = drawing.order_sheet(frame.made_at)
    return html.progress(made / tokens, caption) + html.figures(
        [
            html.figure(frame.picture, caption),
            html.figure(order, "the step that made each token, the early ones dark"),
        ]
    )
