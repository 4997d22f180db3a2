"""Timing in turns: on a shared machine only ratios of alternating runs are meaningful."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def alternate(
    variants: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round; a round runs all of them in turn, after one unmeasured round.

    clock: `time.process_time` counts the processor time of this process, whatever else the machine does.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, call in variants.items():
            started = clock()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(clock() - started)
                print(f"round {number}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    """Return how many times faster `fast` is: by the medians, and the lowest and highest of the rounds."""
    of_rounds = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    medians = statistics.median(seconds[slow]) / statistics.median(seconds[fast])
    return {"ratio": medians, "lowest": min(of_rounds), "highest": max(of_rounds)}


def table(ratios: Mapping[str, Mapping[str, float]], head: str = "") -> str:
    """Return a Markdown table of results of `ratio`, with the lowest and highest round in brackets."""
    rows = [f"| {name} | {r['ratio']:.2f} [{r['lowest']:.2f}, {r['highest']:.2f}] |" for name, r in ratios.items()]
    return "\n".join([f"| {head} | |", "|---|---|", *rows])
