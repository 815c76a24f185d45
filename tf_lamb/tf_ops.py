"""TensorFlow's array functions under NumPy's names, as `rules.py` takes them.

`keras.ops` is the same for Keras 3. `arithmetic.Ops` describes the functions.
"""

import tensorflow as tf

abs = tf.abs
all = tf.reduce_all
arange = tf.range
broadcast_to = tf.broadcast_to
cast = tf.cast
clip = tf.clip_by_value
concatenate = tf.concat
cond = tf.cond
convert_to_tensor = tf.convert_to_tensor
equal = tf.equal
expm1 = tf.math.expm1
isfinite = tf.math.is_finite
logical_and = tf.logical_and
max = tf.reduce_max
maximum = tf.maximum
mean = tf.reduce_mean
minimum = tf.minimum
ones = tf.ones
ones_like = tf.ones_like
reshape = tf.reshape
right_shift = tf.bitwise.right_shift
sqrt = tf.sqrt
square = tf.square
stack = tf.stack
sum = tf.reduce_sum
unstack = tf.unstack
view = tf.bitcast
where = tf.where
zeros_like = tf.zeros_like


def array(x: tf.Tensor, dtype: str) -> tf.Tensor:
    """`x` in another dtype."""
    return tf.cast(x, dtype)


def convert_to_numpy(x: tf.Tensor) -> object:
    """`x` as a NumPy array."""
    return x.numpy()
