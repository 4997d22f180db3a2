"""Results of a run: results.json, a Markdown table and plots."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from randfeat.probes.report import style

from . import growth

HEAD = ("case", "side", "processor time", "units/s", "of the limit", "MiB", "ours is times faster")


def write(measured: dict[str, Any], out: Path, plots: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    plots.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    (out / "table.md").write_text("\n".join(table(measured)) + "\n", encoding="utf-8")
    for name, figure in (("benchmarks_ratios", ratios(measured)), ("benchmarks_growth", growth.figure(measured))):
        if figure is not None:
            (plots / f"{name}.png").write_bytes(style.png(figure))


def table(measured: Mapping[str, Any]) -> list[str]:
    """Return the lines of the tables of a run."""
    about = measured["machine"]
    lines = [f"{key}: {value}  " for key, value in about.items()]
    for job in dict.fromkeys(case["job"] for case in measured["cases"]):
        cases = [case for case in measured["cases"] if case["job"] == job]
        best = cases[0]["limits"]
        speeds = [f"{name} product {best[name] / 1e9:,.0f} GFLOP/s" for name in best if name != "copy"]
        lines += ["", f"## {job}", "", ", ".join([*speeds, f"copy {best['copy'] / 1e9:.1f} GB/s"]), ""]
        lines += [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
        for case in cases:
            lines += _rows(case)
    lines += ["", "## Growth", "", *growing] if (growing := growth.table(dict(measured))) else []
    return lines + ["", *(f"- {failure}" for failure in measured["failures"])] * bool(measured["failures"])


def _rows(case: Mapping[str, Any]) -> list[str]:
    facts = "; ".join(f"{name}: {_short(value)}" for name, value in case["facts"].items())
    rows = []
    for number, (name, one) in enumerate(case["variants"].items()):
        middle, share = statistics.median(one["processor"]), one["of the limit"]
        ratio = case["ratios"].get(name)
        cells = [
            (case["case"] + (f" ({facts})" if facts else "")) * (not number),
            name,
            f"{_seconds(middle)} [{_seconds(min(one['processor']))}, {_seconds(max(one['processor']))}]",
            f"{one['units'] / middle:,.3g} {case['unit']}/s",
            "" if share is None else f"{100 * share:.0f} %",
            "" if one["memory"] is None else f"{one['memory']:,.0f}",
            f"**{ratio['ratio']:.2f}** [{ratio['lowest']:.2f}, {ratio['highest']:.2f}]" if ratio else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ratios(measured: Mapping[str, Any]) -> Figure | None:
    """Return a chart of all ratios with the range of their rounds; None where there are none."""
    found = [
        (f"{case['case']} / {peer}", one, case["job"])
        for case in measured["cases"]
        for peer, one in case["ratios"].items()
    ]
    if not found:
        return None
    jobs = list(dict.fromkeys(job for *_, job in found))
    figure = Figure(figsize=(9, 1 + 0.17 * len(found)), layout="constrained")
    panel = style.axes(figure.add_subplot(), "x")
    for place, (_, one, job) in enumerate(found):
        colour = style.COLOURS[jobs.index(job) % len(style.COLOURS)]
        panel.plot([one["lowest"], one["highest"]], [place, place], color=colour, linewidth=1)
        panel.plot(one["ratio"], place, "o", color=colour, markersize=3)
    panel.axvline(1, color=style.SOFT, linewidth=0.8)
    panel.set_yticks(range(len(found)), [style.text(name, 90) for name, *_ in found], fontsize=6)
    panel.set_ylim(len(found), -1)
    panel.set_xscale("log", base=2)
    low, high = (
        math.floor(math.log2(min(one["ratio"] for _, one, _ in found))),
        1 + math.ceil(math.log2(max(one["ratio"] for _, one, _ in found))),
    )
    panel.set_xticks([2.0**power for power in range(low, high)], [f"{2.0**power:g}" for power in range(low, high)])
    panel.set_xlabel("times faster than the peer", fontsize=8)
    return figure
