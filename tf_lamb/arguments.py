"""The arguments of LAMB and LARS, and the check of each, for every front end.

One table for each optimizer: {argument: its check}. A check takes the
argument's name and what was given, returns it as the optimizer keeps it, or
raises ValueError in one line. The constants of the rules are in
`hyperparameters.py`; the arguments of Keras' own optimizer are in the tables
too. Not in them are the learning rate and the weight decay, because each Keras
has schedules of its own (`check.number_or_function`), and the lists of regexes
(`exclusion.py`).
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping, Sequence

from tf_lamb import check, exclusion, hyperparameters

Check = Callable[[str, Any], Any]

_LARGEST_INT32 = 2**31 - 1  # JAX counts steps in int32


def _optional(of: Check) -> Check:
    """A check that leaves None as it is."""
    return lambda name, value: None if value is None else of(name, value)


def _one_of(choices: Sequence[str | None]) -> Check:
    return functools.partial(check.one_of, choices=choices)


def _accumulation_steps(name: str, value: Any) -> int | None:
    """None and 1 are no accumulation."""
    if value is None:
        return None
    try:
        steps = check.count(name, value, maximum=_LARGEST_INT32)
    except ValueError:
        raise check.refuse(
            name, value, "a whole number >= 2, or None for no accumulation"
        ) from None
    return None if steps == 1 else steps


_KERAS: dict[str, Check] = {
    "name": _optional(check.text),
    "clipnorm": _optional(check.positive),
    "clipvalue": _optional(check.positive),
    "global_clipnorm": _optional(check.positive),
    "use_ema": check.flag,
    "ema_momentum": check.share,
    "ema_overwrite_frequency": _optional(
        functools.partial(check.count, maximum=_LARGEST_INT32)
    ),
    "loss_scale_factor": _optional(check.positive),
    "gradient_accumulation_steps": _accumulation_steps,
    "decay": _optional(check.non_negative),  # tfa's; Keras 3 has none
}
_OURS: dict[str, Check] = {
    "skip_nonfinite": check.flag,
    "moment_dtype": _one_of(hyperparameters.MOMENT_DTYPES),
    "jit_compile": check.flag,
    "use_locking": check.flag,  # of `v1.py`
    "unmatched": _one_of(exclusion.UNMATCHED),
}
# By the type of their constants: of LAMB, and of LARS.
CHECKS: Mapping[type, Mapping[str, Check]] = {
    hyper: {**_KERAS, **_OURS, **checks}
    for hyper, checks in hyperparameters.CHECKS.items()
}


def check_all(checks: Mapping[str, Check], **values: Any) -> dict[str, Any]:
    """Arguments as they are kept, in the order given.

    Args:
      checks: one of the tables.
      **values: arguments; those that are not in the table stay as they are.

    Raises:
      ValueError: an argument is not what the table expects.
    """
    return {
        name: checks[name](name, value) if name in checks else value
        for name, value in values.items()
    }


def renamed(old: str, new: str) -> str:
    """What the FutureWarning says of an argument's old name, one of tfa's.

    Args:
      old: what was given.
      new: what to write instead.
    """
    return f"{old} is an old name, which tf-lamb 0.4.0 removes; write {new}."


def check_new_rate(value: Any, old: Any, schedule: type) -> Any:
    """A learning rate that replaces another one.

    Args:
      value: a number, a tensor (in a compiled function too), a schedule or a
        function of no arguments.
      old: what holds the present rate: a variable, a schedule or a function.
      schedule: class of the schedules of this Keras.

    Returns:
      `value`, numbers as floats.

    Raises:
      ValueError: it is none of these.
      TypeError: the present rate is a function, which no number can replace.
    """
    if not check.is_unknown(value):
        value = check.number_or_function("learning_rate", value, schedule)
    function = callable(old) and not isinstance(old, schedule)
    if function and not callable(value):
        raise TypeError(
            "learning_rate: this optimizer's rate is a function, which a "
            f"number cannot replace, got {check.shown(value)}; let the "
            "function read a variable, and set that."
        )
    return value


# Attributes that would change nothing, and what does.
_NOT_SET = {
    "exclude_from_weight_decay": "give it to the constructor, or call the "
    "method exclude_from_weight_decay(var_names=[...]) before build",
    "exclude_from_layer_adaptation": "give it to the constructor",
    "lr": "set learning_rate",  # where Keras does not take it itself
}


def check_attribute(optimizer: type, name: str, value: Any) -> None:
    """Checks that a name that is set means something.

    Args:
      optimizer: class of the optimizer.
      name: that is set.
      value: that it is set to.

    Raises:
      AttributeError: it would change nothing.
    """
    todo = _NOT_SET.get(name)
    if todo and not (name == "lr" and hasattr(optimizer, name)):
        raise AttributeError(
            f"{name}: it cannot be set, got {check.shown(value)}; {todo}."
        )


def equal(value: Any, other: Any) -> bool:
    """Whether two values are equal; arrays are to nothing else."""
    try:
        return bool(value == other)
    except (TypeError, ValueError):
        return False


def not_adapted(
    form: str, no_decay: exclusion.Patterns, no_adapt: exclusion.Patterns
) -> exclusion.Patterns:
    """`exclude_from_layer_adaptation`, as a form of LAMB takes it.

    Raises:
      ValueError: all are to be adapted, but not in this form.
    """
    undecayed = hyperparameters.LAMB_FORMS[form].undecayed
    if no_adapt is None:
        return () if undecayed == "adapted" else None
    if undecayed == "not_adapted" and no_decay and not no_adapt:
        raise ValueError(
            "exclude_from_layer_adaptation: expected None, since "
            f"form={form!r} adapts no variable of exclude_from_weight_decay, "
            f"got {no_adapt!r}; form='nvlamb' adapts all."
        )
    return no_adapt


def check_limits(clip_by_unit: float | None, limits: dict[str, Any]) -> None:
    """Checks that no other limit acts on a variable by itself.

    Raises:
      ValueError: one does.
    """
    for name in ("clipnorm", "clipvalue"):
        if clip_by_unit is not None and limits.get(name) is not None:
            raise ValueError(
                f"clip_by_unit: expected None beside {name}, got "
                f"{check.shown(clip_by_unit)}; leave one of them out, or "
                "write global_clipnorm, which it goes with."
            )
