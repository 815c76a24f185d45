"""The problems of `tests/keras3/problems.py` on plain TensorFlow variables.

And a small model of Keras 2 with its data.
"""

import numpy as np
import tensorflow as tf

from tests.keras3 import problems
from tf_lamb.keras2 import keras


def make_variables(values):
    return [tf.Variable(value, name=name) for name, value in values.items()]


def run(optimizer, steps, first_step=0, variables=None, start=None):
    """`steps` steps of `optimizer`; returns its variables."""
    if variables is None:
        variables = make_variables(start or problems.initial_values())
    for step in range(first_step, first_step + steps):
        grads = problems.gradients(step)
        optimizer.apply_gradients(
            [(tf.constant(grads[_name(v)]), v) for v in variables]
        )
    return variables


def values_of(variables):
    """{name: array} of variables, as float64."""
    return {_name(v): v.numpy().astype("float64") for v in variables}


def _name(variable):
    return variable.name.split(":")[0]


def make_model(optimizer):
    """Two dense layers, compiled; always the same initial weights."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(8, "tanh", name="hidden", input_shape=(5,)),
        keras.layers.Dense(1, name="out"),
    ]
    model = keras.Sequential(layers, name="model")
    model.compile(optimizer, "mse")
    return model


def data(rows=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype("float32")
    return x, x[:, :1] - x[:, 1:2]


def fit(model, epochs=1, rows=64):
    """Trains on the batches of 16 of the first `rows` rows; losses."""
    x, y = data(rows)
    history = model.fit(
        x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0
    )
    return history.history["loss"]
