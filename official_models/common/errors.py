"""One way for every script to say that its input is wrong."""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import re
import select
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from absl import app, flags

from official_models.common import interrupts, memory

_NO_SPACE = os.strerror(errno.ENOSPC)


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that names what was given, what was expected and
    what to do, because `run` prints it without a traceback.
    """


def first_line(error: BaseException) -> str:
    """What an exception says, for the middle of a one-line message.

    TensorFlow's errors carry their message beside a text that also names the
    operation; that message is taken, without the node that it may begin with.
    At most 200 characters, without a full stop at the end.
    """
    text = str(getattr(error, "message", "") or error).strip()
    text = re.sub(r"^\{\{function_node .*?\}\} *", "", text)
    line = text.split("\n")[0].rstrip(".")[:200]
    return line or type(error).__name__


def require(package: str, what: str) -> None:
    """Raises `InputError` unless a package can be imported.

    Args:
        package: Its name, for pip too.
        what: Begins the message: what needs it.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{what}: needs {package}, which is not installed: pip install "
            f"{package}"
        )


def refuse(message: str) -> NoReturn:
    """Prints `message` as one line and leaves with status 2.

    For what is found before `run`, in which an `InputError` does that.

    Args:
        message: What was given, what was expected, what to do.
    """
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # absl has printed the help, and ends with 1
        sys.stdout.flush()
        sys.exit(0)
    except (flags.Error, ValueError) as error:  # a number of 5,000 digits
        message = first_line(error)
        refuse(f"{message}. Correct the flag; --help lists them all.")
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present and not _is_in_range(flag.value):
            refuse(
                f"--{name}: expected a finite number that 32 bits hold, got "
                f"{str(flag.value)[:80]}"
            )
    return rest


def _leave_if_unread() -> None:
    """Leaves with status 141 if stdout's reader has gone, as `| head` does.

    It is the status of programs that SIGPIPE ends. A pipe to a process of ours
    may break as well; then stdout can still be written.
    """
    stdout = select.poll()
    stdout.register(sys.stdout, select.POLLOUT)
    if any(event & select.POLLERR for _, event in stdout.poll(0)):
        # Python writes what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _is_in_range(value: object) -> bool:
    """Whether no number is infinite, not a number, or beyond 32 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) < 2**32


def run(
    main: Callable[[list[str]], object],
    commands: Collection[str] = (),
    *,
    takes_rest: bool = False,
) -> None:
    """Runs a script's `main` under absl, and keeps the memory that it frees.

    An `InputError`, a flag that cannot be parsed, an argument that is no flag
    and a full disk end the program with status 2 and one line on stderr, Ctrl-C
    with status 130. Who pipes the output to `head` sees no traceback. Any other
    exception is a defect of the program and keeps its traceback.

    Args:
        main: Called with `[program name]` after the flags are parsed, and the
            command, if the program has some. What it returns becomes the exit
            status (None is 0).
        commands: Words of which the program takes exactly one beside flags.
        takes_rest: Whether `main` is also given what follows a `--`.
    """

    def wrapped(argv: list[str]) -> object:
        try:
            interrupts.raise_again()
            memory.keep_freed_memory()
            if commands and (len(argv) < 2 or argv[1] not in commands):
                raise InputError(
                    f"command: got {argv[1] if len(argv) > 1 else 'none'!r}, "
                    f"expected {' or '.join(commands)}; --help explains it"
                )
            rest = takes_rest and "--" in sys.argv
            if len(argv) > 1 + bool(commands) and not rest:
                raise InputError(
                    f"unexpected argument {argv[-1]!r}: every option is a "
                    "--flag; quote a glob to keep the shell from expanding it"
                )
            status = main(argv)
            sys.stdout.flush()
            return status
        except InputError as error:
            return refuse(str(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)  # as a shell has it of SIGINT
        except Exception as error:  # OSError, or one of TensorFlow's
            if _NO_SPACE not in str(error):
                raise
            said = first_line(error)
            # TensorFlow says why behind the name of its operation and the file.
            if _NO_SPACE not in said:
                said = f"{_NO_SPACE}: {said}"
            return refuse(
                f"{said}; free some space and give the same "
                "command again: what was written before is whole"
            )

    try:
        app.run(wrapped, flags_parser=_parse_flags)
    except BrokenPipeError:
        _leave_if_unread()
        raise
