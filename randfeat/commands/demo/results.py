"""Results of a run of the demo: numbers, pictures and seconds, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass
class Results:
    """Results of a run. numbers: the content of report.json. pictures: as arrays. seconds: by stage."""

    stages: ClassVar[int]
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, number: int, what: str) -> Iterator[None]:
        """Print the title of a stage, and record how long the block takes."""
        print(f"[{number}/{self.stages}] {what}", flush=True)
        began = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - began, 1)
