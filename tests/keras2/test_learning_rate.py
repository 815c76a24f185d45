"""Learning rates that are functions: called at each step, as Keras 3 does."""

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import problems
from tests.keras3.problems import gradients, initial_values
from tf_lamb import keras2

OPTIMIZERS = ("LAMB", "LARS")


def _lengths(step, weight, steps):
    """How far each step moves the weight, relative to its norm."""
    lengths = []
    for _ in range(steps):
        before = weight.numpy()
        step()
        moved = np.linalg.norm(weight.numpy() - before)
        lengths.append(moved / np.linalg.norm(before))
    return lengths


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_function_is_called_at_each_step(name):
    rates = iter([0.1, 0.01, 0.0, 0.7])
    arguments = {
        "LAMB": {"beta_1": 0.0},
        "LARS": {"momentum": 0.0, "trust_coefficient": 1.0},
    }
    optimizer = getattr(keras2, name)(lambda: next(rates), **arguments[name])
    weight = tf.Variable([3.0, 4.0], name="w")
    lengths = _lengths(
        lambda: optimizer.apply_gradients([(tf.constant([1.0, 1.0]), weight)]),
        weight,
        3,
    )
    np.testing.assert_allclose(lengths, [0.1, 0.01, 0], rtol=1e-4)
    assert float(optimizer.lr) == pytest.approx(0.7)


def test_a_function_of_the_step_in_a_compiled_step_is_its_schedule():
    variables = [problems.make_variables(initial_values()) for _ in range(2)]
    optimizer = keras2.LAMB(
        lambda: 0.1 / (1 + tf.cast(optimizer.iterations, tf.float32))
    )
    schedule = keras2.keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 1.0)
    other = keras2.LAMB(schedule)
    for each, vs in zip((optimizer, other), variables):

        @tf.function
        def step(grads, each=each, vs=vs):
            each.apply_gradients(zip(grads, vs))

        each.build(vs)
        for i in range(4):
            grads = gradients(i)
            step([tf.constant(grads[v.name[:-2]]) for v in vs])
    a, b = map(problems.values_of, variables)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_function_that_reads_a_variable_in_fit(mirrored, replicas):
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        rate = tf.Variable(0.05, trainable=False)
        model = problems.make_model(keras2.LAMB(lambda: rate * 1))
        plain = problems.make_model(keras2.LAMB(0.05))
    for value in (0.05, 0.01, 0.0):
        rate.assign(value)
        plain.optimizer.learning_rate = value
        before = model.get_weights()
        problems.fit(model)
        problems.fit(plain)
        for a, b in zip(model.get_weights(), plain.get_weights()):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        moved = np.abs(model.get_weights()[0] - before[0]).max()
        assert (moved > 0) == (value > 0)


def test_rates_replace_each_other():
    optimizer = keras2.LAMB(lambda: 0.5)
    with pytest.raises(TypeError, match="rate is a function.*got 0.1"):
        optimizer.learning_rate = 0.1
    optimizer.learning_rate = lambda: 0.25
    variable = tf.Variable([1.0])
    optimizer.apply_gradients([(tf.ones(1), variable)])
    np.testing.assert_allclose(variable.numpy(), 0.75, rtol=1e-5)
    with pytest.warns(UserWarning, match="cannot hold a function.*0.25"):
        config = optimizer.get_config()
    assert config["learning_rate"] == 0.25
    assert float(keras2.LAMB.from_config(config).learning_rate) == 0.25
    optimizer.learning_rate = keras2.WarmupPolynomial(0.125, 10, 0)
    optimizer.apply_gradients([(tf.ones(1), variable)])
    assert float(optimizer.learning_rate) == pytest.approx(0.1125)
