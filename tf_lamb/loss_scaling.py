"""Keras 3's loss scaler under several replicas: any replica's overflow counts.

`keras.optimizers.LossScaleOptimizer` (seen in 3.10 to 3.15) asks each replica
whether its own gradients are finite, before they are summed. Under
MirroredStrategy the first replica's answer decides: an overflow on another
replica never lowers the scale, and every step is skipped. In several workers
each one follows its own answer, and those that update wait forever for those
that skip the step.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Sequence

import tensorflow as tf

from tf_lamb import wrapped


def share_overflows(of: type = object) -> None:
    """Makes replicas agree on whether gradients are finite.

    It replaces `LossScaleOptimizer.check_finite`. Nothing changes with one
    replica, nor for loss scalers of other optimizers.

    Args:
      of: class of the optimizers whose loss scalers shall agree.

    Raises:
      AttributeError: this Keras' loss scaler has no `check_finite`.
    """
    import keras

    scaler = keras.optimizers.LossScaleOptimizer
    if not hasattr(scaler.check_finite, "optimizers"):
        scaler.check_finite = _agreed(scaler.check_finite)
    scaler.check_finite.optimizers.add(of)


def _agreed(original: Callable[..., Any]) -> Any:
    """`check_finite` with an all-reduce; `optimizers` are those it serves."""
    optimizers: set[type] = set()

    @functools.wraps(original)
    def check_finite(scaler: Any, grads: Sequence[tf.Tensor]) -> tf.Tensor:
        finite = original(scaler, grads)
        context = tf.distribute.get_replica_context()
        # LAMB may be in a MultiOptimizer.
        inside = [scaler.inner_optimizer, *wrapped.find_optimizers(scaler)]
        if (
            context is None
            or context.num_replicas_in_sync == 1
            or not any(isinstance(x, tuple(optimizers)) for x in inside)
        ):
            return finite
        overflows = tf.cast(tf.logical_not(finite), tf.float32)
        overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, overflows)
        return tf.equal(overflows, 0.0)

    agreed: Any = check_finite
    agreed.optimizers = optimizers
    return agreed
