"""Time of a training: told after its first steps, and again after the first validation where that was far off."""

from __future__ import annotations

import time
from collections.abc import Callable

from randfeat.pretrain.config import OptimConfig
from randfeat.utils import progress
from randfeat.utils.estimates import SHORT, Estimate, duration, speed

LONG = 1800.0  # seconds; of a training that takes more it is told what would make it cheaper
FAR_OFF = 1.25  # a time is told again where the first validation changes it by this factor


class TrainingTime:
    """Clock of a training's steps and validations."""

    def __init__(
        self,
        config: OptimConfig,
        validation: float | None,
        cheaper: Callable[[], str] = str,
        done: int = 0,
        tell: Callable[[str], None] = progress.tell,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """validation: what one costs by its operations, in steps; None where no image is held out. cheaper: returns
        what would make a long training cheaper, "" for nothing. done: steps of an earlier run.
        """
        self.config, self.validation, self.cheaper, self.tell, self.clock = config, validation, cheaper, tell, clock
        self.estimate = Estimate(config.steps, self._words, tell, done, clock)
        self.step = done
        self.validated: float | None = None  # seconds of the first validation
        self._ended: float | None = None  # the step before, where it is validated

    def on_step(self, step: int) -> None:
        """Take note of a step that is finished, and tell the time of the others where it is known by now."""
        self.step = step
        if self._ended is not None and self.validated is None:
            usual = self.estimate.seconds / max(1, self.estimate.units)
            self.validated = max(0.0, self.clock() - self._ended - usual)
            self._tell_again()
        self._ended = None
        self.estimate.update()
        if self.validation is not None and self._is_validated(step):
            self.estimate.pause()
            self._ended = self.clock()

    def _is_validated(self, step: int) -> bool:
        return step % self.config.eval_every == 0 or step == self.config.steps

    @property
    def _validations(self) -> int:
        """Validations that are left."""
        if self.validation is None:
            return 0
        return sum(self._is_validated(step) for step in range(self.step + 1, self.config.steps + 1))

    def _seconds(self, pace: float, guessed: bool = False) -> float:
        """Return the seconds that are left. guessed: by the validations' operations."""
        measured = self.validated is not None and not guessed
        each = self.validated if measured else (self.validation or 0.0) * pace
        assert each is not None
        return pace * (self.config.steps - self.step) + each * self._validations

    def _words(self, pace: float, left: int) -> str:
        seconds, number = self._seconds(pace), self._validations
        with_them = f", {number:,} validation{'s' * (number > 1)} included" if number else ""
        early = "; less if the held-out loss stops falling" if self.config.patience and number else ""
        said = f"about {duration(seconds)} for the other {left:,} steps, {speed(pace, 'step')}{with_them}{early}"
        advice = self.cheaper() if seconds >= LONG else ""
        return f"{said}; {advice}" if advice else said

    def _tell_again(self) -> None:
        """Correct what was told where the first validation took far longer, or less long, than its operations say."""
        pace = self.estimate.pace
        if not self.estimate.told or pace is None:
            return
        left, now, before = self.config.steps - self.step, self._seconds(pace), self._seconds(pace, guessed=True)
        if max(now, before) >= SHORT and not before / FAR_OFF <= now <= before * FAR_OFF:
            took = duration(self.validated or 0.0)
            self.tell(f"about {duration(now)} for the other {left:,} steps by now: a validation takes {took}")
