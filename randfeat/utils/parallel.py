"""Jobs in parallel processes, each with its share of the cores.

Networks as small as the demo's gain nothing from a second thread: two processes of one thread each do twice the work.

The pool is the standard library's. joblib's loky starts as fast (4.3 s beside 4.9 s with torch on two cores), but its
workers have no pipe to their parent, so they go on, and leak semaphores, after the parent was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"  # environment variables
Job = Callable[[int], Any]  # takes the screen line of its progress bar; it is pickled


def run_all(jobs: Mapping[str, Job], workers: int | None = None) -> dict[str, Any]:
    """Run jobs in worker processes and return the result of each, by name.

    Ctrl-C, or an exception in one job, ends the others at once and is raised here.
    workers: number of jobs at a time, which share the cores; by default one for each core.
    Raises a RuntimeError where a worker was killed from outside.
    """
    context, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    workers = workers or cores
    if not jobs:
        return {}
    with ProcessPoolExecutor(
        min(workers, len(jobs)), context, _set_up, (context.RLock(), max(1, cores // workers))
    ) as pool:
        try:
            running = {name: pool.submit(job, line) for line, (name, job) in enumerate(jobs.items())}
            for done in as_completed(running.values()):
                done.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()  # they hold nothing that needs an orderly end
            if isinstance(error, BrokenProcessPool):
                reason = "a worker process was killed, perhaps for lack of memory: run the same command again"
                raise RuntimeError(reason) from None
            raise
    return {name: future.result() for name, future in running.items()}


def _set_up(lock: Any, threads: int) -> None:
    """Set up a worker: its number of threads, the lock that all progress bars share, and its end.

    It ignores Ctrl-C, since the parent ends its workers, and ends itself when the parent was killed.
    """
    use_threads(threads)
    tqdm.set_lock(lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def use_threads(count: int) -> None:
    """Set the number of threads of torch and of linear algebra, until the process ends."""
    # for libraries that are loaded later: SciPy brings a linear algebra of its own, which would take all cores
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count)


def end_with_parent() -> None:
    """Make this process, one of multiprocessing's, end at once when its parent ends, even if that is killed.

    The parent is watched by a pipe that only it holds open. Its process id would not do: if the parent was killed
    before the id is read, it is that of process 1, which never ends.
    """
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
