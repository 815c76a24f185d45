"""Independent jobs, in this process or in several."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from official_models.common.errors import InputError

# What limits the threads of TensorFlow, OpenMP (torch) and OpenBLAS.
THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not on Linux


def results(
    function: Callable,
    jobs: Sequence[tuple],
    workers: int,
    begin: Callable | None = None,
    values: tuple = (),
) -> Iterator[tuple[tuple, Any]]:
    """Jobs and what they gave, as they are ready.

    Several workers are new processes, which share the cores; an exception of
    a job cancels those that have not begun and is raised when the others are
    done.

    Args:
        function: Of a module, so that a process finds it.
        jobs: Its arguments, a tuple each.
        workers: Processes; 1: all is done in this one, in order.
        begin: Called once in each process, before its first job.
        values: Arguments of `begin`.

    Raises:
        InputError: A process was ended from outside, as by a kernel that is
            out of memory.
    """
    if workers == 1:
        if begin is not None and jobs:
            begin(*values)
        for job in jobs:
            yield job, function(*job)
        return
    # TensorFlow does not survive a fork.
    executor = concurrent.futures.ProcessPoolExecutor(
        min(workers, max(len(jobs), 1)),
        multiprocessing.get_context("spawn"),
        begin,
        values,
    )
    with executor:
        try:
            with _threads(max(1, cores() // workers)):
                submitted = {executor.submit(function, *j): j for j in jobs}
            for future in concurrent.futures.as_completed(submitted):
                yield submitted[future], future.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {workers} worker processes was ended from outside, "
                "perhaps for want of memory; give the same command again, "
                "with fewer --workers"
            ) from error
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes that start here have so many threads, unless they are given."""
    added = {name: str(count) for name in THREADS if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
