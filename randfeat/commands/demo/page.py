"""Page of a demo: report.json, and report.html with every picture in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from randfeat.probes import Interval
from randfeat.utils import atomic


def write(out: Path, template: str, record: Mapping[str, Any], overview: bytes, shown: Mapping[str, Any]) -> Path:
    """Write report.json, overview.png and report.html, and return the path of the page.

    record: the content of report.json. overview: a PNG. shown: what the template shows.
    """
    atomic.write_bytes(out / "report.json", (json.dumps(plain(record), indent=1, allow_nan=False) + "\n").encode())
    atomic.write_bytes(out / "overview.png", overview)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["interval"] = show_interval
    page = environment.get_template(template).render(shown)
    atomic.write_bytes(out / "report.html", page.encode())
    return out / "report.html"


def plain(value: Any) -> Any:
    """Return nested dictionaries with every interval as {"value", "low", "high", "n"}."""
    if isinstance(value, Interval):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    return value


def show_interval(interval: Interval, scale: float = 100.0) -> str:
    return f"{scale * interval.value:.1f} [{scale * interval.low:.1f}, {scale * interval.high:.1f}]"


def png_uri(content: bytes) -> Markup:
    return data_uri(content, "png")


def data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")  # nosec B704 # base64 and a word of ours
