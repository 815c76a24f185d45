"""Accumulation on TensorFlow: what a step costs, and each of its branches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from tests.graphs import assert_only_adds
from tests.keras3 import problems
from tf_lamb import tf_accumulation


@pytest.mark.parametrize("replicas", [1, 2])
def test_accumulating_steps_only_add(mirrored, replicas):
    """They touch no moment, call no kernel and wait for no other replica."""
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        variables = problems.make_variables(problems.initial_values())
        optimizer = tf_lamb.LAMB(
            0.05, gradient_accumulation_steps=2, use_ema=True
        )
        optimizer.build(variables)

    @tf.function
    def step():
        grads = [tf.ones(v.shape) for v in variables]
        strategy.run(optimizer.apply, args=(grads,))

    graph = step.get_concrete_function().graph
    assert_only_adds(graph, replicas * len(variables))


@pytest.fixture
def strategy_like_a_tpu(monkeypatch):
    """With the branch of TPUStrategy, and of GPUs where XLA has collectives."""
    asked = []

    def yes(strategy):
        asked.append(strategy)
        return True

    monkeypatch.setattr(tf_accumulation, "_conditions_below_replicas", yes)
    yield tf.distribute.OneDeviceStrategy("/cpu:0")
    assert asked


@pytest.mark.parametrize("jit_compile", [False, True])
def test_accumulation_by_a_condition_below_replicas(
    strategy_like_a_tpu, jit_compile
):
    k = 3
    arguments = dict(weight_decay=0.1, global_clipnorm=0.5, use_ema=True)
    with strategy_like_a_tpu.scope():
        accumulated = tf_lamb.LAMB(
            0.1, gradient_accumulation_steps=k, **arguments
        )
        variables = problems.make_variables(problems.initial_values())
        accumulated.build(variables)

    @tf.function(jit_compile=jit_compile)
    def step(*grads):
        strategy_like_a_tpu.run(accumulated.apply, args=(grads,))

    whole = tf_lamb.LAMB(0.1, **arguments)
    expected = problems.make_variables(problems.initial_values())
    for update in range(3):
        parts = [problems.gradients(k * update + i) for i in range(k)]
        for part in parts:
            before = problems.values_of(expected)
            assert (
                problems.distance(problems.values_of(variables), before) < 1e-6
            )
            step(*(tf.constant(part[v.name]) for v in variables))
        mean = {n: np.mean([p[n] for p in parts], 0) for n in parts[0]}
        problems.apply(whole, expected, mean)
    got = problems.values_of(variables)
    assert problems.distance(got, problems.values_of(expected)) < 1e-6
    moved = problems.distance(got, problems.initial_values())
    assert moved > 0.01
    assert not any(s.numpy().any() for s in accumulated._accumulated_gradients)


def _model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    optimizer = tf_lamb.LAMB(
        0.05,
        weight_decay=0.1,
        exclude_from_weight_decay=["bias"],
        gradient_accumulation_steps=5,
        use_ema=True,
        ema_momentum=0.5,
    )
    model.compile(optimizer, "mse")
    return model


def _fit(model, batches):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * batches, 5)).astype("float32")
    model.fit(x, x[:, :1], batch_size=8, shuffle=False, verbose=0)


def test_saved_in_the_middle_of_an_accumulation_on_two_replicas(
    mirrored, tmp_path
):
    """Saved is the sum over replicas, and loaded it is that again."""
    with mirrored.scope():
        model = _model()
    _fit(model, 12)  # two updates and two micro-batches
    path = tmp_path / "model.keras"
    model.save(path)
    with mirrored.scope():
        loaded = keras.saving.load_model(path)
    alone = keras.saving.load_model(path)
    weights = model.get_weights()
    for each in (model, loaded, alone):
        _fit(each, 4)
    assert np.abs(model.get_weights()[0] - weights[0]).max() > 1e-3
    assert int(model.optimizer.iterations.numpy()) == 3
    for other in (loaded, alone):
        assert int(other.optimizer.iterations.numpy()) == 3
        for a, b in zip(other.get_weights(), model.get_weights()):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
