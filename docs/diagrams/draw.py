"""The diagrams of the documentation, drawn from the code that they explain.

    python docs/diagrams/draw.py            # writes docs/diagrams/*.svg

Attention patterns are recorded from small networks, orders come from `randfeat.models.orders`, and schedules and
guidance from `randfeat.inference.schedules`, so that a diagram cannot say anything else than the code does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from svg import COLOURS, FAINT, INK, QUERY, SEEN, SOFT, TOKEN, Drawing
from torch import Tensor

from randfeat.inference.schedules import Guidance, Schedule, tokens_per_step
from randfeat.models import Generator, create, layers, orders

# what a token sees -----------------------------------------------------------------------------------------------

GRID = (1, 3)  # three tokens are enough to show a pattern


def attention(model: Generator, context: str, stream: str) -> list[Tensor]:
    """Record who attends to whom, bool (inputs, keys): of the first block of each half of the network."""
    seen: list[Tensor] = []

    def record(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
    ) -> Tensor:
        everything = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        pattern = layers.causal_mask(*everything.shape, q.device) if causal and mask is None else mask
        seen.append(everything if pattern is None else pattern.clone())
        return attend(q, k, v, mask, causal, dropout)

    attend, layers.attend = layers.attend, record
    try:
        order = orders.raster(GRID)[None]
        model.hidden(torch.zeros_like(order), None, order, [2], context, stream)  # type: ignore[arg-type]
    finally:
        layers.attend = attend
    return seen[::2]  # blocks of a half are alike, but for the rows of the deepest that are wanted


def small(name: str) -> Generator:
    return create(name, grid=GRID, vocab_size=5, num_classes=2, embed_dim=8, depth=2, num_heads=1).eval()


def randar_inputs(context: str) -> tuple[list[str], list[str]]:
    """Names of RandAR's inputs in a context, and what is read of each: token, query, or nothing."""
    pairs = [name for i in "123" for name in (f"q{i}", f"x{i}")]
    kinds = {"q": "query", "x": "token"}
    if context == "echo":
        return ["c", *pairs, *pairs], [""] * 7 + [kinds[name[0]] for name in pairs]
    if context == "after":
        return ["c", *pairs, "q1", "q2", "q3"], [""] * 7 + ["query"] * 3
    if context == "bare":
        return ["c", "x1", "x2", "x3", "q1", "q2", "q3"], [""] * 4 + ["query"] * 3
    return ["c", *pairs], ["", *(kinds[name[0]] for name in pairs)]


CELL = 17


def matrix(
    drawing: Drawing, x: float, y: float, pattern: Tensor, rows: list[str], columns: list[str], read: list[str]
) -> None:
    """Draw a pattern: a row for each input, dark where it sees the column; coloured names are those that are read."""
    fills = {"token": TOKEN, "query": QUERY, "": "#ffffff"}
    for j, name in enumerate(columns):
        drawing.text(x + (j + 0.5) * CELL, y - 5, name, 10, fill=SOFT)
    for i, name in enumerate(rows):
        drawing.box(x - 25, y + i * CELL + 1, 22, CELL - 2, fills[read[i]], fills[read[i]])
        drawing.text(x - 14, y + (i + 0.72) * CELL, name, 10)
        for j in range(len(columns)):
            drawing.box(x + j * CELL, y + i * CELL, CELL, CELL, SEEN if pattern[i, j] else FAINT)


def legend(drawing: Drawing, y: float, more: str = "") -> None:
    entries = ((SEEN, "seen"), (FAINT, "not seen"), (TOKEN, "read: token stream"), (QUERY, "read: query stream"))
    x = 24.0
    for fill, words in entries:
        drawing.box(x, y - 11, 14, 14, fill, SOFT)
        drawing.text(x + 20, y, words, 11, "start")
        x += 40 + 6.2 * len(words)
    drawing.text(x, y, more, 11, "start", SOFT)


def write_notes(drawing: Drawing, top: int, notes: Sequence[str]) -> None:
    for i, note in enumerate(notes):
        drawing.text(24, top + 20 * i, note, 12, "start", SOFT)


