"""Averages of narrow variables: kept in float32, on every backend."""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems

# At these momenta the average would not move in the variable's own dtype.
MOMENTA = {"bfloat16": 0.999, "float16": 0.9999}


def _numpy(x):
    return np.array(
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), "float64"
    )


def _train(dtype, steps=12, **arguments):
    """A variable, its optimizer, and the weights after each step."""
    variable = keras.Variable(np.linspace(1, 2, 6), dtype=dtype, name="w")
    optimizer = tf_lamb.LAMB(
        0.1, use_ema=True, ema_momentum=MOMENTA[dtype], **arguments
    )
    weights = []
    for step in range(steps):
        grad = np.cos(np.arange(6) + step).astype("float32") + 1.0
        problems.apply(optimizer, [variable], {"w": grad})
        weights.append(_numpy(variable.value))
    return variable, optimizer, weights


@pytest.mark.parametrize("dtype", MOMENTA)
def test_the_average_follows_the_weights(dtype):
    _, optimizer, weights = _train(dtype)
    d, expected = MOMENTA[dtype], weights[0]
    for x in weights[1:]:
        expected = d * expected + (1 - d) * x
    (mean,) = optimizer._model_variables_moving_average
    assert mean.dtype == "float32"
    moved = np.abs(expected - weights[0]).max()
    assert moved > 1e-4
    assert np.abs(_numpy(mean) - expected).max() < 0.01 * moved


@pytest.mark.parametrize("dtype", MOMENTA)
def test_weights_are_set_to_it_rounded_to_nearest(dtype):
    variable, optimizer, _ = _train(dtype)
    (mean,) = optimizer._model_variables_moving_average
    nearest = _numpy(keras.ops.cast(mean.value, dtype))
    optimizer.finalize_variable_values([variable])
    np.testing.assert_array_equal(_numpy(variable.value), nearest)
    variable, optimizer, _ = _train(dtype, ema_overwrite_frequency=4)
    (mean,) = optimizer._model_variables_moving_average
    nearest = _numpy(keras.ops.cast(mean.value, dtype))
    np.testing.assert_array_equal(_numpy(variable.value), nearest)


def test_a_model_in_bfloat16_is_saved_with_it_and_goes_on(tmp_path):
    def make():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16")]
        )
        optimizer = tf_lamb.LAMB(0.1, use_ema=True, ema_momentum=0.999)
        model.compile(optimizer, "mse")
        return model

    x = np.random.default_rng(0).normal(size=(2, 64, 4)).astype("float32")
    x, y = x[0], x[1][:, :3]
    model = make()
    model.fit(x, y, batch_size=8, epochs=1, verbose=0, shuffle=False)
    means = model.optimizer._model_variables_moving_average
    for variable, mean in zip(model.trainable_variables, means):
        nearest = keras.ops.cast(mean.value, "bfloat16")
        np.testing.assert_array_equal(_numpy(variable.value), _numpy(nearest))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, epochs=1, verbose=0, shuffle=False)
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(_numpy(a), _numpy(b))
    # A file whose averages have the dtype of the variables.
    store = {
        str(i): np.array(keras.ops.convert_to_numpy(v))
        for i, v in enumerate(model.optimizer.variables)
    }
    for i, v in enumerate(model.optimizer.variables):
        if any(v is mean for mean in means):
            store[str(i)] = np.array(
                keras.ops.convert_to_numpy(keras.ops.cast(v, "float16"))
            )
    other = make()
    other.optimizer.build(other.trainable_variables)
    other.optimizer.load_own_variables(store)
    for a, b in zip(other.optimizer._model_variables_moving_average, means):
        np.testing.assert_allclose(_numpy(a), _numpy(b), rtol=1e-3, atol=1e-4)


def test_the_average_of_a_frozen_weight_is_that_weight():
    """To the bit, and so it stays where averages overwrite the weights."""
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    frozen = keras.Variable(values, name="frozen")
    other = keras.Variable(values, name="other")
    optimizer = tf_lamb.LAMB(
        0.1,
        groups=[tf_lamb.Group("frozen", frozen=True)],
        use_ema=True,
        ema_momentum=0.99,
        ema_overwrite_frequency=1,
    )
    optimizer.build([frozen, other])
    for _ in range(30):
        grads = [keras.ops.ones(1000), keras.ops.ones(1000)]
        optimizer.apply(grads, [frozen, other])
    np.testing.assert_array_equal(_numpy(frozen.value), values)
    optimizer.finalize_variable_values([frozen, other])
    np.testing.assert_array_equal(_numpy(frozen.value), values)
