"""Jobs in one process and in several."""

import os

import pytest

from official_models.common import processes
from tests.official_models.scripts import refusal

BEGUN = []


def begin(value):
    BEGUN[:] = [value]


def job(x):
    """Its argument, what the process began with, and where it ran."""
    if x == -9:
        os.kill(os.getpid(), 9)
    if x < 0:
        raise ValueError(f"x = {x}")
    return x, BEGUN[0], os.getpid(), os.environ.get("OMP_NUM_THREADS")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "cores", lambda: 6)
    jobs = [(i,) for i in range(5)]
    found = dict(processes.results(job, jobs, workers, begin, ("v",)))
    assert sorted(found) == jobs
    for (i,), (x, value, process, threads) in found.items():
        assert (x, value) == (i, "v")
        assert (process == os.getpid()) == (workers == 1)
        assert threads == (None if workers == 1 else "3")
    assert "OMP_NUM_THREADS" not in os.environ
    assert not list(processes.results(job, [], workers, begin, ("v",)))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_a_job_is_raised(workers):
    with pytest.raises(ValueError, match="x = -1"):
        list(processes.results(job, [(-1,)], workers, begin, (0,)))


def test_a_process_that_was_killed_is_one_line():
    jobs = [(i,) for i in (0, -9, 1, 2)]
    refusal(
        lambda: list(processes.results(job, jobs, 2, begin, (0,))),
        "one of 2 worker processes was ended from outside",
        "fewer --workers",
    )


def test_cores_where_no_affinity_is_known(monkeypatch):
    assert processes.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    assert processes.cores() == os.cpu_count()
