"""Settings of a run, kept beside what it made: another run goes on with it only if they are the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

LONGEST = 100  # characters of a value in a message


def difference(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> str | None:
    """Return the first setting that differs, as `name value, not value`; None if all are the same.

    Nested settings have dotted names. free: those that may differ, with all that is below them.
    """
    was, wanted = _flat(before), _flat(now)
    for name in dict.fromkeys([*wanted, *was]):
        is_free = any(name == other or name.startswith(f"{other}.") for other in free)
        if not is_free and was.get(name) != wanted.get(name):
            return f"{name} {_short(was.get(name))}, not {_short(wanted.get(name))}"
    return None


def refuse_other(
    directory: Path, before: Mapping[str, Any], now: Mapping[str, Any], what: str, free: Collection[str] = ()
) -> None:
    """A ValueError that names the setting that differs, if one does, from those with which `directory` was filled with
    `what`.
    """
    if other := difference(before, now, free):
        raise ValueError(
            f"{directory} holds {what} with {other}: choose another directory (--out), or the same settings"
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
