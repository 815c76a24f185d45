"""Where TensorFlow's strategies let an optimizer read and write variables."""

from __future__ import annotations

from typing import Any, Sequence

import tensorflow as tf

# Where `build` assigns, if it is called in a graph.
outside_graphs = tf.init_scope


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


def strategy_of(variables: Sequence[Any]) -> tf.distribute.Strategy | None:
    """The strategy in whose scope the first variable was made, None if none.

    Args:
      variables: of TensorFlow.
    """
    strategies = (getattr(v, "_distribute_strategy", None) for v in variables)
    return next(strategies, None)


def is_default(strategy: tf.distribute.Strategy) -> bool:
    """Whether it is the strategy outside of any scope.

    Args:
      strategy: of TensorFlow.
    """
    return type(strategy).__name__.startswith("_Default")


def require_scope(
    made_in: tf.distribute.Strategy, owner: str, variables: Sequence[Any]
) -> None:
    """Checks that variables were made in the optimizer's scope.

    Args:
      made_in: the strategy under which the optimizer was made.
      owner: name of the optimizer, for the message.
      variables: of TensorFlow, which the optimizer shall update.

    Raises:
      ValueError: one of them was made elsewhere.
    """
    for variable in variables:
        strategy = strategy_of([variable])
        if strategy and strategy.extended is not made_in.extended:
            where = type(strategy).__name__
            raise ValueError(
                f"{owner}: variable {variable.name!r} was made in the scope of "
                f"{where}, but the optimizer was not; make it there too: with "
                "strategy.scope(): model.compile(optimizer_class(...), ...)."
            )
        if strategy is None and made_in.num_replicas_in_sync > 1:
            where = type(made_in).__name__
            raise ValueError(
                f"{owner}: the optimizer was made in the scope of {where}, but "
                f"variable {variable.name!r} was not; make the model there too:"
                " with strategy.scope(): model = ..."
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
