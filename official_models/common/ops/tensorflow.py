"""What the layers of the models want of TensorFlow itself, under any Keras.

Models get these through `common.ops`.
"""

import tensorflow as tf


def replica_mean(value):
    """The mean of `value` over the replicas of a `tf.distribute` strategy.

    Outside of a replica it is `value`.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def fused_batch_norm(x, gamma, beta, epsilon: float):
    """Normalises by the batch's statistics in one operation.

    Its derivatives are right to the second order.

    Args:
        x: [B, H, W, C].
        gamma: [C], float32.
        beta: [C], float32.
        epsilon: added to the variance.

    Returns:
        y [B, H, W, C] of the dtype of `x`, mean and biased variance [C],
        float32; None for float64, which the operation does not take.
    """
    if x.dtype == "float64":
        return None
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.convert_to_tensor(gamma),
        offset=tf.convert_to_tensor(beta),
        mean=[],
        variance=[],
        epsilon=epsilon,
        is_training=True,
    )
    # The operation's is the unbiased one.
    n = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
    return y, mean, variance * ((n - 1) / n)


def dropout(x, rate: float, seed):
    """Sets a share of `x` to 0 and scales up the rest.

    The masks are those of Keras' layer, but for XLA on a CPU. There what
    TensorFlow selects by itself derives its key anew for every number, which
    takes tens of times as long as Philox by name.

    Args:
        x: any shape.
        rate: the share, in (0, 1).
        seed: of `keras.random.SeedGenerator.next`, [2].
    """
    accelerators = [
        device
        for kind in ("GPU", "TPU")
        for device in tf.config.list_logical_devices(kind)
    ]
    return tf.nn.experimental.stateless_dropout(
        x,
        rate,
        # As Keras casts it.
        tf.cast(tf.math.floormod(seed, tf.int32.max - 1), tf.int32),
        rng_alg="auto_select" if accelerators else "philox",
    )
