"""Ctrl-C while a script is still importing: the process ends, and says nothing.

Python turns SIGINT into a KeyboardInterrupt wherever it is, so that one in the
first seconds, between imports, would end in a traceback of theirs.
"""

from __future__ import annotations

import signal
import sys

_PYTHONS = signal.default_int_handler


def end_at_once() -> None:
    """Lets SIGINT end the process, if Python is importing a script for `-m`.

    The packages of scripts call it as they are imported. Of a library's user,
    whose program is another one, nothing changes; nor where SIGINT is ignored,
    as in a shell's background.
    """
    # Until Python has found the module of `-m`, this is no path.
    is_script = sys.argv[:1] == ["-m"]
    if is_script and signal.getsignal(signal.SIGINT) is _PYTHONS:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Gives SIGINT back to Python, after `end_at_once`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, _PYTHONS)
