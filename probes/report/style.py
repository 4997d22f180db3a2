"""Style of charts: colours, axes, legends, and names as plain text."""

import io
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, SOFT, LINE = "#1c2330", "#5b6678", "#dfe4ec"
GOOD, BAD = "#17703a", "#a33a1f"
COLOURS = ("#2b6cb0", "#d9730d", "#17703a", "#a33a1f", "#6b46c1", "#7d8f00", "#0e7c86", "#b83280", "#4a5568")
LONGEST = 60  # characters of a line of a name
DPI = 144


def png(figure: Figure) -> bytes:
    """Return the bytes of a PNG file, cropped to the drawing."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # letters that the font lacks, as in names of classes, are drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element for a page of light and dark: its ink takes the page's colour of text, and soft
    parts and lines take the page's `--soft` and `--line`.

    Draw it in `ink()`, so that all of its text is of that ink.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for colour, own in ((INK, "currentColor"), (SOFT, "var(--soft)"), (LINE, "var(--line)")):
        drawn = drawn.replace(colour, own)
    return drawn


def ink() -> AbstractContextManager[None]:
    """Return a context in which text is drawn in the ink of this module, where nothing says otherwise."""
    return matplotlib.rc_context(
        {"text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "svg.hashsalt": "randfeat"}
    )


def colours(count: int) -> list[str]:
    """Return `count` colours, which repeat after len(COLOURS)."""
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def axes(ax: Axes, grid: str) -> Axes:
    """Return `ax` with grid lines along "x" or "y", and without the frame."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(SOFT)
    ax.tick_params(colors=INK, labelsize=8)
    ax.grid(axis=grid, color=LINE, lw=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    return ax


def titled(ax: Axes, title: str) -> None:
    """Set a title at the left."""
    ax.set_title("\n".join(text(line) for line in title.split("\n")), fontsize=9, loc="left", color=INK)


def legend(ax: Axes, lines: int) -> None:
    """Draw the legend of so many lines beside the axes, where it hides nothing."""
    ax.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02), ncols=1 + lines // 16)


def text(name: str, longest: int = LONGEST) -> str:
    """Return a name, cut if it is long, that matplotlib draws as plain text and does not hide in a legend."""
    plain = " ".join(name.split())
    if len(plain) > longest:
        plain = f"{plain[: longest * 2 // 3].rstrip()}…{plain[-(longest // 3) :].lstrip()}"
    return (f" {plain}" if plain.startswith("_") else plain).replace("$", r"\$")


def lines(name: str, longest: int = LONGEST) -> str:
    """Return a name on one line, or if it is longer than `longest` on two: broken at a space or after a "/", and cut
    only where two lines are too short for it.
    """
    plain = " ".join(name.split())
    if len(plain) <= longest:
        return text(plain, longest)
    room = range(max(1, len(plain) - longest), longest + 1)  # breaks after which nothing is cut
    for ends in (" ", "/"):
        if breaks := [n for n in room or range(longest // 2, longest + 1) if plain[n - 1] == ends or plain[n] == ends]:
            first = breaks[-1] + (ends == "/" and plain[breaks[-1] - 1] != "/")
            break
    else:
        first = longest
    return f"{text(plain[:first].rstrip(), longest)}\n{text(plain[first:].lstrip(), longest)}"


def some(given: Mapping, what: str) -> None:
    """Raise a ValueError if there is nothing to draw."""
    if not given:
        raise ValueError(f"{what} are empty, expected one or more to draw.")
