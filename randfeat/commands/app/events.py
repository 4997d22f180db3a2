"""Listeners of the page: what they raise is a sentence on it, and no two of them compute at once."""

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
    says: gr.HTML,
    failed: tuple | None = None,
    **options: Any,
) -> Any:
    """Run a handler at any of some events. It returns values for the outputs at once, or computes and yields some
    again and again; then others wait until it is done.

    says: where an error is said in a sentence. failed: the outputs after one, by default what they were. options: of
    gradio's listeners. Returns what `cancels` of another listener takes.
    """
    left = tuple(gr.skip() for _ in outputs) if failed is None else failed

    @functools.wraps(handler)  # gradio looks at its types for what else it wants to be told
    def computing(*given: Any) -> Iterator[tuple]:
        try:
            for values in handler(*given):
                yield *values, ""
        except EXPECTED as error:
            yield *left, alert(sentence(error))

    @functools.wraps(handler)
    def at_once(*given: Any) -> tuple:
        try:
            return *handler(*given), ""
        except EXPECTED as error:
            return *left, alert(sentence(error))

    how: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": outputs[-1], "api_visibility": "private"}
    if inspect.isgeneratorfunction(handler):
        how |= {"concurrency_id": "model", "concurrency_limit": 1}
        return gr.on([*events], computing, [*inputs], [*outputs, says], **how | options)
    return gr.on([*events], at_once, [*inputs], [*outputs, says], **how | {"queue": False} | options)


def enabled() -> dict[str, Any]:
    """For a button that has something to do."""
    return gr.update(interactive=True)


def disabled() -> dict[str, Any]:
    return gr.update(interactive=False)


def sentence(error: BaseException) -> str:
    """What an error says, for a person."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "There is no room for this in the machine's memory: give a smaller picture, or fewer at once."
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
