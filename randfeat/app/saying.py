"""Listeners of the page: what they raise is a sentence on it, and no two of them compute at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import torch

from .shown import alert

EXPECTED = (ValueError, OSError, RuntimeError, MemoryError)


def listen(
    events: Sequence[Any],
    handler: Callable[..., Iterator[tuple]],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    says: gr.HTML,
    failed: tuple | None = None,
    **options: Any,
) -> Any:
    """Runs a handler at any of some events. It yields values for the outputs, once or again and again.

    says: where an error is said in a sentence; failed: the outputs after one, by default what they were. options: of
    gradio's listeners. Returns what `cancels` of another listener takes.
    """

    @functools.wraps(handler)  # gradio looks at its types for what else it wants to be told
    def guarded(*given: Any) -> Iterator[tuple]:
        try:
            for values in handler(*given):
                yield *values, ""
        except EXPECTED as error:
            left = tuple(gr.skip() for _ in outputs) if failed is None else failed
            yield *left, alert(sentence(error))

    how = {"show_progress": "minimal", "concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": outputs[-1]} | options
    return gr.on([*events], guarded, [*inputs], [*outputs, says], api_visibility="private", **how)


def sentence(error: BaseException) -> str:
    """What an error says, for a person."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "There is no room for this in the machine's memory: give a smaller picture, or fewer at once."
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
