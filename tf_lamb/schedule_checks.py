"""Checks of what schedules are made of; each raises one clear line."""

from __future__ import annotations

from typing import Any, Callable

from tf_lamb import check

DECAY_FROM = ("warmup_end", "start")


def check_warmup_polynomial(
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    end_learning_rate: float,
    power: float,
    decay_from: str,
    constant_steps: int = 0,
) -> dict[str, Any]:
    """Checks the arguments of `warmup_polynomial`.

    Returns:
      The arguments, as Python's numbers and strings.

    Raises:
      ValueError: an argument outside its range, `warmup_steps` (with
        `constant_steps`) above `total_steps`, `end_learning_rate` above
        `learning_rate`, or `constant_steps` where the decay runs from step 0.
    """
    checked: dict[str, Any] = dict(
        learning_rate=check.non_negative("learning_rate", learning_rate),
        total_steps=check.count("total_steps", total_steps),
        warmup_steps=check.count("warmup_steps", warmup_steps, minimum=0),
        end_learning_rate=check.non_negative(
            "end_learning_rate", end_learning_rate
        ),
        power=check.positive("power", power),
        decay_from=check.one_of("decay_from", decay_from, DECAY_FROM),
        constant_steps=check.count("constant_steps", constant_steps, minimum=0),
    )
    for name, limit in (
        ("warmup_steps", "total_steps"),
        ("end_learning_rate", "learning_rate"),
    ):
        if checked[name] > checked[limit]:
            raise ValueError(
                f"{name}: expected at most {limit} = {checked[limit]}, got "
                f"{checked[name]}."
            )
    _check_constant(checked)
    return checked


def _check_constant(checked: dict[str, Any]) -> None:
    """Checks that the steps of a constant rate are there."""
    limit = checked["total_steps"] - checked["warmup_steps"]
    reason = " = total_steps - warmup_steps"
    if checked["decay_from"] == "start":
        limit, reason = 0, ", since decay_from='start' decays from step 0"
    if checked["constant_steps"] > limit:
        raise ValueError(
            f"constant_steps: expected at most {limit}{reason}, got "
            f"{checked['constant_steps']}."
        )


def as_list(values: Any) -> list[Any]:
    """A list, tuple or array as a list; empty if it is none of them.

    Args:
      values: anything.
    """
    listed = isinstance(values, (list, tuple)) or hasattr(values, "dtype")
    try:
        return list(values) if listed else []
    except TypeError:  # an array without axes
        return []


def check_phases(phases: Any) -> list[Callable[[Any], Any]]:
    """Schedules, as a list.

    Args:
      phases: functions of the step.

    Raises:
      ValueError: there is none, or one of them is no function.
    """
    checked = as_list(phases)
    if not checked:
        raise check.refuse(
            "phases", phases, "a list of schedules, one at least"
        )
    for i, phase in enumerate(checked):
        if not callable(phase):
            raise check.refuse(f"phases[{i}]", phase, "a schedule")
    return checked
