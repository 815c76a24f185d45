"""Checks of hyperparameters; each raises one clear line.

A number may be Python's, NumPy's, or a scalar array, tensor or variable of any
framework, whose value is read once. A boolean is not a number, nor a number a
boolean; text is neither.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
from decimal import Decimal
from types import NoneType
from typing import Any, Callable, Sequence, TypeVar

T = TypeVar("T")

# What float32 holds: a larger number would be infinite, a smaller one 0.
LARGEST = (2 - 2.0**-23) * 2.0**127
SMALLEST = 2.0**-126
_LARGEST_COUNT = 2**63 - 1  # an int64
# What `float` raises, of tensors without a value too.
_NO_VALUE = (ArithmeticError, TypeError, ValueError, RuntimeError)


def shown(value: Any) -> str:
    """`value` as a message shows it: one line, of 80 characters at most.

    Args:
      value: anything.
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a whole number of 10,000 digits has no `repr`
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def refuse(name: str, value: Any, expected: str) -> ValueError:
    """The error that says what was expected of an argument.

    Args:
      name: of the argument.
      value: what was given.
      expected: what an accepted value is.
    """
    return ValueError(f"{name}: expected {expected}, got {shown(value)}.")


def _is_scalar_of(value: Any, dtypes: str) -> bool:
    """Whether it is an array, tensor or variable without axes, by its dtype."""
    try:
        return (
            bool(re.search(dtypes, str(value.dtype))) and len(value.shape) == 0
        )
    except (AttributeError, TypeError, ValueError):
        return False


def _as_float(value: Any) -> float | None:
    """The number that `value` is, or None."""
    number = isinstance(value, (numbers.Real, Decimal)) and not isinstance(
        value, bool
    )
    if not (number or _is_scalar_of(value, "float|int")):
        return None
    try:
        return float(value)
    except _NO_VALUE:
        return None


def is_unknown(value: Any) -> bool:
    """Whether it is a scalar tensor that has no value yet (in a graph).

    Args:
      value: anything.
    """
    if not _is_scalar_of(value, "float|int"):
        return False
    try:
        float(value)
    except _NO_VALUE:
        return True
    return False


