"""Says what an index is: its kind and why it is that, how its images were read, and the parts that it is made of.

examples:
  randfeat index stats photos.index
  randfeat index stats photos.index --format json
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index stats INDEX [--format json]"
    options.add_index(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of what is printed (table)")


def run(args: argparse.Namespace) -> None:
    from randfeat.index import Index

    found = Index.open(args.index).stats()
    print(json.dumps(found, indent=2) if args.format == "json" else table(found))


def table(found: dict[str, Any]) -> str:
    """Return a line for each thing."""
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
