"""Tab Paint: a mask over a picture, and what the model puts there."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ...data.decode import UnreadableImage, open_picture
from ...data.labels import Label
from ...inference.editing import Framing, as_mask
from ...inference.editing.pictures import MaskedPicture
from ...pipeline.painting import guess_label
from ...pipeline.pipeline import Pipeline
from . import html, widgets
from .events import disabled, enabled, listen
from .state import AppState

HERE = Path(__file__).parent
ORDERS = 4  # that a guess is averaged over
MASK = "data:image/png;base64,"
# sends the mask in the place of the painter's value, which is the picture
SEND_MASK = "(painter, ...rest) => [document.querySelector('#painter')?.mask() ?? null, ...rest]"


def unavailable(state: AppState) -> str:
    """Return why the tab cannot work, "" if it can."""
    return state.missing_generator()


def build(state: AppState) -> None:
    """Add the tab's widgets and listeners to the page."""
    model = state.generator()

    def take(upload: Mapping[str, Any]) -> tuple:
        return painter_outputs(html.reduced(widgets.open_upload(upload)))

    def paint(
        drawn: Any,
        picture: Image.Image | None,
        choice: int,
        samples: float,
        scale: float,
        steps: float,
        seed: float,
        follow: bool,
        towards: float,
    ) -> Iterator[tuple]:
        if picture is None:
            raise ValueError("The picture is gone: drop it again.")
        hidden = as_mask(mask_of(drawn), (picture.height, picture.width))
        if not hidden.any():
            raise ValueError("Nothing is painted over yet: draw over what the model shall make anew.")
        first, how = widgets.seed_of(seed), widgets.sampling_of(model, scale, steps, towards if follow else 1)
        control = picture if follow else None
        yield html.progress(0, "reading what is known"), first
        label, named = label_for(model, choice, picture, hidden)
        made: list[str] = []
        for number in range(int(samples)):
            yield html.progress(number / samples, f"{number} of {samples:.0f}") + html.figures(made), first
            (result,) = model.inpaint(picture, hidden, label, seed=first + number, sampling=how, control=control)
            made.append(html.figure(result, f"seed {first + number}{named}"))
        yield html.figures(made), first + int(samples)

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=3, min_width=280):
            with gr.Column() as dropping:
                box = widgets.picture_box("Picture")
            with gr.Column(visible=False) as drawing:
                painter = gr.HTML(
                    elem_id="painter",
                    html_template=(HERE / "painter.html").read_text("utf-8"),
                    js_on_load=(HERE / "painter.js").read_text("utf-8"),
                )
                with gr.Row(elem_classes="press"):
                    other = gr.Button("Another picture")
            picture = gr.State()
        with gr.Column(scale=2, min_width=280):
            choice = widgets.class_menu(model, guess=True)
            samples = gr.Slider(1, 8, 4, step=1, label="Samples", info="each with a seed of its own", buttons=[])
            scale, steps, seed = widgets.guidance_slider(model), widgets.steps_slider(model), widgets.seed_box()
            with gr.Column(visible=model.generator.control is not None):
                follow = gr.Checkbox(label=f"Keep the picture's {widgets.control_kind(model)} under the mask")
                towards = widgets.control_slider(model)
            with gr.Row(elem_classes="press"):
                go = gr.Button("Inpaint", variant="primary", interactive=False)
                stop = gr.Button("Stop")
            if model.generator.raster_only:
                gr.HTML(html.note("This model writes row by row: it does not see what comes after the mask."))
            message = gr.HTML(elem_classes="message")
    result = gr.HTML(elem_classes="result")
    place = [box, dropping, drawing, painter, picture, go, result]
    listen([box.upload], take, [box], place, message, painter_outputs(None), preprocess=False)
    listen([other.click], lambda: painter_outputs(None), [], place, message)
    given = [painter, picture, choice, samples, scale, steps, seed, follow, towards]
    running = listen([go.click], paint, given, [result, seed], message, js=SEND_MASK, show_progress_on=result)
    stop.click(None, cancels=[running], api_visibility="private")


def painter_outputs(picture: Image.Image | None) -> tuple:
    """Return the outputs for a picture to paint in, or for none.

    They are the empty box, visibility of the box and of the painter, the painter's value, the picture, the button and
    the empty result.
    """
    if picture is None:
        return None, gr.update(visible=True), gr.update(visible=False), None, None, disabled(), ""
    drawn_on = {"url": html.url(picture), "width": picture.width, "height": picture.height}
    return None, gr.update(visible=False), gr.update(visible=True), drawn_on, picture, enabled(), ""


def mask_of(drawn: Any) -> Image.Image:
    """Return the mask that the painter sends, white where to paint; a ValueError if it is none."""
    if not isinstance(drawn, str) or not drawn.startswith(MASK):
        raise ValueError("Nothing is painted over yet: draw over what the model shall make anew.")
    try:
        return open_picture(io.BytesIO(base64.b64decode(drawn.removeprefix(MASK), validate=True)))
    except (binascii.Error, UnreadableImage) as error:
        raise ValueError(f"The mask did not arrive whole ({error}): press Inpaint again.") from None


def label_for(model: Pipeline, choice: int, picture: Image.Image, hidden: np.ndarray) -> tuple[Label, str]:
    """Return the class to paint, and the caption about it."""
    if choice != widgets.GUESS or not model.classes.count:
        return widgets.label_of(choice), ""
    label = guess_label(model, MaskedPicture(np.asarray(picture), hidden), Framing(), ORDERS)
    if label == model.classes.count:
        return None, ", of no class"
    return label, f", taken for {model.classes.short(label)}"
