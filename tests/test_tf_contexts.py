"""Optimizer and model of different `tf.distribute` scopes, on Keras 3."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")


def _model():
    layers = [keras.Input((3,)), keras.layers.Dense(1, name="out")]
    return keras.Sequential(layers, name="net")


def _fit(model, optimizer):
    model.compile(optimizer, "mean_squared_error")
    model.fit(X, X[:, :1], verbose=0)


@pytest.mark.parametrize("arguments", [{}, {"use_ema": True}], ids=["", "EMA"])
@pytest.mark.parametrize("one_device", [True, False])
def test_an_optimizer_made_outside_the_scope_is_refused(
    mirrored, arguments, one_device
):
    strategy = mirrored
    if one_device:
        strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    optimizer = tf_lamb.LAMB(0.1, **arguments)
    with strategy.scope():
        model = _model()
    message = "'net/out/kernel:0' was made in the scope of .*Strategy, but the"
    with pytest.raises(ValueError, match=message) as raised:
        _fit(model, optimizer)
    assert "\n" not in str(raised.value)
    with strategy.scope():
        optimizer = tf_lamb.LAMB(0.1, **arguments)
    _fit(model, optimizer)  # what the message says works


def test_a_model_made_outside_the_scope_is_refused(mirrored):
    with mirrored.scope():
        optimizer = tf_lamb.LAMB(0.1)
    with pytest.raises(ValueError, match="'net/out/kernel:0' was not; make"):
        _fit(_model(), optimizer)


def test_in_a_loop_of_ones_own_too(mirrored):
    optimizer = tf_lamb.LAMB(0.1)
    with mirrored.scope():
        variable = keras.Variable(np.ones(3, "float32"), name="weight")

    def step():
        optimizer.apply([tf.ones(3)], [variable])

    with pytest.raises(ValueError, match="'weight:0' was made in the scope of"):
        mirrored.run(step)


def test_state_that_waits_is_loaded_under_a_strategy(mirrored):
    def make(optimizer_of):
        keras.utils.set_random_seed(0)
        with mirrored.scope():
            model = _model()
            _fit(model, optimizer_of())
        return model

    old = make(
        lambda: tf_lamb.LAMB(0.1, gradient_accumulation_steps=2)
    ).optimizer
    state = {}
    old.save_own_variables(state)
    with mirrored.scope():
        new = tf_lamb.LAMB.from_config(old.get_config())
        new.load_own_variables(state)
        new.build(_model().trainable_variables)
    for a, b in zip(new.variables, old.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
