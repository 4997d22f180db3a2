"""Growth of a cost: exponents fitted to times and memory of growing sizes, the size where they bend, and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from randfeat.probes.report import style

from .cases import OURS

BENT = 0.2  # difference of exponents before and after a bend
IMPROVED = 0.5  # share of the squared errors of one line that two lines may leave


class Fit(NamedTuple):
    """Exponents of a cost: overall, before and after the size of its bend (None where there is none)."""

    exponent: float
    before: float
    after: float
    bend: float | None

    def __str__(self) -> str:
        return (
            f"{self.exponent:.2f}"
            if self.bend is None
            else f"{self.before:.2f}, from {self.bend:,.0f} {self.after:.2f}"
        )


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Return the exponent of costs, all above 0, by least squares of logarithms.

    There is a bend where two lines that meet at a size leave less than half of one line's error and their exponents
    differ by 0.2 or more; it needs 5 sizes.
    """
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(costs, float))

    def line(knots: list[float]) -> tuple[np.ndarray, float]:
        design = np.stack([np.ones_like(x), x, *(np.maximum(x - knot, 0) for knot in knots)], 1)
        solved = np.linalg.lstsq(design, y, rcond=None)[0]
        return solved, float(((design @ solved - y) ** 2).sum())

    straight, error = line([])
    slope = float(straight[1])
    bends = [(line([knot]), knot) for knot in x[2:-2]] if len(x) >= 5 else []
    if bends:
        (bent, left), knot = min(bends, key=lambda one: one[0][1])
        before, after = float(bent[1]), float(bent[1] + bent[2])
        if abs(after - before) >= BENT and left < IMPROVED * error:
            return Fit(slope, before, after, math.exp(knot))
    return Fit(slope, slope, slope, None)


def extrapolated(found: Fit, size: float, cost: float, at: float) -> float:
    """Return the cost at another size, given the largest that was measured and the exponent there."""
    return cost * (at / size) ** found.after


def series(measured: dict[str, Any]) -> dict[str, list[tuple[dict[str, Any], float, float | None]]]:
    """Return the axis, processor seconds and MiB of the cases of each series, by size."""
    found: dict[str, list[tuple[dict[str, Any], float, float | None]]] = {}
    for case in measured["cases"]:
        if case["axis"]:
            one = case["variants"][OURS]
            row = case["axis"], statistics.median(one["processor"]), one["memory"]
            found.setdefault(case["axis"]["series"], []).append(row)
    return {name: sorted(rows, key=lambda row: row[0]["value"]) for name, rows in found.items()}


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of exponents; none without series."""
    lines = ["| cost | sizes | exponent of time | of memory | at ImageNet's size |", "|---|---|---|---|---|"]
    for name, rows in series(measured).items():
        sizes, times = [row[0]["value"] for row in rows], [row[1] for row in rows]
        memory = [row[2] for row in rows if row[2] and row[2] > 1]
        of_time, unit, at = fit(sizes, times), rows[0][0]["unit"], rows[0][0]["at"]
        of_memory = str(fit(sizes, memory)) if len(memory) == len(sizes) else ""
        there = f"{at:,.0f} {unit}: {_time(extrapolated(of_time, sizes[-1], times[-1], at))}" if at else ""
        span = f"{sizes[0]:,.0f} to {sizes[-1]:,.0f} {unit}"
        lines.append(f"| {name} | {span} | {of_time} | {of_memory} | {there} |")
    return lines if len(lines) > 2 else []


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{1000 * seconds:,.1f} ms"


def figure(measured: dict[str, Any]) -> Figure | None:
    """Return time and memory over size, a panel for each series; None without series."""
    found = series(measured)
    if not found:
        return None
    columns = min(4, len(found))
    drawn = Figure(figsize=(3.4 * columns, 2.9 * math.ceil(len(found) / columns)), layout="constrained")
    for number, (name, rows) in enumerate(found.items(), 1):
        panel = style.axes(drawn.add_subplot(math.ceil(len(found) / columns), columns, number), "both")
        _panel(panel, name, rows)
    return drawn


def _panel(panel: Axes, name: str, rows: list[tuple[dict[str, Any], float, float | None]]) -> None:
    sizes, times = [row[0]["value"] for row in rows], [row[1] for row in rows]
    of_time = fit(sizes, times)
    panel.loglog(sizes, times, "o-", color=style.COLOURS[0], label=f"seconds: {of_time}")
    if of_time.bend:
        panel.axvline(of_time.bend, color=style.LINE)
    memory = [(size, row[2]) for size, row in zip(sizes, rows, strict=True) if row[2] and row[2] > 1]
    if len(memory) > 1:
        label = f"MiB: {fit(*zip(*memory, strict=True))}"
        beside = panel.twinx()
        (drawn,) = beside.loglog(*zip(*memory, strict=True), "s--", color=style.COLOURS[1], label=label)
        beside.tick_params(labelsize=7, colors=style.SOFT)
        panel.plot([], [], "s--", color=drawn.get_color(), label=label)
    panel.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(rows[0][0]["unit"], fontsize=8)
    panel.set_title(name, fontsize=8)
    panel.legend(fontsize=7, frameon=False)
