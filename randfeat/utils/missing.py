"""Paths that are not there: names beside them that are alike, and whether a name may be asked of a hub instead."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

ALIKE = 0.7  # of difflib's ratio, from which on a name is suggested
SUGGESTED = 3


def near(path: str | Path) -> list[str]:
    """Return paths that are there and whose last name, or a folder's name above, is like that of a missing one."""
    path = Path(path)
    if path.parent.is_dir():
        names = os.listdir(path.parent)  # noqa: PTH208  names alone
        alike = {name.lower(): name for name in names if not name.startswith(".")}
        found = difflib.get_close_matches(path.name.lower(), alike, SUGGESTED, ALIKE)
        return [str(path.parent / alike[name]) for name in found]
    above = [Path(folder) / path.name for folder in near(path.parent)]
    return [str(one) for one in above if one.exists()]


def did_you_mean(path: str | Path) -> str:
    """Return ", did you mean A or B?", "" where no name is like that of a missing path."""
    names = near(path)
    return f", did you mean {' or '.join(names)}?" if names else ""


def refuse_local(name: str) -> None:
    """Raise a FileNotFoundError for a name of a hub that is a mistyped path: its folder is here, or one like it is."""
    path, names = Path(name), near(name)
    here = len(path.parts) > 1 and path.parent.is_dir()
    if not here and not names:
        return
    why = f"the folder {path.parent} is" if here else f"{names[0]} is"
    what = f"did you mean {' or '.join(names)}?" if names else "check the name"
    raise FileNotFoundError(f"there is no {name} here, and since {why} here, the hub is not asked: {what}")
