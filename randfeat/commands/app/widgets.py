"""What the tabs that draw have in common: the class, how to sample, the seed."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from ...data.labels import Label
from ...inference.sampling import Sampling
from ...inference.schedules import Guidance
from ...pipeline.pipeline import Pipeline

NO_CLASS, GUESS = -1, -2
LARGEST_SEED = 10**9


def class_menu(model: Pipeline, guess: bool = False) -> gr.Dropdown:
    """Of a model's classes; hidden where it has none. guess: whether the first choice is that the model guesses."""
    choices = [("guess it from the rest", GUESS)] if guess else []
    choices += [(model.classes.short(index), index) for index in range(model.classes.count)]
    choices.append(("no class", NO_CLASS))
    return gr.Dropdown(choices, value=choices[0][1], label="Class", visible=model.classes.count > 0)


def label_of(choice: int) -> Label:
    return None if choice in (NO_CLASS, GUESS) else choice


def guidance_slider(model: Pipeline) -> gr.Slider:
    info = "how much more it shall look like its class; 1 is off"
    scale = max(1.0, float(model.sampling.guidance.scale))
    return gr.Slider(
        1, max(10, scale), scale, step=0.1, label="Guidance", info=info, buttons=[], visible=model.classes.count > 0
    )


def steps_slider(model: Pipeline) -> gr.Slider:
    """Hidden where a model decodes one token at a time and nothing else."""
    tokens, info = model.generator.num_tokens, "calls of the network; fewer decode more tokens at a time"
    several = not model.generator.raster_only and tokens > 1
    steps = min(model.sampling.steps or tokens, tokens)
    return gr.Slider(1, tokens, steps, step=1, label="Steps", info=info, buttons=[], visible=several)


def seed_box() -> gr.Number:
    return gr.Number(0, label="Seed", info="the same seed draws the same picture", precision=0)


def sampling_of(model: Pipeline, scale: float, steps: float) -> Sampling:
    """Return the model's own settings with what was chosen in their place."""
    published = model.sampling
    guidance = Guidance() if scale == 1 else replace(published.guidance, scale=float(scale))
    chosen = published.steps if model.generator.raster_only else int(steps)
    return replace(published, steps=chosen, guidance=guidance)


def seed_of(seed: float | None) -> int:
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"The seed is a whole number from 0 to {LARGEST_SEED:,}.")
    return int(seed)
