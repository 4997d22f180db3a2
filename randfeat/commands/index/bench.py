"""Measures each kind of index on the same rows: how long it takes to build, with how much memory, and how much of the
truth it finds at how many queries a second.

The rows are those of INDEX, or --synthetic ones: a mixture of Gaussians of a fixed seed. Some rows are held out as
queries; the truth is found by comparing all. Kinds: flat, ivf, codes (ivf as it is made where the vectors do not fit
into the memory) and hnsw. INDEX is not changed. DIR then holds

  bench.json    all that was measured
  bench.png     recall against queries a second; a ring is what an index does of its own accord

examples:
  randfeat index bench photos.index -o measured
  randfeat index bench --synthetic --rows 1000000 --dim 256 --clusters 4096 -o measured
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIANTS = ("flat", "ivf", "codes", "hnsw")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index bench (INDEX | --synthetic) -o DIR [options]"
    parser.add_argument("index", type=Path, nargs="?", metavar="INDEX", help="the directory of an index")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--kinds", nargs="+", choices=VARIANTS, default=VARIANTS, help="which to measure (all)")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="nearest rows to find (10)")
    parser.add_argument("--queries", type=int, default=1000, metavar="Q", help="rows to hold out, a tenth at most")
    made = parser.add_argument_group("rows that are made up")
    made.add_argument("--synthetic", action="store_true", help="a mixture of Gaussians")
    made.add_argument("--rows", type=int, default=100_000, metavar="N", help="(100,000)")
    made.add_argument("--dim", type=int, default=256, metavar="D", help="numbers in a row (256)")
    made.add_argument("--clusters", type=int, default=1000, metavar="C", help="Gaussians (1,000)")


def run(args: argparse.Namespace) -> None:
    import tempfile

    from randfeat.index import Index, benchmark
    from randfeat.probes.report.style import png
    from randfeat.utils import atomic

    if args.synthetic == (args.index is not None):
        raise ValueError("say either INDEX or --synthetic")
    for name in ("k", "queries", "rows", "dim", "clusters"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} must be 1 or more, got {getattr(args, name)}")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scratch", dir=args.out) as scratch:
        rows = Path(scratch) / "rows.npy"
        if args.synthetic:
            queries = benchmark.synthetic(rows, args.rows, args.dim, args.clusters, args.queries)
            what, metric = f"{args.rows:,} rows of {args.clusters:,} Gaussians", "cosine"
        else:
            index = Index.open(args.index)
            queries = benchmark.held_out(rows, index, args.queries)
            what, metric = str(args.index), index.metric
        records: list[dict[str, Any]] = []
        for record in benchmark.measure(Path(scratch), rows, queries, args.k, metric, args.kinds):
            records.append(record)
            print(line(record), flush=True)
    atomic.write_json(args.out / "bench.json", {"data": what, "metric": metric, "kinds": records})
    atomic.write_bytes(args.out / "bench.png", png(plot(records, what)))
    print(f"look at {args.out / 'bench.png'}; all numbers are in {args.out / 'bench.json'}")


def line(record: dict[str, Any]) -> str:
    """Return the most important numbers of a kind."""
    point = next(point for point in record["points"] if point["value"] == record["default"])
    memory = f" with {record['build_memory'] / 1e9:.2f} GB" if record["build_memory"] else ""
    return (
        f"{record['variant']:6} {record['factory']:22} built in {record['build_seconds']:.1f} s{memory}, opened in "
        f"{1e3 * record['open_seconds']:.0f} ms; recall@{record['k']} {point['recall']:.3f} at "
        f"{point['queries_per_second']:,.0f} queries/s, one alone {1e3 * record['one_query_seconds']:.1f} ms"
    )


def plot(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Recall against queries a second, a line for each variant, a ring at its default search parameter."""
    from matplotlib.figure import Figure

    from randfeat.probes.report.style import COLOURS, axes, legend, titled

    figure = Figure(figsize=(7, 4.2))
    ax = axes(figure.add_subplot(), "both")
    for record, colour in zip(records, COLOURS, strict=False):
        points = sorted(record["points"], key=lambda point: point["recall"])
        name = f"{record['variant']}: {record['factory']}, built in {record['build_seconds']:.3g} s"
        if record["build_memory"]:
            name += f" with {record['build_memory'] / 1e9:.2g} GB"
        x, y = ([point[name] for point in points] for name in ("recall", "queries_per_second"))
        ax.plot(x, y, "o-", color=colour, ms=3, lw=1.4, label=name)
        default = next(point for point in points if point["value"] == record["default"])
        ax.plot(default["recall"], default["queries_per_second"], "o", color=colour, ms=9, mfc="none", mew=1.6)
    ax.set_yscale("log")
    ax.set_xlabel(f"recall at {records[0]['k']}", fontsize=8)
    ax.set_ylabel("queries a second", fontsize=8)
    titled(ax, title)
    legend(ax, len(records))
    return figure
