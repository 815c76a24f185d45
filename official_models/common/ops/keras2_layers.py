"""Layers of the models for Keras 2 whose Keras 3 forms are in `common.ops`."""

import keras
import tensorflow as tf

_KEY = "dropout_key"


def seed_dropout(key: tf.Tensor) -> None:
    """Makes the masks of this graph's dropouts a function of `key`.

    A job that is killed and goes on then draws the masks that an uninterrupted
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
