"""Messages where an optimizer gets variables that it was not built with.

An optimizer has state for the variables that were trainable when it was built.
A part of the model that is unfrozen later, or another model, needs a new one.
"""

from __future__ import annotations

from typing import Any, Sequence


def _advice(optimizer: Any) -> str:
    cls = type(optimizer).__name__
    return (
        "Was a layer frozen or unfrozen since, or is this another model? "
        f"Compile with a new optimizer, {cls}.from_config(optimizer."
        "get_config()); it takes over the old one's state by save_own_variables"
        " and load_own_variables"
    )


def unknown(optimizer: Any, path: str, count: int) -> str:
    """The message for a variable that the optimizer does not know.

    Args:
      optimizer: of any Keras.
      path: of the variable.
      count: of the variables that the optimizer was built with.
    """
    return (
        f"{optimizer.name}: variable {path!r} is not one of the {count} that "
        f"the optimizer was built with. {_advice(optimizer)}."
    )


def check_values(optimizer: Any, values: Sequence[Any]) -> None:
    """Checks the values that JAX's stateless step gives for the variables.

    They are values without names. What tells those of another model: their
    number, their shapes, and in `fit`, which empties the variables it trains,
    whether the optimizer's own ones are empty and trainable.

    Args:
      optimizer: of Keras 3, built.
      values: arrays, one for each variable that it was built with.

    Raises:
      ValueError: they are not those of its variables.
    """
    variables = optimizer._trainable_variables
    start = f"{optimizer.name}: the optimizer was built with "
    if len(values) != len(variables):
        raise ValueError(
            f"{start}{len(variables)} trainable variables, got {len(values)}; "
            f"on JAX it has to be all of them. {_advice(optimizer)}."
        )
    in_fit = optimizer._iterations._value is None
    for variable, value in zip(variables, values):
        shape = tuple(variable.shape)
        if shape != tuple(value.shape):
            raise ValueError(
                f"{start}{variable.path!r} of shape {shape}, got a variable of "
                f"shape {tuple(value.shape)}. {_advice(optimizer)}."
            )
        if in_fit and (variable._value is not None or not variable.trainable):
            raise ValueError(
                f"{start}{variable.path!r}, which this fit does not train. "
                f"{_advice(optimizer)}."
            )
