"""Memory that a training step frees stays with the process, for the next step.

A step allocates the same large blocks as the one before. glibc, as it comes,
gives a large block back to the kernel when it is freed, so that every step
asks for its memory anew, and the kernel clears each page of it.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of mallopt(3), from glibc's malloc.h, and the values they get: no
# block of its own mapping, nothing given back from the end of the heap, and one
# heap for all threads, because those of threads shrink whatever is set.
_PARAMETERS = {
    "mmap_max": (-4, 0),
    "trim_threshold": (-1, -1),
    "arena_max": (-8, 1),
}


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, for this process.

    The process then takes as much memory as it needed at its peak, until it
    ends. Nothing is changed where the environment sets any of this itself, by
    `MALLOC_MMAP_MAX_`, `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`,
    `MALLOC_ARENA_MAX` or the same of `GLIBC_TUNABLES`, or where the C library
    is another one.

    Returns:
        Whether it was told.
    """
    names = (*_PARAMETERS, "mmap_threshold")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(f"glibc.malloc.{name}=" in tunables for name in names) or any(
        os.environ.get(f"MALLOC_{name.upper()}{end}")
        for name in names
        for end in ("", "_")
    ):
        return False
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # such as musl
        return False
    return all([mallopt(*values) for values in _PARAMETERS.values()])
