"""What layers of the models ask of Keras 3 and Keras 2 in different words.

`keras2.py` has the same functions for Keras 2; models get them through
`common.ops`.
"""

import keras

__all__ = [
    "Dropout",
    "UNCAST",
    "add_root_weight",
    "add_statistic",
    "assign_statistic",
    "build_child",
    "fused_batch_norm",
    "layer_path",
    "native_layer_norm",
    "native_nll",
    "replica_mean",
]

# Of `add_weight`: the variable stays as it is in mixed precision.
UNCAST = {"autocast": False}


class Dropout(keras.layers.Dropout):
    """Dropout whose random state is saved with the weights.

    Keras leaves it out, so that a model loaded halfway through its training
    would draw its first masks once more. On TensorFlow it is
    `tensorflow.dropout`.
    """

    def call(self, inputs, training=False):
        if (
            keras.config.backend() != "tensorflow"
            or self.noise_shape
            or not (training and self.rate)
        ):
            return super().call(inputs, training=training)
        from official_models.common.ops import tensorflow

        seed = self.seed_generator.next()
        return tensorflow.dropout(inputs, self.rate, seed)

    def save_own_variables(self, store):
        if self.rate:
            store["seed"] = self.seed_generator.state

    def load_own_variables(self, store):
        if self.rate and "seed" in store.keys():
            self.seed_generator.state.assign(store["seed"])


def layer_path(layer: keras.layers.Layer) -> str:
    """A layer's path, the beginning of its variables' paths."""
    return layer.path


def build_child(layer: keras.layers.Layer, input_shape: tuple) -> None:
    """Builds a layer inside its parent's `build`, under its own name scope.

    Args:
        layer: the child.
        input_shape: of its input; None where a size is not known.
    """
    layer.build(input_shape)


def add_root_weight(
    layer: keras.layers.Layer, name: str, shape: tuple, initializer
):
    """Makes a trainable weight whose path is `name` and no more.

    To be called in a layer's `__init__`, outside of any name scope; assign the
    result to one of the layer's attributes. It is not cast in mixed precision.
    """
    return keras.Variable(
        initializer,
        shape=shape,
        dtype=layer.variable_dtype,
        autocast=False,
        name=name,
    )


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
    """`tensorflow.replica_mean`; `value` itself on other backends."""
    if keras.config.backend() != "tensorflow":
        return value
    from official_models.common.ops import tensorflow

    return tensorflow.replica_mean(value)


def fused_batch_norm(x, gamma, beta, epsilon: float):
    """`tensorflow.fused_batch_norm`; None on other backends."""
    if keras.config.backend() != "tensorflow":
        return None
    from official_models.common.ops import tensorflow

    return tensorflow.fused_batch_norm(x, gamma, beta, epsilon)


def native_layer_norm(x, gamma, beta, epsilon: float):
    """`torch.native_layer_norm`; None on other backends, which fuse."""
    if keras.config.backend() != "torch":
        return None
    from official_models.common.ops import torch

    return torch.native_layer_norm(x, gamma, beta, epsilon)


def native_nll(logits, labels):
    """`torch.native_nll`; None on other backends."""
    if keras.config.backend() != "torch":
        return None
    from official_models.common.ops import torch

    return torch.native_nll(logits, labels)
