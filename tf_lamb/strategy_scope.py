"""Whether an optimizer and its variables were made in the same strategy.

`tf.distribute` wants all of them made inside `with strategy.scope():`, and says
otherwise from deep inside what went wrong.
"""

from __future__ import annotations

from typing import Any, Sequence

import tensorflow as tf

outside_graphs = tf.init_scope


def of(variables: Sequence[Any]) -> tf.distribute.Strategy | None:
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


def check(
    name: str, made_in: tf.distribute.Strategy, variables: Sequence[Any]
) -> None:
    """Checks that variables were made in the optimizer's scope.

    Args:
      name: of the optimizer, for the message.
      made_in: the strategy of the optimizer.
      variables: of TensorFlow, which the optimizer shall update.

    Raises:
      ValueError: one of them was made elsewhere.
    """
    for variable in variables:
        strategy = of([variable])
        if strategy and strategy.extended is not made_in.extended:
            where = type(strategy).__name__
            raise ValueError(
                f"{name}: variable {variable.name!r} was made in the scope of "
                f"{where}, but the optimizer was not; make it there too: with "
                "strategy.scope(): model.compile(optimizer_class(...), ...)."
            )
        if strategy is None and made_in.num_replicas_in_sync > 1:
            where = type(made_in).__name__
            raise ValueError(
                f"{name}: the optimizer was made in the scope of {where}, but "
                f"variable {variable.name!r} was not; make the model there too:"
                " with strategy.scope(): model = ..."
            )
