"""Actions that only read an index: stats, verify and bench."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIANTS = ("flat", "ivf", "codes", "hnsw")

# action -> its help
HELP = {
    "stats": """Describe an index: its type and why it was chosen, how its images were read, and its parts.

examples:
  randfeat index stats photos.index
  randfeat index stats photos.index --format json
""",
    "verify": """Read all files of an index, and check that they are as they were written.

Every file is compared with its SHA-256 in meta.json; ids and paths must be there once. It takes as long as reading the
files does.

examples:
  randfeat index verify photos.index

exit code: 0 if all is well, 1 with a sentence that names the first damaged file.
""",
    "bench": """Measure each type of index on the same rows: build time, memory, recall and queries a second.

The rows are those of INDEX, or --synthetic ones: a mixture of Gaussians of a fixed seed. Some rows are held out as
queries; the true neighbours are found by comparing all. Types: flat, ivf, codes (ivf as it is made where the vectors do
not fit into memory) and hnsw. INDEX is not changed. DIR then holds

  bench.json    all that was measured
  bench.png     recall against queries a second; a ring marks the search parameter that an index chooses by itself

examples:
  randfeat index bench photos.index -o measured
  randfeat index bench --synthetic --rows 1000000 --dim 256 --clusters 4096 -o measured
""",
}


def add_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of one action."""
    if action == "bench":
        _add_bench(parser)
        return
    parser.usage = f"randfeat index {action} INDEX" + (" [--format json]" if action == "stats" else "")
    options.add_index(parser)
    if action == "stats":
        options.add_format(parser)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index bench (INDEX | --synthetic) -o DIR [options]"
    parser.add_argument("index", type=Path, nargs="?", metavar="INDEX", help="directory of an index")
    options.add_out(parser)
    parser.add_argument("--types", nargs="+", choices=VARIANTS, default=VARIANTS, help="types to measure (all)")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="nearest rows to find (10)")
    parser.add_argument("--queries", type=int, default=1000, metavar="Q", help="rows held out as queries (1000)")
    synthetic = parser.add_argument_group("synthetic rows")
    synthetic.add_argument("--synthetic", action="store_true", help="measure on a mixture of Gaussians")
    synthetic.add_argument("--rows", type=int, default=100_000, metavar="N", help="number of rows (100000)")
    synthetic.add_argument("--dim", type=int, default=256, metavar="D", help="numbers in a row (256)")
    synthetic.add_argument("--clusters", type=int, default=1000, metavar="C", help="number of Gaussians (1000)")


# actions -------------------------------------------------------------------------------------------------------------


def stats(args: argparse.Namespace) -> None:
    """Print what an index is."""
    from ...index import Index

    found = Index.open(args.index).stats()
    print(json.dumps(found, indent=2) if args.format == "json" else table(found))


def verify(args: argparse.Namespace) -> None:
    """Check the files of an index."""
    from ...index import Index

    index = Index.open(args.index)
    index.verify()
    print(f"{args.index} is whole: {len(index):,} images")


def bench(args: argparse.Namespace) -> None:
    """Measure types of index, and write numbers and plot."""
    import tempfile

    from ...index import Index, benchmark
    from ...probes.report.style import png
    from ...utils import atomic, checks

    if args.synthetic == (args.index is not None):
        raise ValueError("bench measures on one set of rows: give either INDEX or --synthetic")
    for name in ("k", "queries", "rows", "dim", "clusters"):
        checks.check_whole_number(name, getattr(args, name), 1)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scratch", dir=args.out) as scratch:
        rows = Path(scratch) / "rows.npy"
        if args.synthetic:
            queries = benchmark.synthetic(rows, args.rows, args.dim, args.clusters, args.queries)
            data, metric = f"{args.rows:,} rows of {args.clusters:,} Gaussians", "cosine"
        else:
            index = Index.open(args.index)
            queries = benchmark.held_out(rows, index, args.queries)
            data, metric = str(args.index), index.metric
        records: list[dict[str, Any]] = []
        for record in benchmark.measure(Path(scratch), rows, queries, args.k, metric, args.types):
            records.append(record)
            print(_line(record), flush=True)
    atomic.write_json(args.out / "bench.json", {"data": data, "metric": metric, "kinds": records})
    atomic.write_bytes(args.out / "bench.png", png(_plot(records, data)))
    print(f"look at {args.out / 'bench.png'}; all numbers are in {args.out / 'bench.json'}")


RUN = {"stats": stats, "verify": verify, "bench": bench}


# what they print and draw --------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Return a line for each fact."""
    whitened = f", whitened from {found['whitened']}" if found["whitened"] else ""
    lines = {
        "images": f"{found['rows']:,}",
        "removed": f"{found['removed']:,}, whose room `randfeat index compact` gives back" if found["removed"] else "",
        "skipped": f"{found['skipped']:,} that cannot be read" if found["skipped"] else "",
        "labels": f"{found['labels']:,}" if found["labels"] else "",
        "type": f"{found['index_type']} ({found['reason']})",
        "metric": f"{found['metric']} of {found['dimension']} numbers" + whitened,
        "model": found["model"] or "",
        "spec": found["spec"] or "",
        "on disk": f"{found['bytes'] / 1e6:.1f} MB",
    }
    for number, part in enumerate(found["segments"], 1):
        parameter = "" if part["parameter"] is None else f", {part['parameter']} {part['value']}"
        removed = f", {part['removed']:,} of them removed" if part["removed"] else ""
        lines[f"part {number}"] = f"{part['index_type']}, {part['rows']:,} rows{removed}{parameter}"
    return "\n".join(f"{name:8} {value}" for name, value in lines.items() if value)


def _line(record: dict[str, Any]) -> str:
    """Return the most important numbers of one type."""
    point = next(point for point in record["points"] if point["value"] == record["default"])
    memory = f" with {record['build_memory'] / 1e9:.2f} GB" if record["build_memory"] else ""
    return (
        f"{record['variant']:6} {record['factory']:22} built in {record['build_seconds']:.1f} s{memory}, opened in "
        f"{1e3 * record['open_seconds']:.0f} ms; recall@{record['k']} {point['recall']:.3f} at "
        f"{point['queries_per_second']:,.0f} queries/s, one alone {1e3 * record['one_query_seconds']:.1f} ms"
    )


def _plot(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw recall against queries a second, a line for each variant, a ring at its default search parameter."""
    from matplotlib.figure import Figure

    from ...probes.report.style import COLOURS, axes, legend, titled

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
