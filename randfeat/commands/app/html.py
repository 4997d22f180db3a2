"""Fragments of the page as HTML: pictures with captions, sentences, bars."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image

from ...utils import drawing

SMALL, LARGE = 320, 768  # pixels of the longer side on the page, at least and at most
LARGEST = 1024  # pixels of the longer side of a picture that is painted in


def on_screen(picture: Image.Image, least: int = SMALL, most: int = LARGE) -> Image.Image:
    """Return a picture at a size for the page: small ones enlarged pixel by pixel, large ones reduced."""
    fitted = reduced(picture, most).convert("RGB")
    zoom = max(1, -(-least // max(fitted.size)))
    return fitted.resize((fitted.width * zoom, fitted.height * zoom), Image.Resampling.NEAREST)


def reduced(picture: Image.Image, longest: int = LARGEST) -> Image.Image:
    """Return a picture reduced to at most `longest` pixels on its longer side."""
    if max(picture.size) <= longest:
        return picture
    width, height = (max(1, round(side * longest / max(picture.size))) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3)


def from_array(prepared: np.ndarray) -> Image.Image:
    """Return an encoder's input, uint8 (h, w, channels) or of timm (channels, h, w), as a picture."""
    array = prepared if prepared.shape[2] in (1, 3) else prepared.transpose(1, 2, 0)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def url(picture: Image.Image, photograph: bool = False) -> str:
    """Return a picture as a data URL. photograph: as JPEG instead of PNG, smaller and not exact."""
    if not photograph:
        return "data:image/png;base64," + base64.b64encode(drawing.png(picture)).decode()
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure(picture: Image.Image, caption: str, alt: str = "") -> str:
    """Return a picture over its caption. alt: text for a screen reader, by default the caption."""
    image = f'<img src="{url(on_screen(picture))}" alt="{escape(alt or caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def figures(each: Iterable[str]) -> str:
    """Return figures side by side, as many in a row as there is room for."""
    return f'<div class="figures">{"".join(each)}</div>'


def note(sentence: str) -> str:
    """Return a sentence of information."""
    return f'<p class="note">{escape(sentence)}</p>'


def alert(sentence: str) -> str:
    """Return a sentence of an error, which a screen reader speaks when it appears."""
    return f'<p class="note wrong" role="alert">{escape(sentence)}</p>'


def bars(shares: Iterable[tuple[str, float]]) -> str:
    """Return names with their probabilities as bars, in the sequence given."""
    rows = "".join(
        f'<li><span>{escape(name)}</span><span class="bar"><span style="width:{100 * share:.2f}%"></span></span>'
        f"<b>{100 * share:.1f} %</b></li>"
        for name, share in shares
    )
    return f'<ol class="bars">{rows}</ol>'


def answer(title: str, more: str) -> str:
    """Return the title over a result, and a small line below it."""
    return f'<p class="answer">{escape(title)}<small>{escape(more)}</small></p>'


def progress(share: float, what: str) -> str:
    """Return a progress bar. share: 0..1. what: its text for a screen reader."""
    return f'<progress max="1" value="{share:.4f}" aria-label="{escape(what)}"></progress>'


def empty(sentence: str) -> str:
    """Return the sentence that stands where a result will be."""
    return f'<p class="empty">{escape(sentence)}</p>'
