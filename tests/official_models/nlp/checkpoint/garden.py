"""An encoder as Model Garden builds it, of tf_keras' own layers.

Its attributes have the names of `official/nlp/modeling`, so that TensorFlow
gives its checkpoint the keys of the published ones.
"""

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

H, N, WIDTH, E = 12, 3, 24, 8


class Table(layers.Layer):
    """Rows by id, or the first ones by position."""

    def __init__(self, rows, width, by_position=False, **kwargs):
        super().__init__(**kwargs)
        self.sizes, self.by_position = (rows, width), by_position

    def build(self, shape):
        self.embeddings = self.add_weight("embeddings", self.sizes)

    def call(self, ids):
        if self.by_position:
            return self.embeddings[None, : tf.shape(ids)[1]]
        return tf.gather(self.embeddings, ids)


class Block(layers.Layer):
    """A post-LN layer of heads on an axis of their own."""

    def build(self, shape):
        self._attention_layer = layers.MultiHeadAttention(N, H // N)
        self._attention_layer_norm = layers.LayerNormalization(epsilon=1e-12)
        self._intermediate_dense = layers.EinsumDense(
            "abc,cd->abd", (None, WIDTH), bias_axes="d"
        )
        self._output_dense = layers.EinsumDense(
            "abc,cd->abd", (None, H), bias_axes="d"
        )
        self._output_layer_norm = layers.LayerNormalization(epsilon=1e-12)

    def call(self, x, mask):
        context = self._attention_layer(x, x, attention_mask=mask[:, None])
        x = self._attention_layer_norm(x + context)
        inner = tf.nn.gelu(self._intermediate_dense(x), approximate=True)
        return self._output_layer_norm(x + self._output_dense(inner))


def encoder(vocab_size, positions, num_layers, is_albert=False):
    """A functional model: its layers are numbered in a checkpoint."""
    ids, mask, segments = (
        tf_keras.Input((None,), dtype="int32") for _ in range(3)
    )
    width = E if is_albert else H
    x = Table(vocab_size, width)(ids)
    x = x + Table(positions, width, by_position=True)(ids)
    x = x + Table(2, width)(segments)
    x = layers.LayerNormalization(epsilon=1e-12)(x)
    if is_albert:
        x = layers.EinsumDense("abc,cd->abd", (None, H), bias_axes="d")(x)
        block = Block()
        for _ in range(num_layers):
            x = block(x, mask)
    else:
        for _ in range(num_layers):
            x = Block()(x, mask)
    pooled = layers.Dense(H, "tanh")(x[:, 0])
    return tf_keras.Model([ids, mask, segments], [x, pooled])


def randomize(model, seed=0):
    """Values that are not trivial for every variable."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        centre = float("gamma" in variable.name)
        variable.assign(rng.normal(centre, 0.3, variable.shape))
