"""What the command lines of the diagnostics share: kinds of flags, lines."""

from __future__ import annotations

import argparse
import math
from typing import Any

__all__ = ["count", "facts", "positive", "show", "whole"]


def count(text: str) -> int:
    """A flag's text as a whole number >= 1.

    Args:
      text: of the command line.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected a whole number >= 1, got {text!r}"
        )
    return int(text)


def whole(text: str) -> int:
    """A flag's text as a whole number >= 0.

    Args:
      text: of the command line.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"expected a whole number >= 0, got {text!r}"
        )
    return int(text)


def positive(text: str) -> float:
    """A flag's text as a finite number > 0.

    Args:
      text: of the command line.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text!r}")
    return value


def facts(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that decide what is measured.

    Args:
      arguments: of a command.
    """
    left_out = "function", "output_dir"
    return {k: v for k, v in vars(arguments).items() if k not in left_out}


def show(line: str) -> None:
    """Prints a line at once.

    Args:
      line: its text.
    """
    print(line, flush=True)
