"""Pictures that come in: whatever somebody drops is a picture, or a sentence says why it is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from PIL import Image

from ...data import images as data
from . import html


def box(label: str) -> gr.Image:
    """Where a picture is dropped, chosen or pasted. Its listeners take `preprocess=False`, and `opened` what comes."""
    return gr.Image(
        label=label,
        placeholder="Drop a picture here, or press to choose one",
        sources=["upload", "clipboard"],
        height=300,
        buttons=[],
        format="jpeg",  # of what `in_box` gives back
        elem_classes="picture",
    )


def in_box(picture: Image.Image) -> Image.Image:
    """What the box shows in the place of an upload, which no browser may be able to."""
    return html.on_screen(picture, most=480)


def opened(upload: Mapping[str, Any]) -> Image.Image:
    """Return the picture of an upload, as it is seen: mode "L" or "RGB". Raises a ValueError of one sentence."""
    name = upload.get("orig_name") or "the picture"
    try:
        return data.open_picture(str(upload["path"]))
    except data.UnreadableImage as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}.") from None
    except MemoryError:
        raise ValueError(f"{name} is too large for the memory of this machine: give a smaller one.") from None
