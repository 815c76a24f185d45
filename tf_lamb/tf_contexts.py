"""Where TensorFlow's strategies let an optimizer read and write variables."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def require_replica(strategy: tf.distribute.Strategy, owner: str) -> None:
    """Checks that gradients are applied where each replica has its own.

    Args:
      strategy: the strategy under which the optimizer was made.
      owner: name of the optimizer, for the message.

    Raises:
      RuntimeError: the caller is in no replica, or in none of this strategy.
    """
    elsewhere = (
        strategy.num_replicas_in_sync > 1
        and tf.distribute.get_strategy() is not strategy
    )
    if elsewhere or tf.distribute.in_cross_replica_context():
        current = strategy if elsewhere else tf.distribute.get_strategy()
        raise RuntimeError(
            f"{owner}: gradients were applied outside the replicas of "
            f"{type(current).__name__}; expected a call in a replica: write "
            "the step as a function and call strategy.run(step)."
        )


def assign_everywhere(variable: tf.Variable, value: Any) -> None:
    """Assigns to a variable on every device that holds it.

    It works inside and outside the scope of the variable's strategy, but not in
    a replica.

    Args:
      variable: of any strategy, or of none.
      value: tensor or variable of the same shape; it is cast.
    """

    def assign(variable: tf.Variable, value: Any) -> None:
        variable.assign(tf.cast(value, variable.dtype))

    strategy = getattr(variable, "distribute_strategy", None)
    if strategy is None:
        assign(variable, value)
    else:
        strategy.extended.update(variable, assign, args=(value,))
