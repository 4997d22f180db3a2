"""Jobs in processes of their own end together, and say why."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from randfeat.utils.parallel import run_all


def answer(value, line):
    return value, line


def fail(line):
    raise ValueError("this job cannot be done")


def wait(line):
    time.sleep(60)


def killed(line):
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_by_name():
    assert run_all({"a": partial(answer, 1), "b": partial(answer, 2)}) == {"a": (1, 0), "b": (2, 1)}
    assert run_all({}) == {}


def test_a_failing_job_ends_the_others_at_once():
    began = time.perf_counter()
    with pytest.raises(ValueError, match="cannot be done"):
        run_all({"bad": fail, "long": wait})
    assert time.perf_counter() - began < 40


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(RuntimeError, match=r"a worker process was killed.*run the same command again"):
        run_all({"bad": killed, "good": partial(answer, 1)})
