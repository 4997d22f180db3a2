"""Jobs in processes of their own end together, and say why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

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


def leave_number_and_wait(folder, line):
    (folder / str(os.getpid())).touch()
    wait(line)


def is_running(process):
    """Return whether a process is alive, and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for processes")
def test_a_killed_parent_leaves_no_worker(tmp_path):
    code = f"""if __name__ == "__main__":
    import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
    from functools import partial; from pathlib import Path
    from test_utils_parallel import leave_number_and_wait, run_all
    job = partial(leave_number_and_wait, Path({str(tmp_path)!r}))
    run_all({{"a": job, "b": job}}, 2)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)])
    until = time.monotonic() + 60
    while len(workers := [path.name for path in tmp_path.glob("[0-9]*")]) < 2:
        assert time.monotonic() < until
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(map(is_running, workers)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_threads_are_those_of_libraries_that_are_loaded_later_too():
    code = (
        "from randfeat.utils.parallel import use_threads; use_threads(1); import scipy.linalg, threadpoolctl;"
        "print({one['num_threads'] for one in threadpoolctl.threadpool_info()})"
    )
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=free, check=True)
    assert found.stdout.strip() == "{1}"
