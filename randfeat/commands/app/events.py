"""Listeners of the page. An error becomes a sentence on the page, and one listener computes at a time."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import torch

from .html import alert

EXPECTED = (ValueError, OSError, RuntimeError, MemoryError)


def listen(
    events: Sequence[Any],
    handler: Callable[..., Iterator[tuple]] | Callable[..., tuple],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    message: gr.HTML,
    failed: tuple | None = None,
    **options: Any,
) -> Any:
    """Run a handler at any of some events, and return the listener, which `cancels` of another one takes.

    handler: returns values for the outputs, or yields them several times; while it yields, other such handlers wait.
    message: where an error is shown as a sentence. failed: values of the outputs after an error; by default they stay.
    options: of gradio's listeners.
    """
    kept = tuple(gr.skip() for _ in outputs) if failed is None else failed

    @functools.wraps(handler)  # gradio decides by the handler's types which further arguments it passes
    def computing(*given: Any) -> Iterator[tuple]:
        try:
            for values in handler(*given):
                yield *values, ""
        except EXPECTED as error:
            yield *kept, alert(sentence(error))

    @functools.wraps(handler)
    def at_once(*given: Any) -> tuple:
        try:
            return *handler(*given), ""
        except EXPECTED as error:
            return *kept, alert(sentence(error))

    how: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": outputs[-1], "api_visibility": "private"}
    if inspect.isgeneratorfunction(handler):
        how |= {"concurrency_id": "model", "concurrency_limit": 1}
        return gr.on([*events], computing, [*inputs], [*outputs, message], **how | options)
    return gr.on([*events], at_once, [*inputs], [*outputs, message], **how | {"queue": False} | options)


def enabled() -> dict[str, Any]:
    """Return the update that enables a button."""
    return gr.update(interactive=True)


def disabled() -> dict[str, Any]:
    """Return the update that disables a button."""
    return gr.update(interactive=False)


def sentence(error: BaseException) -> str:
    """Return an error as one sentence for the page."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "There is no room for this in the machine's memory: give a smaller picture, or fewer at once."
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