def randar_contexts() -> Drawing:
    drawing = Drawing(790, 660, "What each input of RandAR attends to in the five contexts")
    drawing.text(24, 28, "RandAR: one sequence of class c, instructions q and tokens x", 15, "start", bold=True)
    places = {"causal": (55, 95), "full": (300, 95), "bare": (545, 95), "echo": (55, 305), "after": (400, 305)}
    words = {
        "causal": "causal: as trained",
        "full": "full: the mask left off",
        "bare": "bare: x first, then q apart",
        "echo": "echo: the same once more, read there",
        "after": "after: one more q each, apart",
    }
    model = small("randar")
    for context, (x, y) in places.items():
        names, read = randar_inputs(context)
        (pattern,) = attention(model, context, "query")
        drawing.text(x - 25, y - 26, words[context], 13, "start", bold=True)
        matrix(drawing, x, y, pattern, names, names, read)
    legend(drawing, 565)
    notes = (
        "A row is an input, the columns are what it attends to in one block. Numbers are places in the order.",
        "q1 asks for the position of x1: as trained it has seen the class alone, q3 has seen x1 and x2.",
        "In full every q sees all tokens, the one at its own position too.",
    )
    write_notes(drawing, 592, notes)
    return drawing


def arpg_contexts() -> Drawing:
    drawing = Drawing(790, 510, "What each input of ARPG attends to in the four contexts")
    drawing.text(
        24, 28, "ARPG: a first half of class c and tokens x, a second half of queries q", 15, "start", bold=True
    )
    words = {
        "causal": "causal: as trained",
        "echo": "echo: tokens twice",
        "full": "full: no mask",
        "after": "after: q see all",
    }
    model, x = small("arpg"), 55.0
    for context, title in words.items():
        first, second = attention(model, context, "query")
        tokens = ["x1", "x2", "x3"]
        columns = ["c", *tokens, *(tokens if context == "echo" else [])]
        read = [""] * (len(columns) - 3) + ["token"] * 3
        if context == "after":
            read = [""] * len(columns)
        drawing.text(x - 25, 56, title, 13, "start", bold=True)
        drawing.text(x - 25, 74, "first half", 11, "start", SOFT)
        matrix(drawing, x, 95, first, columns, columns, read)
        top = 95 + 7 * CELL + 65
        drawing.text(x - 25, top - 22, "second half", 11, "start", SOFT)
        kept = columns[: second.shape[1]]
        matrix(drawing, x, top, second, ["q1", "q2", "q3"], kept, ["query"] * 3)
        x += max(len(columns) * CELL + 60, 178)
    legend(drawing, 400)
    notes = (
        "The second half attends to keys and values of the first half's output, never to another query.",
        "As trained, q3 sees the class, x1 and x2; the last token is no key, since nothing comes after it.",
        "after keeps the first half as trained and lets every query see all tokens; full leaves both masks off.",
    )
    write_notes(drawing, 427, notes)
    return drawing


def seen_positions() -> Drawing:
    """Positions whose tokens the query of the seventh place in a random order has seen, in each context."""
    grid, side, place = (4, 4), 30, 6
    drawing = Drawing(680, 250, "What the query of one position has seen of the image, in each context")
    order = orders.make("random", grid, torch.tensor([0]))[0].tolist()
    panels = (
        ("causal", "the 6 tokens before it", order[:place], []),
        ("echo", "all, and the 6 once more", order, order[:place]),
        ("full, after, bare", "all, its own too", order, []),
    )
    drawing.text(24, 28, f"The query of the token that is number {place + 1} in the order", 15, "start", bold=True)
    for number, (title, words, once, twice) in enumerate(panels):
        x0, y0 = 24 + number * 220, 84.0
        drawing.text(x0, 58, title, 13, "start", bold=True)
        drawing.text(x0, 75, words, 11, "start", SOFT)
        for number_in_order, position in enumerate(order):
            x, y = x0 + position % 4 * side, y0 + position // 4 * side
            fill = SEEN if position in twice else "#c5cae9" if position in once else FAINT
            asked = position == order[place]
            drawing.box(x + 1, y + 1, side - 2, side - 2, fill, COLOURS[1] if asked else "#ffffff")
            ink = "#ffffff" if position in twice else COLOURS[1] if asked else INK
            drawing.text(x + side / 2, y + side / 2 + 4, str(number_in_order + 1), 11, fill=ink, bold=asked)
    drawing.text(
        24, 234, "Orange: the position that is asked for. Blue: seen; dark: seen in both readings.", 12, "start", SOFT
    )
    return drawing


# orders ----------------------------------------------------------------------------------------------------------


