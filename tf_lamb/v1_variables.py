"""What an optimizer of TensorFlow 1 asks of a variable."""

from __future__ import annotations

from typing import Any, Hashable

# TensorFlow's, also one that replicas share.
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
