"""Freed memory that the process keeps, each case in a process of its own."""

import json
import os
import platform
import subprocess
import sys

import pytest

# The page faults of writing 10 blocks of 64 MiB, one after the other is freed,
# in the first thread and in another one.
PROGRAM = """
import concurrent.futures, json, resource, sys
import numpy as np
from official_models.common import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**24, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

told = memory.keep_freed_memory() if sys.argv[1] == "keep" else None
with concurrent.futures.ThreadPoolExecutor(1) as threads:
    found = {"main": faults(), "thread": threads.submit(faults).result()}
print(json.dumps({"told": told, **found}))
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)


def _run(word, **variables):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, word],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(ended.stdout)


def test_blocks_of_one_size_are_not_asked_for_anew():
    kept, given_back = _run("keep"), _run("as it comes")
    assert kept["told"]
    for thread in ("main", "thread"):
        assert kept[thread] < given_back[thread] / 4, (kept, given_back)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_MAX_", "65536"),
        ("MALLOC_ARENA_MAX", "4"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000"),
    ],
)
def test_what_the_environment_says_stays(name, value):
    assert _run("keep", **{name: value})["told"] is False


def test_other_tunables_do_not_count():
    assert _run("keep", GLIBC_TUNABLES="glibc.malloc.hugetlb=1")["told"]
