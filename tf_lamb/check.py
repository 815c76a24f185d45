"""Checks of hyperparameters: one clear line for each that makes no sense."""

import math
from typing import Optional, Sequence, Tuple


def _number(name: str, value, expected: str, holds) -> float:
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


def non_negative(name: str, value) -> float:
    """`value` as a float >= 0, or ValueError."""
    return _number(name, value, "a number >= 0", lambda x: x >= 0)


def positive(name: str, value) -> float:
    """`value` as a float > 0, or ValueError."""
    return _number(name, value, "a number > 0", lambda x: x > 0)


def decay_rate(name: str, value) -> float:
    """`value` as a float in [0, 1), or ValueError."""
    return _number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)


def count(name: str, value, minimum: int = 1) -> int:
    """`value` as a whole number >= `minimum`, or ValueError."""
    number = _number(
        name,
        value,
        f"a whole number >= {minimum}",
        lambda x: x == int(x) and x >= minimum,
    )
    return int(number)


def one_of(name: str, value, choices: Sequence):
    """`value` if it is among `choices`, or ValueError."""
    if value not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {names}, got {value!r}.")
    return value


def bounds(name: str, value) -> Optional[Tuple[float, float]]:
    """`value` as a pair `0 <= lower <= upper`, None as None, or ValueError."""
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
