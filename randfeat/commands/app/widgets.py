"""Widgets that several tabs share: the box for a picture, class, guidance, steps and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from PIL import Image

from ...data.decode import UnreadableImage, open_picture
from ...data.labels import Label
from ...inference.sampling import Sampling
from ...inference.schedules import Guidance
from ...pipeline.pipeline import Pipeline
from . import html

NO_CLASS, GUESS = -1, -2
LARGEST_SEED = 10**9


# pictures -----------------------------------------------------------------------------------------------------------


def picture_box(label: str) -> gr.Image:
    """Return the box where a picture is dropped, chosen or pasted.

    Its listeners take `preprocess=False`, and open the upload by `open_upload`.
    """
    return gr.Image(
        label=label,
        placeholder="Drop a picture here, or press to choose one",
        sources=["upload", "clipboard"],
        height=300,
        buttons=[],
        format="jpeg",  # of what `for_box` returns
        elem_classes="picture",
    )


def for_box(picture: Image.Image) -> Image.Image:
    """Return what the box shows in place of an upload, whose format browsers may not support."""
    return html.on_screen(picture, most=480)


def open_upload(upload: Mapping[str, Any]) -> Image.Image:
    """Return the picture of an upload, upright, mode "L" or "RGB". Raises a ValueError of one sentence."""
    name = upload.get("orig_name") or "the picture"
    try:
        return open_picture(str(upload["path"]))
    except UnreadableImage as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}.") from None
    except MemoryError:
        raise ValueError(f"{name} is too large for the memory of this machine: give a smaller one.") from None


# sampling -----------------------------------------------------------------------------------------------------------


def class_menu(model: Pipeline, guess: bool = False) -> gr.Dropdown:
    """Return a menu of a model's classes, hidden where it has none. guess: add "guess it" as the first choice."""
    choices = [("guess it from the rest", GUESS)] if guess else []
    choices += [(model.classes.short(index), index) for index in range(model.classes.count)]
    choices.append(("no class", NO_CLASS))
    return gr.Dropdown(choices, value=choices[0][1], label="Class", visible=model.classes.count > 0)


def label_of(choice: int) -> Label:
    """Return the class that was chosen in the menu, None for none."""
    return None if choice in (NO_CLASS, GUESS) else choice


def guidance_slider(model: Pipeline) -> gr.Slider:
    """Return a slider for the scale of guidance, hidden where a model has no classes."""
    info = "how much more it shall look like its class; 1 is off"
    scale = max(1.0, float(model.sampling.guidance.scale))
    return gr.Slider(
        1, max(10, scale), scale, step=0.1, label="Guidance", info=info, buttons=[], visible=model.classes.count > 0
    )


def steps_slider(model: Pipeline) -> gr.Slider:
    """Return a slider for the steps of decoding, hidden where a model always decodes one token at a time."""
    tokens, info = model.generator.num_tokens, "calls of the network; fewer decode more tokens at a time"
    several = not (model.generator.one_token_a_step or model.sampling.exact) and tokens > 1
    steps = min(model.sampling.steps or tokens, tokens)
    return gr.Slider(1, tokens, steps, step=1, label="Steps", info=info, buttons=[], visible=several)


def control_kind(model: Pipeline) -> str:
    """Return what of a picture a model with control follows, such as edges; "" without control."""
    kind = "" if model.generator.control is None else str(model.generator.config["control"]["kind"])
    return {"image": "look", "lowres": "look from afar", "mask": "silhouette"}.get(kind, kind)


def control_slider(model: Pipeline) -> gr.Slider:
    """Return a slider for the scale of guidance towards a control picture, hidden where a model has no control."""
    info = "how much more it shall follow the picture; 1 is plain control"
    shown = model.generator.control is not None
    return gr.Slider(1, 5, 1, step=0.1, label="Control scale", info=info, buttons=[], visible=shown)


def seed_box() -> gr.Number:
    """Return the field for the seed."""
    return gr.Number(0, label="Seed", info="the same seed draws the same picture", precision=0)


def sampling_of(model: Pipeline, scale: float, steps: float, control_scale: float = 1.0) -> Sampling:
    """Return the model's own sampling settings with the chosen guidance scales and steps."""
    published = model.sampling
    guidance = Guidance() if scale == 1 else replace(published.guidance, scale=float(scale))
    chosen = published.steps if model.generator.one_token_a_step or published.exact else int(steps)
    control = Guidance() if control_scale == 1 else replace(published.control_guidance, scale=float(control_scale))
    return replace(published, steps=chosen, guidance=guidance, control_guidance=control)


def seed_of(seed: float | None) -> int:
    """Return the seed of the field; a ValueError unless it is a whole number in range."""
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"The seed is a whole number from 0 to {LARGEST_SEED:,}.")
    return int(seed)
