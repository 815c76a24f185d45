"""Messages where an optimizer gets variables that it was not built with.

An optimizer has state for the variables that were trainable when it was built.
A part of the model that is unfrozen later, or another model, needs a new one.
And where gradients are not those of the variables.
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from tf_lamb import arithmetic, exclusion


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


def of_values(optimizer: Any, values: Sequence[Any]) -> list[Any]:
    """The variables that the values of JAX's stateless step belong to.

    They are values without names: of all variables that the optimizer was built
    with, or, after a part was frozen, of those that are still trainable. What
    tells another model's: their number, their shapes, and in `fit`, which
    empties the variables it trains, whether these are empty and trainable.

    Args:
      optimizer: of Keras 3, built.
      values: arrays.

    Returns:
      A variable for each value, in the order of the optimizer's.

    Raises:
      ValueError: the values are not those of its variables.
    """
    all_variables = optimizer._trainable_variables
    variables = list(all_variables)
    if len(values) != len(all_variables):
        variables = [v for v in all_variables if v.trainable]
    start = f"{optimizer.name}: the optimizer was built with "
    advice = _advice(optimizer)
    in_fit = optimizer._iterations._value is None
    if in_fit:
        advice += (
            ". This fit, as any that fails in its first step on JAX, has left "
            "model and optimizer without values: load them from a file, or "
            "make them anew"
        )
    if len(values) != len(variables):
        raise ValueError(
            f"{start}{len(all_variables)} variables, of which {len(variables)} "
            f"are trainable now, got {len(values)}. {advice}."
        )
    for variable, value in zip(variables, values):
        shape = tuple(variable.shape)
        if shape != tuple(value.shape):
            raise ValueError(
                f"{start}{variable.path!r} of shape {shape}, got a variable of "
                f"shape {tuple(value.shape)}. {advice}."
            )
        if in_fit and (variable._value is not None or not variable.trainable):
            raise ValueError(
                f"{start}{variable.path!r}, which this fit does not train. "
                f"{advice}."
            )
    return variables


def with_dense_gradients(
    optimizer: Any, grads: Sequence[Any], variables: Iterable[Any] | None
) -> tuple[list[Any], list[Any] | None]:
    """Gradients as dense arrays, checked, and their variables.

    Not those of frozen variables with a constraint, which Keras would apply.

    Args:
      optimizer: of Keras 3.
      grads: dense or sparse ones, or None.
      variables: one for each of them, with which it is built if it is not;
        None for those that it was built with.

    Raises:
      ValueError: as `check_gradients`. Where `variables` is None, Keras counts.
    """
    executor = optimizer._executor()
    grads = [g if g is None else executor.dense([g])[0] for g in grads]
    known = optimizer._trainable_variables if variables is None else variables
    known = list(known)
    if variables is not None or len(grads) == len(known):
        check_gradients(optimizer, grads, known)
        grads = list(executor.shaped(grads, known))
    if len(grads) != len(known) or not any(map(_has_constraint, known)):
        return grads, None if variables is None else known
    optimizer.build(known)
    pairs = [
        (g, v)
        for g, v in zip(grads, known)
        if is_constrained(optimizer, v) or not _has_constraint(v)
    ]
    return [g for g, _ in pairs], [v for _, v in pairs]


def _has_constraint(variable: Any) -> bool:
    return getattr(variable, "constraint", None) is not None


def is_constrained(optimizer: Any, variable: Any) -> bool:
    """Whether an update applies a constraint: not to what is frozen.

    Args:
      optimizer: of Keras, built.
      variable: one of its own.
    """
    if not _has_constraint(variable):
        return False
    treatment = optimizer._treatments[optimizer._index(variable)]
    return not optimizer._is_frozen(treatment)


def check_gradients(
    optimizer: Any, grads: Sequence[Any], variables: Sequence[Any]
) -> None:
    """Checks that each gradient is real, and of its variable's shape.

    Args:
      optimizer: of any front end.
      grads: dense ones, or None.
      variables: one for each of them.

    Raises:
      ValueError: there are more or fewer, one is complex, or shapes differ.
    """
    if len(grads) != len(variables):
        raise ValueError(
            f"{optimizer.name}: expected a gradient, or None, for each of "
            f"{len(variables)} variables, got {len(grads)}."
        )
    for grad, variable in zip(grads, variables):
        if grad is not None:
            _check_gradient(optimizer, grad, variable)


def _check_gradient(optimizer: Any, grad: Any, variable: Any) -> None:
    expected = tuple(variable.shape)
    lengths = _known_lengths(grad)
    found = expected if lengths is None else lengths
    same = len(found) == len(expected) and all(
        a is None or a == b for a, b in zip(found, expected)
    )
    dtype = arithmetic.dtype_name(grad)
    if not same or dtype.startswith("complex"):
        path = getattr(variable, "path", variable.name)
        of_shape = "" if same else f" of shape {expected}"
        got = dtype if same else f"one of shape {tuple(found)}"
        raise ValueError(
            f"{optimizer.name}: expected a {'real ' if same else ''}gradient"
            f"{of_shape} for variable {exclusion.normalize_path(path)!r}, got "
            f"{got}."
        )


def _known_lengths(grad: Any) -> list[int | None] | None:
    """A dense gradient's axes, None where one is not known.

    Returns:
      None where not even the number of axes is known.
    """
    try:  # of TensorFlow
        shape = grad.shape
        return list(shape.as_list() if hasattr(shape, "as_list") else shape)
    except ValueError:
        return None
