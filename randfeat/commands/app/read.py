"""Tab Read: the features of a picture as colours, by any feature spec of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from ...features.encoder import Encoder
from ...inference import readout
from ...inference.readout import FeatureSpec
from ...pipeline.pipeline import Pipeline
from ...probes.report.sheets import pca_maps
from . import html, widgets
from .events import listen
from .state import AppState

SPECS = tuple(
    FeatureSpec.parse(spec)
    for spec in (
        "raster/causal/token/L0.5/none/mean",
        "random*8/causal/token/L0.5/none/mean",
        "raster/causal/query/L0.67/none/mean",
        "random*8/causal/query/L0.67/none/mean",
        "raster/full/query/L-1/none/mean",
        "random*4/echo/token/L0.5/none/mean",
        "random*4/full/token/L0.5/none/mean",
        "random/after/query/L0.67/none/mean",
        "raster/causal/token/L-1/none/mean",
    )
)
EMPTY = html.empty("Drop a picture to see its features as colours.")
TIMM_SPECS = ("L-1/none", "L0.5/none")
GREY = 128


def unavailable(state: AppState) -> str:
    """Return why the tab cannot work, "" if it can."""
    return state.missing_maps()


def build(state: AppState) -> None:
    """Add the tab's widgets and listeners to the page."""
    encoder = state.encoder
    assert encoder is not None

    def take(upload: Mapping[str, Any], spec: str) -> Iterator[tuple]:
        picture = widgets.open_upload(upload)
        prepared = encoder.prepare(picture)
        yield widgets.for_box(picture), prepared, gr.skip()
        for (result,) in show(prepared, spec):
            yield gr.skip(), gr.skip(), result

    def show(prepared: np.ndarray | None, spec: str) -> Iterator[tuple]:
        if prepared is None:
            return
        dense, of_positions = dense_features(encoder, prepared, spec)
        width, rows, columns = dense.shape
        colours = Image.fromarray(pca_maps(dense[None], of_positions)[0])
        read = (
            f"{width:,} numbers at each of {rows} × {columns} places, less those of an evenly grey picture there, "
            "which say little but the place; similar colours mean similar features"
        )
        own = html.figure(html.from_array(prepared), "what the model sees")
        yield (html.figures([own, html.figure(colours, read)]),)

    with gr.Row(elem_classes="split"):
        with gr.Column(scale=2, min_width=280):
            box = widgets.picture_box("Picture")
            prepared = gr.State()
            specs = dense_specs(state.model)
            info = "orders/context/stream/layers/none/merge" if state.model else "layers/none, as L6/none"
            spec = gr.Dropdown(
                specs,
                value=specs[0],
                label="Feature spec",
                info=f"choose one, or write your own: {info}",
                allow_custom_value=True,
            )
        with gr.Column(scale=3, min_width=280):
            message = gr.HTML(elem_classes="message")
            result = gr.HTML(EMPTY, elem_classes="result")
    listen([box.upload], take, [box, spec], [box, prepared, result], message, (None, None, EMPTY), preprocess=False)
    listen([spec.change], show, [prepared, spec], [result], message)
    listen([box.clear], lambda: (None, EMPTY), [], [prepared, result], message)


def dense_specs(model: Pipeline | None) -> list[str]:
    """Return feature specs of dense maps that a model supports, its default first. model: None for one of timm."""
    if model is None:
        return [*TIMM_SPECS]
    supported = (str(spec) for spec in SPECS if supports(model, spec))
    return [*dict.fromkeys((model.generator.default_dense_spec, *supported))]


def supports(model: Pipeline, spec: FeatureSpec) -> bool:
    """Return whether a model can be read by a feature spec."""
    try:
        readout.check(model.generator, spec)
    except ValueError:
        return False
    return True


def dense_features(encoder: Encoder, prepared: np.ndarray, spec: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of one picture, and of an evenly grey one, as maps: float32 (D, h, w) each.

    prepared: the encoder's input, uint8.
    """
    both = np.stack([prepared, np.full_like(prepared, GREY)])
    (read,) = encoder.with_specs([spec]).encode(torch.from_numpy(both))
    if read.ndim != 4:
        raise ValueError(f"{spec} gives one vector for the whole picture, not a map: write none as its pool.")
    return read[0], read[1]
