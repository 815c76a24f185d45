"""What the tests of `keras_table` need of a front end, under one name each."""

import functools

import numpy as np
import pytest

from tests.support_matrix import keras_table
from tests.support_matrix.environment import available, keras_and_module


class FrontEnd:
    """A Keras, our module for it, and variables and arrays of that Keras."""

    def __init__(self, name):
        self.name = name
        self.keras, self.module = keras_and_module(name)
        self.is_keras_3 = name in keras_table.KERAS_3
        self.is_jax = name == "Keras 3, JAX"
        self.LAMB, self.LARS = self.module.LAMB, self.module.LARS

    def plain(self, rate=1.0, **arguments):
        """A LARS that is SGD: its steps can be computed in one's head."""
        arguments.setdefault("momentum", 0.0)
        arguments.setdefault("exclude_from_layer_adaptation", ["."])
        return self.LARS(rate, **arguments)

    def variable(self, value, name=None, dtype="float32"):
        value = np.asarray(value, "float32")
        if self.is_keras_3:
            return self.keras.Variable(value, dtype=dtype, name=name)
        import tensorflow as tf

        return tf.Variable(tf.cast(value, dtype), name=name)

    def tensor(self, value, dtype="float32"):
        if self.is_keras_3:
            return self.keras.ops.convert_to_tensor(value, dtype)
        import tensorflow as tf

        return tf.constant(value, dtype)

    def sparse(self, indices, rows, shape):
        """The same gradient, with rows only where it is not 0."""
        if self.is_jax:
            from jax.experimental import sparse

            return sparse.BCOO(
                (np.float32(rows), np.asarray(indices)[:, None]), shape=shape
            )
        import tensorflow as tf

        return tf.IndexedSlices(
            tf.constant(rows, "float32"), tf.constant(indices), shape
        )

    def step(self, optimizer, *pairs):
        """One call with `(gradient, variable)` pairs of arrays."""
        optimizer.apply_gradients(
            [
                (self.tensor(g, self.dtype(v)), v)
                if isinstance(g, (list, np.ndarray))
                else (g, v)
                for g, v in pairs
            ]
        )

    def stateless_step(self, optimizer, grads, variables):
        """One call of a built optimizer, as `fit` makes it on that backend."""
        if not self.is_jax:
            optimizer.apply(grads, variables)
            return
        values, state = optimizer.stateless_apply(
            [v.value for v in optimizer.variables],
            grads,
            [v.value for v in variables],
        )
        for v, value in zip(
            [*variables, *optimizer.variables], [*values, *state]
        ):
            v.assign(value)

    def dtype(self, variable):
        dtype = variable.dtype
        return dtype if isinstance(dtype, str) else dtype.name

    def numpy(self, x):
        if self.is_keras_3:
            x = self.keras.ops.cast(x, "float32")
            return self.keras.ops.convert_to_numpy(x)
        import tensorflow as tf

        return tf.cast(x, "float32").numpy()

    def model(self, optimizer=None, units=1, **compile_arguments):
        """One dense layer on three inputs, always with the same weights."""
        layers = self.keras.layers
        model = self.keras.Sequential(
            [self.keras.Input((3,)), layers.Dense(units, name="dense")]
        )
        kernel = np.linspace(-1, 1, 3 * units).reshape(3, units)
        model.set_weights([kernel, np.full(units, 0.5)])
        if optimizer is not None:
            # By its name, Keras 3 finds a metric when it loads an `.h5` file.
            loss = self.keras.losses.MeanSquaredError()
            model.compile(optimizer, loss, **compile_arguments)
        return model

    def fit(self, model, epochs=1, **arguments):
        """Two batches of four rows an epoch."""
        x = np.linspace(-1, 1, 24).reshape(8, 3).astype("float32")
        y = x.sum(axis=1, keepdims=True)
        return model.fit(
            x,
            y,
            batch_size=4,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            **arguments,
        )

    def close(self, variable, expected, tolerance=1e-6):
        np.testing.assert_allclose(
            self.numpy(variable), expected, rtol=tolerance, atol=tolerance
        )


front_end = functools.lru_cache(maxsize=None)(FrontEnd)


def behaviour(name):
    """Marks the test of a row: it is run with each front end that is here.

    Where the table has a `Fault`, the test has to fail.
    """
    parameters = []
    for column in available():
        if column not in keras_table.COLUMNS:
            continue
        found = keras_table.cell(name, column)
        if isinstance(found, keras_table.Missing):
            continue
        marks = []
        if isinstance(found, keras_table.Fault):
            marks.append(pytest.mark.xfail(strict=True, reason=found.reason))
        parameters.append(pytest.param(column, id=column, marks=marks))

    def mark(test):
        if not parameters:
            return pytest.mark.skip(f"{name}: not of this Keras")(test)
        return pytest.mark.parametrize("front", parameters, indirect=True)(test)

    return mark
