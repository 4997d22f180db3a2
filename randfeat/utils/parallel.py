"""Jobs side by side, each in a process and on cores of its own.

Networks as small as the demo's gain nothing from a second thread: two processes of one thread each do twice the work.
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

Job = Callable[[int], Any]  # called with the screen line of its progress bar; functools.partial of a module's function


def run_all(jobs: Mapping[str, Job], workers: int | None = None) -> dict[str, Any]:
    """Return the result of each job, by name. Ctrl-C, or an exception in one, ends the others at once and is raised
    here.

    workers: how many run at a time and share the cores; if nobody says, one for each core.
    A worker that was killed from outside is a RuntimeError.
    """
    context, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    workers = workers or cores
    if not jobs:
        return {}
    with ProcessPoolExecutor(
        min(workers, len(jobs)), context, set_up, (context.RLock(), max(1, cores // workers))
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


def set_up(lock: Any, threads: int) -> None:
    """In each worker: its share of the cores, a lock that all bars share, and no life of its own: Ctrl-C is left to the
    parent, which ends its workers, and a worker whose parent was killed ends itself."""
    use_threads(threads)
    tqdm.set_lock(lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def use_threads(count: int) -> None:
    """For torch and for the linear algebra below NumPy, until the process ends."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count)


def end_with_parent() -> None:
    """From now on this process, one of multiprocessing's, ends at once when its parent is gone, however it went, and
    wherever it was.

    The parent is known by a pipe that only it holds open: to ask for its number is to ask too late, if it was killed
    before that, and the number is then that of a process that never ends.
    """
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