def _as_int(value: Any) -> int | None:
    """The whole number that `value` is, or None."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    number = _as_float(value)
    if number is None or not number.is_integer():  # nor is infinity
        return None
    return int(number)


def _number(
    name: str, value: Any, expected: str, holds: Callable[[float], bool]
) -> float:
    number = _as_float(value)
    if number is None or not (abs(number) <= LARGEST and holds(number)):
        raise refuse(name, value, expected)
    return number


def non_negative(name: str, value: Any) -> float:
    """`value` as a float >= 0.

    Args:
      name: of the argument, for the message.
      value: a number that float32 can hold, at most 3.4e38.

    Raises:
      ValueError: it is no such number, or is below 0.
    """
    return _number(name, value, "a number >= 0", lambda x: x >= 0)


def positive(name: str, value: Any) -> float:
    """`value` as a float > 0.

    Args:
      name: of the argument, for the message.
      value: a number that float32 can hold, from 1.2e-38 to 3.4e38.

    Raises:
      ValueError: it is no such number, or is 0 or below.
    """
    expected = "a number > 0"
    number = _number(name, value, expected, lambda x: x > 0)
    if number < SMALLEST:
        raise refuse(name, value, f"{expected} that float32 can hold")
    return number


def positive_or_none(name: str, value: Any) -> float | None:
    """`value` as a float > 0; None as None.

    Args:
      name: of the argument, for the message.
      value: a number that float32 can hold, from 1.2e-38 to 3.4e38, or None.

    Raises:
      ValueError: it is neither.
    """
    return None if value is None else positive(name, value)


def decay_rate(name: str, value: Any) -> float:
    """`value` as a float in [0, 1).

    Args:
      name: of the argument, for the message.
      value: a number.

    Raises:
      ValueError: it is not a number in [0, 1).
    """
    return _number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)


def share(name: str, value: Any) -> float:
    """`value` as a float in [0, 1].

    Args:
      name: of the argument, for the message.
      value: a number.

    Raises:
      ValueError: it is not a number in [0, 1].
    """
    return _number(name, value, "a number in [0, 1]", lambda x: 0 <= x <= 1)


def count(
    name: str, value: Any, minimum: int = 1, maximum: int = _LARGEST_COUNT
) -> int:
    """`value` as a whole number from `minimum` to `maximum`.

    Args:
      name: of the argument, for the message.
      value: a number, `3.0` too.
      minimum: the smallest that is accepted.
      maximum: the largest that is accepted.

    Raises:
      ValueError: it is not a whole number, or is out of that range.
    """
    expected = f"a whole number >= {minimum}"
    whole = _as_int(value)
    if whole is None or whole < minimum:
        raise refuse(name, value, expected)
    if whole > maximum:
        raise refuse(name, value, f"{expected} and <= {maximum}")
    return whole


def flag(name: str, value: Any) -> bool:
    """`value` as a bool.

    Args:
      name: of the argument, for the message.
      value: True or False, NumPy's too, or a tensor of it.

    Raises:
      ValueError: it is anything else, 0, 1 and "False" among them.
    """
    try:
        if isinstance(value, bool) or _is_scalar_of(value, r"bool\b|bool_"):
            return bool(value)
    except _NO_VALUE:
        pass
    raise refuse(name, value, "True or False")


def text(name: str, value: Any) -> str:
    """`value`, if it is a string.

    Args:
      name: of the argument, for the message.
      value: the argument.

    Raises:
      ValueError: it is none.
    """
    if not isinstance(value, str):
        raise refuse(name, value, "a string")
    return str(value)


def one_of(name: str, value: Any, choices: Sequence[T]) -> T:
    """That one of `choices` which `value` is.

    Args:
      name: of the argument, for the message.
      value: the argument.
      choices: the accepted values: strings, or None.

    Raises:
      ValueError: it is not among them.
    """
    if value is None or isinstance(value, str):  # an array has no truth
        for choice in choices:
            if choice == value:
                return choice
    names = ", ".join(repr(choice) for choice in choices)
    raise refuse(name, value, f"one of {names}")


def bounds(name: str, value: Any) -> tuple[float, float] | None:
    """`value` as a pair `0 <= lower <= upper`; None as None.

    Args:
      name: of the argument, for the message.
      value: a list, tuple or array of two numbers, or None; the upper one may
        be infinite.

    Raises:
      ValueError: it is neither None nor such a pair.
    """
    if value is None:
        return None
    lower, upper = _pair(value)
    if not 0 <= lower <= upper or LARGEST < lower:
        raise refuse(
            name,
            value,
            "a pair (lower, upper) with 0 <= lower <= upper, or None",
        )
    return lower, upper if upper <= LARGEST else math.inf


def _pair(value: Any) -> tuple[float, float]:
    """Two numbers; NaN where there are none."""
    nothing = math.nan, math.nan
    if not (isinstance(value, (list, tuple)) or hasattr(value, "dtype")):
        return nothing
    try:
        lower, upper = map(_as_float, value)
    except _NO_VALUE:
        return nothing
    return nothing if lower is None or upper is None else (lower, upper)


def number_or_function(name: str, value: Any, schedule: type = NoneType) -> Any:
    """`value` as a float >= 0, a schedule, or a function.

    Args:
      name: of the argument, for the message.
      value: a number; a `schedule`; a function of no arguments.
      schedule: class of the schedules that the optimizer takes, if any.

    Raises:
      ValueError: it is none of them.
    """
    if value is not None and isinstance(value, schedule):
        return value
    expected = "a number >= 0"
    if schedule is not NoneType:
        expected += ", a LearningRateSchedule of this Keras"
    expected += " or a function of no arguments"
    if not callable(value):
        return _number(name, value, expected, lambda x: x >= 0)
    if isinstance(value, type) or not _takes_no_arguments(value):
        raise refuse(name, value, expected)
    return value


def _takes_no_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # one of C, whose arguments are not known
        return True
    return True


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
