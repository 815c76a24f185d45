"""What an optimizer of TensorFlow 1 asks of a variable."""

from __future__ import annotations

from typing import Any, ContextManager, Hashable, Iterable, Sequence

import tensorflow as tf

# TensorFlow's own, also one that replicas share.
Variable = Any


def check_resource(variable: Variable) -> None:
    """Checks that a variable can be updated in place.

    Args:
      variable: that will be trained.

    Raises:
      ValueError: it is of TensorFlow 1's old reference kind.
    """
    handle = getattr(variable, "handle", None)
    if handle is None and not hasattr(variable, "values"):
        raise ValueError(
            f"variable {variable.name!r} is of the old reference kind; make "
            "it a resource variable: tf.compat.v1.enable_resource_variables() "
            "before the model, or use_resource=True."
        )


def identity(variable: Variable) -> Hashable:
    """What tells a variable from another one of its name.

    Outside of graphs, names may be equal.

    Args:
      variable: in a replica, across replicas or inside of a function; it is
        the same for all of them.
    """
    container = getattr(variable, "_distributed_container", None)
    if container is not None:
        variable = container()
    unique: Hashable = variable._unique_id
    return unique


def constrain(
    distribution: tf.distribute.Strategy,
    variables: Sequence[Variable],
    fixed: Iterable[bool],
) -> list[Any]:
    """Applies the constraints of variables that have one, after an update.

    Args:
      distribution: the strategy, outside whose replicas it is called.
      variables: those of the update.
      fixed: whether each of them stays as it is.

    Returns:
      What `extended.update` returned for each constraint.
    """

    def assign(variable: Variable) -> tf.Tensor:
        return variable.assign(variable.constraint(variable.read_value()))

    return [
        distribution.extended.update(v, assign, group=False)
        for v, stays in zip(variables, fixed)
        if not stays and getattr(v, "constraint", None) is not None
    ]


def after(updates: Sequence[Any]) -> ContextManager[Any]:
    """Control dependencies on all that `extended.update` returned.

    Args:
      updates: what it returned.
    """
    if tf.executing_eagerly():
        return tf.control_dependencies([])
    flat = [u for u in tf.nest.flatten(updates) if u is not None]
    return tf.control_dependencies(flat)
