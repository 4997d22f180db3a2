"""Modules of the reading study, which lies outside of the package."""

from __future__ import annotations

import importlib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def part(name):
    """Return a module of the study by its name."""
    return importlib.import_module(f"studies.reading.{name}")
