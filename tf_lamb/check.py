"""Checks of hyperparameters; each raises one clear line."""

from __future__ import annotations

import math
from typing import Any, Callable, Sequence, TypeVar

T = TypeVar("T")


def _number(
    name: str, value: Any, expected: str, holds: Callable[[float], bool]
) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"{name}: expected {expected}, got {value!r}."
            ) from None
    if not (math.isfinite(value) and holds(value)):
        raise ValueError(f"{name}: expected {expected}, got {value!r}.")
    return float(value)


def non_negative(name: str, value: Any) -> float:
    """`value` as a float >= 0.

    Args:
      name: of the argument, for the message.
      value: a number.

    Raises:
      ValueError: it is not a finite number, or is below 0.
    """
    return _number(name, value, "a number >= 0", lambda x: x >= 0)


def positive(name: str, value: Any) -> float:
    """`value` as a float > 0.

    Args:
      name: of the argument, for the message.
      value: a number.

    Raises:
      ValueError: it is not a finite number, or is 0 or below.
    """
    return _number(name, value, "a number > 0", lambda x: x > 0)


def decay_rate(name: str, value: Any) -> float:
    """`value` as a float in [0, 1).

    Args:
      name: of the argument, for the message.
      value: a number.

    Raises:
      ValueError: it is not a number in [0, 1).
    """
    return _number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)


def count(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as a whole number >= `minimum`.

    Args:
      name: of the argument, for the message.
      value: a number.
      minimum: the smallest that is accepted.

    Raises:
      ValueError: it is not a whole number, or is below `minimum`.
    """
    number = _number(
        name,
        value,
        f"a whole number >= {minimum}",
        lambda x: x == int(x) and x >= minimum,
    )
    return int(number)


def one_of(name: str, value: T, choices: Sequence[T]) -> T:
    """`value`, if it is among `choices`.

    Args:
      name: of the argument, for the message.
      value: the argument.
      choices: the accepted values.

    Raises:
      ValueError: it is not among them.
    """
    if value not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {names}, got {value!r}.")
    return value


def bounds(name: str, value: Any) -> tuple[float, float] | None:
    """`value` as a pair `0 <= lower <= upper`; None as None.

    Args:
      name: of the argument, for the message.
      value: two numbers, or None.

    Raises:
      ValueError: it is neither None nor such a pair.
    """
    if value is None:
        return None
    try:
        lower, upper = (float(x) for x in value)
    except (TypeError, ValueError):
        lower, upper = math.nan, math.nan
    if not 0 <= lower <= upper:
        raise ValueError(
            f"{name}: expected a pair (lower, upper) with "
            f"0 <= lower <= upper, or None, got {value!r}."
        )
    return lower, upper


def floating_variables(
    owner: str, paths: Sequence[str], dtypes: Sequence[str]
) -> None:
    """Checks that variables can be trained.

    Args:
      owner: name of the optimizer, for the message.
      paths: of the variables.
      dtypes: their dtypes' names.

    Raises:
      ValueError: a dtype is that of whole, complex or other numbers.
    """
    for path, dtype in zip(paths, dtypes):
        if dtype.startswith(("bool", "complex", "int", "q", "string", "uint")):
            raise ValueError(
                f"{owner}: variable {path!r} is {dtype}; expected a floating "
                "dtype; make it with trainable=False, or leave it out of the "
                "variables."
            )
