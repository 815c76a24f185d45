"""A fixed loss scale: divided out wherever gradients come from, as in Keras 3.

Factors are powers of two, so that nothing is rounded.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import problems
from tf_lamb import keras2

FACTOR = 2.0**10
# Without adaptation or with epsilon, a step depends on the gradient's size.
SETTINGS = {
    "LAMB": ("LAMB", {"epsilon": 0.1}),
    "not_adapted": ("LARS", {"exclude_from_layer_adaptation": [""]}),
    "clipnorm": ("LAMB", {"clipnorm": 0.1}),
    "global_clipnorm": ("LARS", {"global_clipnorm": 0.1, "weight_decay": 0.1}),
    "accumulation": (
        "LAMB",
        {"gradient_accumulation_steps": 2, "epsilon": 0.1},
    ),
}


def _make(name, arguments, factor):
    return getattr(keras2, name)(0.05, loss_scale_factor=factor, **arguments)


@pytest.mark.parametrize("name, arguments", SETTINGS.values(), ids=SETTINGS)
def test_fit_is_that_without_a_factor(name, arguments):
    weights = []
    for factor in (None, FACTOR):
        model = problems.make_model(_make(name, arguments, factor))
        start = model.get_weights()
        problems.fit(model, 2)
        weights.append(model.get_weights())
    assert np.abs(weights[0][0] - start[0]).max() > 1e-4
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_fit_under_two_replicas(mirrored):
    weights = []
    for factor in (None, FACTOR):
        with mirrored.scope():
            model = problems.make_model(_make("LAMB", {"epsilon": 0.1}, factor))
        problems.fit(model)
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_fit_inside_the_loss_scaler_of_keras():
    weights = []
    for factor in (None, FACTOR):
        inner = _make("LAMB", {"epsilon": 0.1}, factor)
        scaler = keras2.keras.mixed_precision.LossScaleOptimizer(
            inner, dynamic=False, initial_scale=8.0
        )
        model = problems.make_model(scaler)
        problems.fit(model)
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_loops_of_ones_own():
    def train(way, factor):
        weight = tf.Variable([3.0, 4.0])
        optimizer = _make("LAMB", {"epsilon": 0.1}, factor)

        def loss():
            return tf.square(weight) * [1.0, 2.0]

        for _ in range(3):
            if way == "function":
                optimizer.minimize(loss, [weight])
                continue
            with tf.GradientTape() as tape:
                value = loss()
                scaled = optimizer.scale_loss(value)
            if way == "tape":
                optimizer.minimize(value, [weight], tape=tape)
            else:
                grads = tape.gradient(scaled, [weight])
                optimizer.apply_gradients(zip(grads, [weight]))
        return weight.numpy()

    expected = train("function", None)
    for way in ("function", "tape", "scale_loss"):
        np.testing.assert_allclose(train(way, FACTOR), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="tape"):
        _make("LAMB", {}, FACTOR).minimize(tf.ones(()), [tf.Variable(1.0)])


def test_what_a_loss_scale_keeps_from_0_is_not_lost_again():
    """2e-5 / 1024 is 0 in float16, the variable's dtype."""
    weight = tf.Variable(tf.ones(4, tf.float16))
    optimizer = _make("LAMB", {}, 1024.0)
    grad = tf.fill([4], tf.constant(2e-5, tf.float16))
    optimizer.apply_gradients([(grad, weight)])
    assert (weight.numpy() < 1).all()
