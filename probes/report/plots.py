"""Charts of scores: each function returns a matplotlib figure, which `style.png` turns into the bytes of a file.

Scores lie in 0..1 and are drawn in percent. Figures are made without pyplot, which would keep them and need a display.
Names are drawn as plain text, never as mathematics; long ones take two lines, and are cut in the middle if that is not
enough.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from ..stats import Difference, Interval
from .style import BAD, COLOURS, GOOD, INK, LONGEST, SOFT, axes, colours, legend, lines, some, text, titled

_WRITTEN_CLASSES = 20  # up to so many classes, cells of a confusion matrix have numbers and classes names
_SHOWN_CLASSES = 40  # bars
_SHOWN_CANDIDATES = 30
_LINE, _KEY, _CLASS = 44, 40, 32  # characters of a line of a row's name, of a legend, and of the name of a class
_SETTING = re.compile(r"(?P<rest>.*?) ?(?P<name>\w+)=(?P<value>-?\d+(\.\d+)?(e[-+]?\d+)?)")


def curves(
    rows: Mapping[str, Mapping[str, Interval]], xlabel: str = "layer", ylabel: str = "held-out accuracy, %"
) -> Figure:
    """Draw a line with a band, the interval, for each name; the inner keys are the positions along x, in order.

    A line skips positions for which it has no interval.
    """
    some(rows, "lines")
    places = list(dict.fromkeys(place for line in rows.values() for place in line))
    across = max(3.2, min(7.5, 0.45 * len(places) + 1.6)) + _legend_width(rows)
    figure = Figure(figsize=(across, 3.4), layout="constrained")
    ax = axes(figure.subplots(), grid="y")
    for (name, line), colour in zip(rows.items(), colours(len(rows)), strict=True):
        x = [places.index(place) for place in line]
        value, low, high = _percent(line.values())
        ax.plot(x, value, "o-", color=colour, ms=3.5, lw=1.6, label=lines(name, _KEY))
        ax.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    ax.set_xticks(range(len(places)), [text(place) for place in places], rotation=0 if len(places) <= 16 else 90)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    legend(ax, len(rows))
    return figure


def heat_maps(
    maps: Mapping[str, Mapping[str, Mapping[str, float]]], label: str = "held-out accuracy, %", columns: int = 3
) -> Figure:
    """Draw a map of scores by row and column for each title, all in one colour scale; the highest score is framed.

    A cell without a score, or with NaN, stays empty.
    """
    some(maps, "maps")
    grids = {title: _grid(rows) for title, rows in maps.items()}
    scores = 100 * np.concatenate([grid.ravel() for _, _, grid in grids.values()])
    if not np.isfinite(scores).any():
        raise ValueError("maps hold no score, expected one or more; score some feature specs first.")
    lowest, highest = np.nanmin(scores), np.nanmax(scores)
    across = min(columns, len(maps))
    down = -(-len(maps) // across)
    tallest = max(len(rows) for rows, _, _ in grids.values())
    widest = max(len(names) for _, names, _ in grids.values())
    name = max(len(row) for rows, _, _ in grids.values() for row in rows)
    size = across * (0.46 * widest + 0.07 * min(name, LONGEST) + 0.4) + 1.0, down * (0.32 * tallest + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(down, across, squeeze=False)
    for ax in places.flat[len(maps) :]:
        ax.axis("off")
    for ax, (title, (rows, names, grid)) in zip(places.flat, grids.items(), strict=False):
        shown = 100 * grid
        image = ax.imshow(shown, vmin=lowest, vmax=highest, cmap="viridis", aspect="auto")
        ax.set_facecolor("#eef0f4")
        titled(ax, title)
        ax.set_xticks(range(len(names)), [text(column) for column in names], fontsize=8)
        ax.set_yticks(range(len(rows)), [text(row) for row in rows], fontsize=8)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for (r, c), score in np.ndenumerate(shown):
            if np.isfinite(score):
                dark = score < (lowest + highest) / 2
                best = score == highest
                style = dict(fontsize=7, color="w" if dark else INK, weight="bold" if best else "normal")
                ax.text(c, r, f"{score:.1f}", ha="center", va="center", **style)
                if best:
                    ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fill=False, ec=BAD, lw=2, clip_on=False))
    figure.colorbar(image, ax=places, shrink=0.8, label=label, pad=0.01)
    return figure


def confusion(truth: NDArray, predicted: NDArray, title: str = "", classes: Sequence[str] | None = None) -> Figure:
    """Draw the confusion matrix: true classes (rows) by predicted classes (columns), in percent of the row.

    truth, predicted: labels (n,); classes: their names, in the order of the sorted labels of either.
    """
    labels, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    names = [str(label) for label in labels] if classes is None else list(classes)
    if len(names) != len(labels):
        raise ValueError(f"{len(names)} classes for {len(labels)} labels: give one name for each label that occurs.")
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, (codes[: len(truth)], codes[len(truth) :]), 1)
    total = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    written = len(labels) <= _WRITTEN_CLASSES
    side = 0.9 + (0.36 * len(labels) if written else 4.5)
    turn = 0 if max(map(len, names)) <= 3 else 90
    label = 0.068 * min(_CLASS, max(map(len, names))) if written else 0.0
    figure = Figure(figsize=(side + label, side + (label if turn else 0)), layout="constrained")
    ax = figure.subplots()
    # the root of the share makes rare confusions visible beside the diagonal
    ax.imshow(np.sqrt(shares), vmin=0, vmax=10, cmap="Blues", interpolation="nearest")
    if written:
        ax.set_xticks(range(len(names)), [text(name, _CLASS) for name in names], rotation=turn, fontsize=8)
        ax.set_yticks(range(len(names)), [text(name, _CLASS) for name in names], fontsize=8)
        for (r, c), share in np.ndenumerate(shares):
            if share:
                colour = "w" if share > 45 else INK
                ax.text(c, r, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    ax.tick_params(length=0)
    ax.set(xlabel="predicted", ylabel="true class")
    titled(ax, title)
    return figure


def class_bars(per_class: Mapping[str, Mapping[str, float]], label: str = "correct, %") -> Figure:
    """Draw scores of each class as bars, the class with the worst mean over names first.

    Of many classes only the worst and the best are drawn. per_class: for each name the score by class; a missing class
    or NaN has no bar.
    """
    some(per_class, "per_class")
    classes = list(dict.fromkeys(c for scores in per_class.values() for c in scores))
    grid = np.array([[scores.get(c, np.nan) for c in classes] for scores in per_class.values()])
    classes = [c for c, there in zip(classes, np.isfinite(grid).any(axis=0), strict=True) if there]
    grid = 100 * grid[:, np.isfinite(grid).any(axis=0)]
    order = np.argsort(np.nanmean(grid, axis=0), kind="stable")
    half = _SHOWN_CLASSES // 2
    left_out = len(order) - 2 * half
    if left_out > 0:
        order = np.concatenate([order[:half], order[-half:]])
    names = [text(classes[i], _CLASS) for i in order]
    turn = 0 if max(map(len, names), default=0) * len(names) <= 60 else 90
    across = min(11.0, 1.6 + max(3.0, 0.24 * len(order) * len(grid) ** 0.5))
    across += _legend_width(per_class) if len(grid) > 1 else 0
    down = 2.7 + (0.068 * max(map(len, names), default=0) if turn else 0.3)
    figure = Figure(figsize=(across, down), layout="constrained")
    ax = axes(figure.subplots(), grid="y")
    width = 0.8 / len(grid)
    for i, (name, colour) in enumerate(zip(per_class, colours(len(grid)), strict=True)):
        place = np.arange(len(order)) + (i - (len(grid) - 1) / 2) * width
        ax.bar(place, grid[i, order], width, color=colour, label=lines(name, _KEY))
    ax.set_xticks(range(len(order)), names, rotation=turn, fontsize=8)
    ax.set(ylabel=label, ylim=(0, 104), xlim=(-0.6, len(order) - 0.4))
    if left_out > 0:
        ax.axvline(half - 0.5, color=SOFT, lw=0.8, ls=":")
        ax.set_xlabel(f"the {half} worst and the {half} best classes; {left_out:,} between them are not shown")
    if len(grid) > 1:
        legend(ax, len(grid))
    return figure


def intervals(panels: Mapping[str, Mapping[str, Interval]], soft: Collection[str] = ()) -> Figure:
    """Draw values with their intervals: a panel for each title, a line for each name, in the order given.

    soft: names that are drawn in grey, such as those of baselines.
    """
    some(panels, "panels")
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    colour_of = {name: SOFT if name in soft else COLOURS[0] for name in names}
    written = [lines(name, _LINE) for name in names]
    size = 0.07 * _longest(written) + 3.2 * len(panels), _pitch(written, 0.28) * len(names) + 0.9
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, rows) in zip(places, panels.items(), strict=True):
        axes(ax, grid="x")
        value, low, high = _percent(rows.values())
        _whiskers(ax, [names.index(name) for name in rows], value, low, high, [colour_of[name] for name in rows])
        titled(ax, title)
        ax.set_yticks(range(len(names)), written, fontsize=8)
        ax.set_ylim(len(names) - 0.5, -0.7)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("%, with 95 % interval", fontsize=8)
    return figure


def differences(rows: Mapping[str, Difference], holds: Mapping[str, bool]) -> Figure:
    """Draw paired differences with their intervals, a line for each name; those that hold are in full colour."""
    some(rows, "differences")
    written = [lines(name, LONGEST) for name in rows]
    size = 0.07 * _longest(written) + 3.8, _pitch(written, 0.34) * len(rows) + 0.9
    figure = Figure(figsize=size, layout="constrained")
    ax = axes(figure.subplots(), grid="x")
    value, low, high = _percent(rows.values())
    ax.axvline(0, color=INK, lw=1)
    full = [holds[name] for name in rows]
    shades = [(GOOD if v > 0 else BAD) if held else SOFT for v, held in zip(value, full, strict=True)]
    _whiskers(ax, range(len(rows)), value, low, high, shades, "+.1f", full)
    ax.set_yticks(range(len(rows)), written, fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("difference in percentage points, with 95 % interval; full: holds after Holm", fontsize=8)
    return figure


def search(scores: Mapping[str, float], chosen: str, label: str = "held-out accuracy, %") -> Figure:
    """Draw held-out scores of the candidates of a search, with the chosen one marked.

    Candidates whose names end with a number, as in "linear standard C=0.1", are drawn as lines over it; others are
    ranked, the best first. The common beginning of all names, up to a "/", is the title.
    """
    some(scores, "scores")
    parts = zip(*(name.split("/")[:-1] for name in scores), strict=False)
    shared = "".join(f"{column[0]}/" for column in takewhile(lambda column: len(set(column)) == 1, parts))
    cut = {name.removeprefix(shared): 100 * score for name, score in scores.items()}
    picked = chosen.removeprefix(shared)
    found = [_SETTING.fullmatch(name) for name in cut]
    settings = {match["name"] for match in found if match}
    by_setting: dict[str, dict[float, float]] = {}
    for match, score in zip(found, cut.values(), strict=True):
        if match:
            by_setting.setdefault(match["rest"], {})[float(match["value"])] = score
    few = len(by_setting) <= len(COLOURS) and max(map(len, by_setting.values()), default=0) > 2
    if len(settings) == 1 and all(found) and few:
        figure = _search_lines(by_setting, settings.pop(), _SETTING.fullmatch(picked), len(scores), label)
    else:
        figure = _search_ranks(cut, picked, label)
    titled(figure.axes[0], shared.rstrip("/"))
    return figure


def _search_lines(
    rows: Mapping[str, Mapping[float, float]], setting: str, chosen: re.Match[str] | None, count: int, label: str
) -> Figure:
    names = {name: name.rstrip("/ ") or f"{setting} fixed in advance" for name in rows}
    figure = Figure(figsize=(4.0 + _legend_width(names.values()), 3.2), layout="constrained")
    ax = axes(figure.subplots(), grid="y")
    for (name, line), colour in zip(rows.items(), colours(len(rows)), strict=True):
        places = sorted(line)
        heights = [line[place] for place in places]
        ax.plot(places, heights, "o-", color=colour, ms=4, lw=1.4, label=lines(names[name], _KEY))
        if chosen and chosen["rest"] == name and float(chosen["value"]) in line:
            at = float(chosen["value"])
            ax.plot(at, line[at], "o", ms=11, mfc="none", mec=INK, mew=1.4)
    places = sorted({place for line in rows.values() for place in line})
    if min(places) > 0 and max(places) > 9 * min(places):
        ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([f"{place:g}" for place in places])
    ax.set(xlabel=f"{setting} ({count:,} candidates; ring: chosen)", ylabel=label)
    legend(ax, len(rows))
    return figure


def _search_ranks(scores: Mapping[str, float], chosen: str, label: str) -> Figure:
    ranked = sorted(scores, key=lambda name: -scores[name])
    shown = ranked[:_SHOWN_CANDIDATES]
    written = [lines(name, 84) for name in shown]
    size = 0.066 * _longest(written) + 3.4, _pitch(written, 0.19) * len(shown) + 0.9
    figure = Figure(figsize=size, layout="constrained")
    ax = axes(figure.subplots(), grid="x")
    for place, name in enumerate(shown):
        ax.plot(scores[name], place, "o", ms=5, color=GOOD if name == chosen else COLOURS[0])
    ax.set_yticks(range(len(shown)), written, fontsize=7.5)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    best = f"the best {len(shown)} of {len(scores):,}" if len(shown) < len(scores) else f"{len(shown)}"
    ax.set_xlabel(f"{label} ({best} candidates; green: chosen)", fontsize=8)
    return figure


def _longest(written: Sequence[str]) -> int:
    """Return the characters of the longest line of names."""
    return max(len(line) for name in written for line in name.split("\n"))


def _pitch(written: Sequence[str], single: float) -> float:
    """Return the inches from one row to the next. single: where names have one line each."""
    return max(single, 0.15 * max(1 + name.count("\n") for name in written) + 0.06)


def _legend_width(names: Iterable[str]) -> float:
    """Return the inches that a legend of these names takes beside the axes."""
    return 0.6 + 0.064 * min(_KEY, max(map(len, names)))


def _whiskers(
    ax: Axes,
    places: Iterable[int],
    value: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    shades: Sequence[str],
    form: str = ".1f",
    full: Sequence[bool] | None = None,
) -> None:
    """Draw horizontal intervals with their values above. full: whether the dot of each is filled; all are if None."""
    for i, place in enumerate(places):
        ax.plot([low[i], high[i]], [place, place], color=shades[i], lw=2, solid_capstyle="round")
        ax.plot(value[i], place, "o", color=shades[i], ms=5, mfc=shades[i] if full is None or full[i] else "w")
        words: dict[str, Any] = dict(textcoords="offset points", ha="center", fontsize=6.5, color=INK)
        ax.annotate(f"{value[i]:{form}}", (value[i], place), (0, 4), **words)


def _grid(rows: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[str], NDArray[np.float64]]:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    values = [[row.get(column, np.nan) for column in columns] for row in rows.values()]
    return list(rows), columns, np.array(values, dtype=np.float64).reshape(len(rows), len(columns))


def _percent(found: Iterable[Interval]) -> NDArray[np.float64]:
    """Return values, lows and highs in percent, (3, n)."""
    return 100 * np.array([[i.value, i.low, i.high] for i in found]).reshape(-1, 3).T
