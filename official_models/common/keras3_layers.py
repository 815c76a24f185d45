"""What layers of the models ask of Keras 3 and Keras 2 in different words.

`keras2_ops.py` has the same functions for Keras 2; models get them through
`ops.py`.
"""

import keras

__all__ = [
    "add_statistic",
    "assign_statistic",
    "build_child",
    "fused_batch_norm",
    "replica_mean",
]


def build_child(layer: keras.layers.Layer, input_shape: tuple) -> None:
    """Builds a layer inside its parent's `build`, under its own name scope.

    Args:
        layer: the child.
        input_shape: of its input; None where a size is not known.
    """
    layer.build(input_shape)


def add_statistic(
    layer: keras.layers.Layer, name: str, size: int, initializer: str
):
    """Makes a vector that a layer keeps a running mean in.

    Under `tf.distribute` each replica has its own, and what is read outside of
    the replicas, or saved, is their mean: no communication in a step.

    Args:
        layer: whose it is; assign the result to one of its attributes.
        name: of the variable.
        size: its length.
        initializer: name of a Keras initializer.

    Returns:
        The variable, not trainable, in the layer's variable dtype.
    """
    return keras.Variable(
        initializer,
        shape=(size,),
        dtype=layer.variable_dtype,
        trainable=False,
        autocast=False,
        aggregation="mean",
        synchronization="on_read",
        name=name,
    )


def assign_statistic(layer: keras.layers.Layer, variable, value) -> None:
    """Gives a variable of `add_statistic` its new value, inside `call`."""
    variable.assign(value)


def replica_mean(value):
    """The mean of `value` over the replicas of a `tf.distribute` strategy.

    Outside of a replica, and on other backends than TensorFlow, it is `value`.
    """
    if keras.config.backend() != "tensorflow":
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def fused_batch_norm(x, gamma, beta, epsilon: float):
    """Normalises by the batch's statistics in one operation, if there is one.

    Its derivatives are right to the second order, and on a CPU outside XLA it
    is several times as fast as the equation written out.

    Args:
        x: [B, H, W, C].
        gamma: [C], float32.
        beta: [C], float32.
        epsilon: added to the variance.

    Returns:
        y [B, H, W, C] of the dtype of `x`, mean and biased variance [C],
        float32; None on other backends than TensorFlow and for float64.
    """
    if keras.config.backend() != "tensorflow" or "64" in str(x.dtype):
        return None
    import tensorflow as tf

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
