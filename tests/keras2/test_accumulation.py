"""Gradient accumulation, which Keras 2 has not, on one and two replicas."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.graphs import assert_only_adds
from tests.keras2 import problems
from tests.keras2.problems import fit, make_model
from tests.keras3.problems import distance, gradients, initial_values
from tf_lamb import keras2, tf_accumulation

keras = keras2.keras


@pytest.fixture(params=[1, 2], ids=["one", "two"])
def strategy(request, mirrored):
    return mirrored if request.param == 2 else tf.distribute.get_strategy()


def _optimizer():
    return keras2.LAMB(
        keras2.Rewarmup(
            [
                keras2.WarmupPolynomial(0.05, 8, 2),
                keras2.WarmupPolynomial(0.02, 30, 2),
            ],
            [8, 30],
        ),
        weight_decay=0.1,
        exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=[],
        gradient_accumulation_steps=3,
        use_ema=True,
    )


def test_save_and_load_go_on_with_the_same_weights(strategy, tmp_path):
    """2 x 4 batches: saved in the middle of an accumulation."""
    with strategy.scope():
        whole, half = make_model(_optimizer()), make_model(_optimizer())
    fit(whole, 5)
    _fit_without_averages(half, 2)
    half.save(tmp_path / "model.keras")
    with strategy.scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras2.LAMB
    assert loaded.optimizer.get_config() == half.optimizer.get_config()
    _fit_without_averages(loaded, 3)
    loaded.optimizer.finalize_variable_values(loaded.trainable_variables)
    for a, b in zip(loaded.get_weights(), whole.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def _fit_without_averages(model, epochs):
    """`fit`, but its end does not write the averages into the weights."""
    with mock.patch.object(model.optimizer, "finalize_variable_values"):
        fit(model, epochs)


def test_checkpoint_goes_on_in_the_middle_of_an_accumulation(
    strategy, tmp_path
):
    def make():
        with strategy.scope():
            model = make_model(keras2.LAMB(0.05, gradient_accumulation_steps=3))
            model.optimizer.build(model.trainable_variables)
        return model, tf.train.Checkpoint(
            model=model, optimizer=model.optimizer
        )

    whole, _ = make()
    half, checkpoint = make()
    fit(whole), fit(half)
    path = checkpoint.save(str(tmp_path / "half"))
    resumed, checkpoint = make()
    checkpoint.restore(path).assert_existing_objects_matched()
    fit(whole), fit(resumed)
    # Two replicas get back the halves of their sum, not their own parts.
    exact = strategy.num_replicas_in_sync == 1
    for a, b in zip(resumed.get_weights(), whole.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if exact else 1e-6)


def test_accumulating_steps_only_add(strategy):
    """They touch no moment, call no kernel and wait for no other replica."""
    with strategy.scope():
        model = make_model(
            keras2.LAMB(0.05, gradient_accumulation_steps=2, use_ema=True)
        )
        model.optimizer.build(model.trainable_variables)
    variables = model.trainable_variables

    @tf.function
    def step():
        def replica():
            grads = [tf.ones(v.shape) for v in variables]
            model.optimizer.apply_gradients(zip(grads, variables))

        strategy.run(replica)

    graph = step.get_concrete_function().graph
    assert_only_adds(graph, strategy.num_replicas_in_sync * len(variables))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_by_a_condition_below_replicas(monkeypatch, jit_compile):
    """The branch of TPUStrategy, and of GPUs where XLA has collectives."""
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    asked = []
    monkeypatch.setattr(
        tf_accumulation,
        "_conditions_below_replicas",
        lambda strategy: asked.append(strategy) or True,
    )
    k = 3
    arguments = dict(weight_decay=0.1, global_clipnorm=0.5, use_ema=True)
    with strategy.scope():
        accumulated = keras2.LAMB(
            0.1, gradient_accumulation_steps=k, **arguments
        )
        variables = problems.make_variables(initial_values())
        accumulated.build(variables)

    @tf.function(jit_compile=jit_compile)
    def step(*grads):
        strategy.run(
            lambda *grads: accumulated.apply_gradients(zip(grads, variables)),
            args=grads,
        )

    whole = keras2.LAMB(0.1, **arguments)
    expected = problems.make_variables(initial_values())
    names = [v.name.split(":")[0] for v in variables]
    for update in range(3):
        parts = [gradients(k * update + i) for i in range(k)]
        for part in parts:
            _assert_close(variables, expected)
            step(*(tf.constant(part[n]) for n in names))
        means = [np.mean([part[n] for part in parts], 0) for n in names]
        whole.apply_gradients(zip(map(tf.constant, means), expected))
    _assert_close(variables, expected)
    moved = distance(problems.values_of(variables), initial_values())
    assert asked and moved > 0.01
    assert not any(total.numpy().any() for total in accumulated._sums)


def _assert_close(variables, expected):
    got, expected = map(problems.values_of, (variables, expected))
    assert distance(got, expected) < 1e-6


def test_a_fit_of_too_few_batches_says_that_nothing_was_updated():
    model = make_model(keras2.LAMB(0.1, gradient_accumulation_steps=8))
    before = model.get_weights()
    with pytest.warns(UserWarning, match="no weight was updated.*steps=8"):
        problems.fit(model)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    problems.fit(model)
    assert np.abs(model.get_weights()[0] - before[0]).max() > 0
