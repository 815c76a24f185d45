"""TensorFlow's functions under the names of `keras.ops`, for Keras 2.

Models get them through `common.ops`; `keras.ops` and `keras3.py` say what
each of them does.
"""

import keras
import tensorflow as tf

from official_models.common.ops.tensorflow import (
    fused_batch_norm,
    replica_mean,
)

__all__ = [
    "Dropout",
    "UNCAST",
    "add",
    "add_root_weight",
    "add_statistic",
    "assign_statistic",
    "average_pool",
    "build_child",
    "cast",
    "convert_to_tensor",
    "einsum",
    "fused_batch_norm",
    "gelu",
    "layer_path",
    "log_softmax",
    "matmul",
    "mean",
    "name_scope",
    "native_layer_norm",
    "native_nll",
    "one_hot",
    "pad",
    "relu",
    "replica_mean",
    "reshape",
    "rsqrt",
    "shape",
    "softmax",
    "sum",
    "take",
    "tanh",
    "transpose",
    "where",
]

# Of `add_weight`: the variable stays as it is in mixed precision.
UNCAST = {"experimental_autocast": False}

add = tf.add
cast = tf.cast
convert_to_tensor = tf.convert_to_tensor
einsum = tf.einsum
matmul = tf.matmul
name_scope = tf.name_scope
pad = tf.pad
relu = tf.nn.relu
reshape = tf.reshape
rsqrt = tf.math.rsqrt
softmax = tf.nn.softmax
tanh = tf.tanh
transpose = tf.transpose
where = tf.where


def mean(x, axis=None, keepdims=False):
    """The mean over `axis`."""
    return tf.reduce_mean(x, axis, keepdims)


def sum(x, axis=None, keepdims=False):
    """The sum over `axis`."""
    return tf.reduce_sum(x, axis, keepdims)


def average_pool(x, pool_size, strides):
    """Means over squares of pixels, without padding."""
    return tf.nn.avg_pool2d(x, pool_size, strides, "VALID")


def gelu(x, approximate=True):
    """The Gaussian error linear unit, or its approximation by tanh."""
    return tf.nn.gelu(x, approximate)


def layer_path(layer: keras.layers.Layer) -> str:
    """The scope of a layer's variables, inside its `build`."""
    return tf.get_current_name_scope()


def log_softmax(x, axis=-1):
    """The logarithm of the softmax over `axis`."""
    return tf.nn.log_softmax(x, axis)


def one_hot(x, num_classes, dtype=None):
    """1 at each label along a new last axis, else 0."""
    return tf.one_hot(x, num_classes, dtype=dtype or tf.float32)


def shape(x):
    """Sizes as a tuple: of int where known, else of scalar tensors."""
    dynamic = tf.shape(x)
    return tuple(
        dynamic[i] if size is None else size for i, size in enumerate(x.shape)
    )


def take(x, indices, axis=0):
    """Slices of `x` along `axis`."""
    return tf.gather(x, indices, axis=axis)


def build_child(layer: keras.layers.Layer, input_shape: tuple) -> None:
    """Builds a layer inside its parent's `build`, under its own name scope."""
    # Unlike in Keras 3, only calling a layer opens its scope.
    with tf.name_scope(layer.name):
        layer.build(input_shape)
    # Else its first call builds it again.
    layer.built = True


def add_root_weight(
    layer: keras.layers.Layer, name: str, shape: tuple, initializer
):
    """Makes a trainable weight whose name is `name` and no more.

    To be called in a layer's `__init__`, outside of any name scope.
    """
    return layer.add_weight(
        name=name, shape=shape, initializer=initializer, **UNCAST
    )


def add_statistic(
    layer: keras.layers.Layer, name: str, size: int, initializer: str
):
    """Makes a vector that a layer keeps a running mean in."""
    return layer.add_weight(
        name=name,
        shape=(size,),
        initializer=initializer,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.MEAN,
        experimental_autocast=False,
    )


def assign_statistic(layer: keras.layers.Layer, variable, value) -> None:
    """Gives a variable of `add_statistic` its new value, inside `call`."""
    # In a graph of TensorFlow 1 nothing would run the assignment otherwise.
    layer.add_update(variable.assign(value))


_KEY = "dropout_key"


def seed_dropout(key: tf.Tensor) -> None:
    """Makes the masks of this graph's dropouts a function of `key`.

    A job that is killed and resumed then draws the masks that an uninterrupted
    one would.

    Args:
        key: int32 scalar, another one in each step, and on each core.
    """
    tf.compat.v1.get_collection_ref(_KEY)[:] = [key]


class Dropout(keras.layers.Layer):
    """Sets a share of its inputs to 0 in training and scales up the rest.

    Its masks are those of `seed_dropout`'s key, other ones each time that the
    layer is applied, or, where none was given, of TensorFlow's random state.

    Args:
        rate: the share, in [0, 1).
        seed: another one for each layer.
    """

    def __init__(self, rate: float, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed
        self._key, self._uses = None, 0

    def call(self, x, training=None):
        if not self.rate or not training:
            return x
        keys = []
        if not tf.executing_eagerly():
            keys = tf.compat.v1.get_collection(_KEY)
        if not keys:
            return tf.nn.dropout(x, self.rate, seed=self.seed)
        if self._key is not keys[0]:
            self._key, self._uses = keys[0], 0
        # A layer whose weights are shared is applied several times in a step.
        seed = tf.constant((self.seed + self._uses) % 2**31, tf.int32)
        self._uses += 1
        seed = tf.stack([seed, keys[0]])
        return tf.nn.experimental.stateless_dropout(x, self.rate, seed)

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def native_layer_norm(x, gamma, beta, epsilon: float):
    """None: TensorFlow has no such operation."""
    return None


def native_nll(logits, labels):
    """None: a softmax and nothing else is faster on TensorFlow."""
    return None