def order_grids() -> Drawing:
    grid, side, gap = (4, 4), 30, 26
    drawing = Drawing(24 + 5 * (4 * side + gap), 200, "Five orders of a grid of 4 x 4 tokens")
    for number, mode in enumerate(("raster", "reversed", "columns", "hierarchical", "random")):
        x0, y0 = 24 + number * (4 * side + gap), 44.0
        order = orders.make(mode, grid, torch.tensor([0]))[0].tolist()
        drawing.text(x0, 28, mode, 14, "start", bold=True)
        centre = [(x0 + (p % 4 + 0.5) * side, y0 + (p // 4 + 0.5) * side) for p in order]
        for place, position in enumerate(order):
            shade = 245 - round(110 * place / 15)
            x, y = x0 + position % 4 * side, y0 + position // 4 * side
            drawing.box(x, y, side, side, f"rgb({shade - 15},{shade - 5},{min(255, shade + 15)})")
        drawing.line(centre, "#90a4ae", 1, stroke_opacity="0.7")
        for place, (x, y) in enumerate(centre):
            drawing.text(x, y + 4, str(place + 1), 11)
    drawing.text(
        24, 188, "Numbers: when the token at this position is read or drawn. Light first, dark last.", 12, "start", SOFT
    )
    return drawing


# sampling --------------------------------------------------------------------------------------------------------


def axes(drawing: Drawing, x: float, y: float, w: float, h: float, right: str, up: str, ends: tuple[str, str]) -> None:
    drawing.line([(x, y), (x, y + h), (x + w, y + h)], INK, 1)
    drawing.text(x + w / 2, y + h + 34, right, 12, fill=SOFT)
    drawing.text(x, y - 10, up, 12, "start", SOFT)
    drawing.text(x, y + h + 17, "0", 11, fill=SOFT)
    drawing.text(x + w, y + h + 17, ends[0], 11, fill=SOFT)
    drawing.text(x - 6, y + 5, ends[1], 11, "end", SOFT)


def schedules() -> Drawing:
    count, steps = 64, 16
    drawing = Drawing(640, 340, "How many tokens are decoded after each step, for each schedule")
    drawing.text(24, 28, f"Schedules: {count} tokens in {steps} steps", 15, "start", bold=True)
    x, y, w, h = 60.0, 64.0, 360.0, 220.0
    axes(drawing, x, y, w, h, "network calls", "tokens decoded", (str(steps), str(count)))
    for i, schedule in enumerate(get_args(Schedule)):
        sizes = tokens_per_step(schedule, count, steps)
        points, done = [(x, y + h)], 0
        for step, size in enumerate(sizes[:steps], 1):
            done += size
            points.append((x + w * step / steps, y + h * (1 - done / count)))
        dashes = {"stroke_dasharray": "5 4"} if schedule == "cosine-arpg" else {}  # which nearly hides cosine-randar
        drawing.line(points, COLOURS[i], 2, **dashes)
        drawing.line([(445, 82 + 44 * i - 5), (465, 82 + 44 * i - 5)], COLOURS[i], 3, **dashes)
        drawing.text(472, 82 + 44 * i, schedule, 12, "start", bold=True)
        last = f"{sizes[0]} first, {sizes[-1]} last" if len(sizes) == steps else f"1 in each of {len(sizes)} calls"
        drawing.text(472, 98 + 44 * i, last, 11, "start", SOFT)
    return drawing


def guidance() -> Drawing:
    drawing = Drawing(760, 330, "What guidance does to logits, and its scale over the share decoded")
    drawing.text(24, 28, "Guidance: away from what needs no class", 15, "start", bold=True)
    x0, y0 = 60.0, 250.0
    unconditional, conditional, guided = (x0 + 20, y0 - 20), (x0 + 100, y0 - 70), (x0 + 220, y0 - 145)
    drawing.arrow(*unconditional, *guided)
    for (x, y), colour, words in (
        (unconditional, COLOURS[4], "no class: scale 0"),
        (conditional, COLOURS[0], "class given: scale 1, off"),
        (guided, COLOURS[1], "scale 2.5"),
    ):
        drawing.parts.append(f"<circle cx='{x:g}' cy='{y:g}' r='6' fill='{colour}'/>")
        drawing.text(x + 12, y + 14, words, 12, "start")
    drawing.text(24, 300, "logits = without + scale × (with − without)", 12, "start", SOFT)
    x, y, w, h, top = 410.0, 64.0, 200.0, 190.0, 4.0
    axes(drawing, x, y, w, h, "share of the image decoded", "scale", ("1", "4"))
    curves: tuple[tuple[str, Guidance], ...] = (
        ("constant", Guidance(4.0)),
        ("linear from 1", Guidance(4.0, "linear", start=1.0)),
        ("interval 0.2 to 0.7", Guidance(3.0, interval=(0.2, 0.7))),
    )
    for i, (words, how) in enumerate(curves):
        shares = [n / 100 for n in range(101)]
        points = [(x + w * share, y + h * (1 - how.at(round(share * 100), 1, 100) / top)) for share in shares]
        drawing.line(points, COLOURS[i], 2)
        drawing.text(x + w + 12, 90 + 26 * i, words, 12, "start", COLOURS[i], bold=True)
    return drawing


def refinement() -> Drawing:
    drawing = Drawing(
        760, 250, "One Gibbs refinement sweep: each half of the tokens is drawn anew, given the other half"
    )
    drawing.text(24, 28, "One refinement sweep (sweeps=1)", 15, "start", bold=True)
    grid, side = (4, 4), 28
    half = set(orders.random(grid, torch.tensor([7]))[0, :8].tolist())
    titles = (
        "finished image",
        "half is hidden,",
        "drawn given the rest,",
        "the other half hidden",
        "and drawn as well",
    )
    for number, title in enumerate(titles):
        x0, y0 = 24 + number * 148, 70.0
        drawing.text(x0, 56, title, 11, "start")
        for position in range(16):
            first = position in half
            finished, hidden, drawn = "#c5cae9", "#ffffff", "#ffb74d"
            panels = (finished, hidden, drawn, drawn, drawn) if first else (finished, finished, finished, hidden, drawn)
            fill = panels[number]
            drawing.box(x0 + position % 4 * side, y0 + position // 4 * side, side, side, fill, "#b0bec5")
        if number < 4:
            drawing.arrow(x0 + 4 * side + 6, y0 + 56, x0 + 142, y0 + 56)
    drawing.text(
        24,
        212,
        "Every token is drawn once more with context on all sides: the known half comes first in the order.",
        12,
        "start",
        SOFT,
    )
    drawing.text(
        24,
        232,
        "The split is random, another one in each sweep and for each seed. Raster-order models cannot do it.",
        12,
        "start",
        SOFT,
    )
    return drawing


def overview() -> Drawing:
    drawing = Drawing(860, 230, "From an image to tokens, and what the generator gives: features, samples, likelihoods")
    boxes = (
        ("image", "pixels in [0, 1]"),
        ("tokenizer", "VQ-16, MaskGIT, patches"),
        ("tokens", "h × w indices"),
        ("generator", "RandAR, ARPG, LlamaGen"),
    )
    wide, apart = 144, 172
    for i, (name, words) in enumerate(boxes):
        x = 20 + apart * i
        drawing.box(x, 90, wide, 50, "#e8eaf6", "#9fa8da", 6)
        drawing.text(x + wide / 2, 111, name, 14, bold=True)
        drawing.text(x + wide / 2, 128, words, 10, fill=SOFT)
        if i:
            drawing.arrow(x - apart + wide + 3, 115, x - 3, 115)
    end = 20 + 3 * apart + wide
    products = (
        ("features", "all tokens are read"),
        ("samples, edits", "unknown tokens are drawn"),
        ("likelihoods", "log p of each token"),
    )
    for i, (name, words) in enumerate(products):
        y = 28 + 66 * i
        drawing.arrow(end + 3, 115, end + 27, y + 20)
        drawing.text(end + 34, y + 18, name, 13, "start", bold=True)
        drawing.text(end + 34, y + 34, words, 10, "start", SOFT)
    first, last = 20 + apart + wide / 2, 20 + 3 * apart + wide / 2
    drawing.line([(last, 142), (last, 185), (first, 185), (first, 144)], SOFT, marker_end="url(#head)")
    drawing.text((first + last) / 2, 204, "sampled tokens are decoded to pixels", 11, fill=SOFT)
    return drawing


DIAGRAMS: dict[str, Any] = {
    "overview": overview,
    "contexts_randar": randar_contexts,
    "contexts_arpg": arpg_contexts,
    "contexts": seen_positions,
    "orders": order_grids,
    "schedules": schedules,
    "guidance": guidance,
    "sweep": refinement,
}


def main(folder: Path) -> None:
    for name, draw in DIAGRAMS.items():
        (folder / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
