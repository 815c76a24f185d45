"""Weight decay that changes while training: schedules and functions."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import keras2

RATE = 0.125
# Not adapted, and without a gradient: a step only decays.
ONLY_DECAY = dict(exclude_from_layer_adaptation=[""])


def _factor(optimizer, weight, steps=1):
    """By what `steps` compiled steps multiply the weight."""
    before = weight.numpy()
    optimizer.build([weight])

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.zeros_like(weight), weight)])

    for _ in range(steps):
        step()
    return weight.numpy() / before


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_a_schedule_of_the_step(name, tmp_path):
    schedule = keras2.WarmupPolynomial(
        0.5, total_steps=4, end_learning_rate=0.25
    )
    optimizer = getattr(keras2, name)(RATE, weight_decay=schedule, **ONLY_DECAY)
    if name == "LARS":
        optimizer.momentum = 0.0
    weight = tf.Variable([3.0, 4.0], name="w")
    expected = (1 - RATE * 0.5) * (1 - RATE * 0.4375)
    np.testing.assert_allclose(
        _factor(optimizer, weight, 2), expected, rtol=1e-5
    )
    config = optimizer.get_config()
    again = getattr(keras2, name).from_config(config)
    assert again.get_config() == config
    with pytest.raises(AttributeError, match="weight_decay: once"):
        optimizer.weight_decay = 0.5


def test_a_function_reads_what_changes_from_a_variable():
    decay = tf.Variable(0.5)
    optimizer = keras2.LAMB(RATE, weight_decay=lambda: decay, **ONLY_DECAY)
    weight = tf.Variable([3.0, 4.0], name="w")
    for value in (0.5, 0.25):
        decay.assign(value)
        np.testing.assert_allclose(
            _factor(optimizer, weight), 1 - RATE * value, rtol=1e-5
        )
    with pytest.warns(UserWarning, match="a config cannot hold a function"):
        assert optimizer.get_config()["weight_decay"] == 0.25
