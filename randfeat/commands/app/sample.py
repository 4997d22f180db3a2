"""Sample: choose a class and watch a picture of it being decoded."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from ...pipeline.painting import Frame
from ...utils import drawing
from . import html, widgets
from .events import listen
from .state import Opened


def why_not(opened: Opened) -> str:
    return opened.no_generator()


def build(opened: Opened) -> None:
    model = opened.generator()

    def sample(choice: int, scale: float, steps: float, seed: float | None) -> Iterator[tuple]:
        first = widgets.seed_of(seed)
        how = widgets.sampling_of(model, scale, steps)
        for step, frame in enumerate(model.watch(widgets.label_of(choice), seed=first, sampling=how)):
            yield moment(frame, step, f"seed {first}"), first
        yield moment(frame, step, f"seed {first}"), first + 1

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280):
            choice = widgets.class_menu(model)
            scale, steps, seed = widgets.guidance_slider(model), widgets.steps_slider(model), widgets.seed_box()
            with gr.Row(elem_classes="press"):
                go = gr.Button("Sample", variant="primary")
                stop = gr.Button("Stop")
        with gr.Column(scale=3, min_width=280):
            says = gr.HTML(elem_classes="says")
            result = gr.HTML(html.empty("A picture appears here, token by token."), elem_classes="result")
    running = listen([go.click], sample, [choice, scale, steps, seed], [result, seed], says, show_progress_on=result)
    stop.click(None, cancels=[running], api_visibility="private")


def moment(frame: Frame, step: int, name: str) -> str:
    """Return a picture so far, when each of its tokens was made, and how much of it there is."""
    made, tokens = int((frame.made_at >= 0).sum()), frame.made_at.size
    caption = f"{name}, step {step}, {made} of {tokens} tokens"
    order = drawing.order_sheet(frame.made_at)
    return html.progress(made / tokens, caption) + html.figures(
        [
            html.figure(frame.picture, caption),
            html.figure(order, "the step that made each token, the early ones dark"),
        ]
    )
