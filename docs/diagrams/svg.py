"""A drawing of boxes, lines and words, as SVG."""

from __future__ import annotations

from collections.abc import Iterable

INK, SOFT, FAINT, SEEN, TOKEN, QUERY = "#263238", "#78909c", "#eceff1", "#5c6bc0", "#fff3c4", "#d9f0e3"
FONT = "font-family='Roboto, Helvetica, Arial, sans-serif'"
COLOURS = ("#3f51b5", "#e65100", "#2e7d32", "#ad1457", "#546e7a", "#00838f")


class Drawing:
    """An SVG of a given size, on a white card that is readable in light and dark pages."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, fill: str, line: str = "#ffffff", radius: float = 2) -> None:
        self.parts.append(
            f"<rect x='{x:g}' y='{y:g}' width='{w:g}' height='{h:g}' rx='{radius:g}' fill='{fill}' stroke='{line}'/>"
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        anchor: str = "middle",
        fill: str = INK,
        bold: bool = False,
    ) -> None:
        weight = " font-weight='600'" if bold else ""
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        style = f"font-size='{size:g}' text-anchor='{anchor}' fill='{fill}'{weight}"
        self.parts.append(f"<text x='{x:g}' y='{y:g}' {style}>{escaped}</text>")

    def line(self, points: Iterable[tuple[float, float]], colour: str = SOFT, width: float = 1.5, **more: str) -> None:
        joined = " ".join(f"{x:g},{y:g}" for x, y in points)
        extra = "".join(f" {name.replace('_', '-')}='{value}'" for name, value in more.items())
        self.parts.append(
            f"<polyline points='{joined}' fill='none' stroke='{colour}' stroke-width='{width:g}'{extra}/>"
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str = SOFT) -> None:
        self.line([(x1, y1), (x2, y2)], colour, marker_end="url(#head)")

    def svg(self) -> str:
        head = (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.width:g} {self.height:g}' "
            f"width='{self.width:g}' height='{self.height:g}' role='img' {FONT}>"
        )
        marker = (
            "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' "
            "orient='auto'>"
            f"<path d='M0,0 L8,4 L0,8 z' fill='{SOFT}'/></marker></defs>"
        )
        card = f"<rect width='{self.width:g}' height='{self.height:g}' rx='8' fill='#ffffff'/>"
        return "\n".join((head, f"<title>{self.title}</title>", marker, card, *self.parts, "</svg>")) + "\n"
