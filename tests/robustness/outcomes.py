"""What comes of a damaged input."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

LONGEST_MESSAGE = 700
SECONDS = 20
# In the order in which a table shows them.
NAMES = ("refused", "accepted", "silent", "fault", "hang")


class Silent(Exception):
    """What was taken is not what a whole input would give."""


class _Hang(BaseException):
    pass


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one input.

    Attributes:
        name: of `NAMES`. "accepted": the damage does not show, or left a value
            that may be meant; "silent": the reader's check says that it must
            have shown.
        detail: the message, or the end of the traceback.
    """

    name: str
    detail: str = ""


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(signum, frame):
        raise _Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def of(call: Callable[[], Any], refusals: tuple[type, ...]) -> Outcome:
    """The outcome of a call that reads a damaged input, and checks the result.

    Args:
        call: raises `Silent` where its result cannot be right.
        refusals: exceptions that refuse an input, in one line.
    """
    try:
        with _time_limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except refusals as error:
        message = str(error)
        if "\n" in message or not message or len(message) > LONGEST_MESSAGE:
            return Outcome("fault", f"no line: {message[:200]!r}")
        return Outcome("refused", message)
    except Silent as error:
        return Outcome("silent", str(error))
    except _Hang:
        return Outcome("hang", f"over {SECONDS} s")
    except Exception:
        return Outcome("fault", traceback.format_exc()[-1500:])
    return Outcome("accepted")


def shown(values: dict[str, Any], good: dict[str, Any]) -> str:
    """The arguments that differ from good ones, in a line."""
    changed = {n: v for n, v in values.items() if v is not good[n]}
    return ", ".join(f"{n}={str(v)[:60]!r}" for n, v in changed.items())
