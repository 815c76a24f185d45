"""Hyperparameters that are set on an optimizer that trains already."""

import keras
import numpy as np
import pytest

import tf_lamb

RATE = 0.125
# Not adapted, and without a gradient: a step only decays.
ONLY_DECAY = dict(exclude_from_layer_adaptation=[""])
OPTIMIZERS = {
    "LAMB": ("LAMB", {}),
    "LARS": ("LARS", {"momentum": 0.0}),
    "uncompiled": ("LAMB", {"jit_compile": False}),
}


def _model(name, arguments, **more):
    optimizer = getattr(tf_lamb, name)(RATE, **ONLY_DECAY, **arguments, **more)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, use_bias=False)]
    )
    model.compile(optimizer, "mse")
    return model


def _fit(model, callbacks=()):
    """Two steps without a gradient; by what each weight was multiplied."""
    before = model.get_weights()[0]
    model.fit(
        np.zeros((8, 4), "float32"),
        np.zeros((8, 3), "float32"),
        batch_size=4,
        verbose=0,
        callbacks=list(callbacks),
    )
    return model.get_weights()[0] / before


class _Decays(keras.callbacks.Callback):
    """Sets the weight decay of each batch."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.weight_decay = self.values[batch]


@pytest.mark.parametrize("name, arguments", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_weight_decay_that_is_set_takes_effect(name, arguments):
    model = _model(name, arguments, weight_decay=0.5)
    np.testing.assert_allclose(_fit(model), (1 - RATE * 0.5) ** 2, rtol=1e-5)
    if keras.config.backend() == "jax":
        with pytest.raises(AttributeError, match="weight_decay: it stays 0.5"):
            model.optimizer.weight_decay = 0.25
        return
    model.optimizer.weight_decay = 0.25
    np.testing.assert_allclose(_fit(model), (1 - RATE * 0.25) ** 2, rtol=1e-5)
    assert model.optimizer.get_config()["weight_decay"] == 0.25
    expected = (1 - RATE * 0.5) * (1 - RATE * 0.125)
    factors = _fit(model, [_Decays([0.5, 0.125])])
    np.testing.assert_allclose(factors, expected, rtol=1e-5)
    with pytest.raises(
        ValueError, match="weight_decay: expected a number >= 0"
    ):
        model.optimizer.weight_decay = -1


@pytest.mark.parametrize("name, arguments", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_other_hyperparameters_are_fixed_once_built(name, arguments):
    model = _model(name, arguments, clipnorm=1.0)
    optimizer = model.optimizer
    optimizer.epsilon = 0.25  # not yet
    optimizer.build(model.trainable_variables)
    optimizer.epsilon = 0.25
    config = optimizer.get_config()
    settable = {"name", "learning_rate", "weight_decay", "jit_compile"}
    fixed = {n for n in config if not n.startswith("exclude")} - settable
    assert {"epsilon", "norm", "clipnorm", "ema_momentum"} <= fixed
    for argument in fixed:
        with pytest.raises(AttributeError, match=f"^{argument}: it stays") as e:
            setattr(optimizer, argument, "another")
        assert "\n" not in str(e.value)
    assert optimizer.get_config() == config
