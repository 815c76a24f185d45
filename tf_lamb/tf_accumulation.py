"""Accumulation of gradients on TensorFlow, under any distribution strategy."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import tensorflow as tf

_TPU_STRATEGIES = (
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.TPUStrategy,
)


def _conditions_below_replicas(strategy: tf.distribute.Strategy) -> bool:
    """Whether a replica may take a condition whose branch synchronises."""
    # On a TPU all replicas are one program; without merge_call (GPUs under
    # XLA) collectives are plain operations.
    return (
        isinstance(strategy, _TPU_STRATEGIES)
        or tf.__internal__.distribute.strategy_supports_no_merge_call()
    )


def accumulate_or_update(
    strategy: tf.distribute.Strategy,
    is_update_step: tf.Tensor,
    update: Callable[..., Any],
    sums: Sequence[tf.Variable],
    grads: Sequence[tf.Tensor],
) -> None:
    """Adds each replica's gradients to its own sums, or calls `update()`.

    A condition whose branch synchronises replicas is not allowed inside a
    replica that is a thread. There the condition is evaluated outside the
    replicas, and `update` runs in each of them. A step that accumulates reads
    the gradients and reads and writes the sums; no replica waits for another.

    Args:
      strategy: the strategy under which the variables were made.
      is_update_step: bool scalar.
      update: function of the gradients, run in every replica.
      sums: accumulators, the variables that `grads` are added to.
      grads: this replica's gradients.
    """

    def add(total: tf.Variable, grad: tf.Tensor) -> None:
        total.assign_add(tf.cast(grad, total.dtype))

    def reset(total: tf.Variable) -> None:
        total.assign(tf.zeros_like(total))

    if _conditions_below_replicas(strategy):

        def accumulate_here() -> None:
            for total, grad in zip(sums, grads):
                add(total, grad)

        def update_here() -> None:
            update(*grads)
            for total in sums:
                reset(total)

        tf.cond(is_update_step, update_here, accumulate_here)
        return

    def across_replicas(
        distribution: tf.distribute.Strategy,
        is_update_step: tf.Tensor,
        *grads: tf.Tensor,
    ) -> None:
        flag = distribution.experimental_local_results(is_update_step)[0]
        extended = distribution.extended

        def accumulate() -> None:
            for total, grad in zip(sums, grads):
                extended.update(total, add, args=(grad,), group=False)

        def run_update() -> None:
            extended.call_for_each_replica(update, args=grads)
            for total in sums:
                extended.update(total, reset, group=False)

        tf.cond(flag, run_update, accumulate)

    tf.distribute.get_replica_context().merge_call(
        across_replicas, args=(is_update_step, *grads)
    )
