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


def _step(optimizer):
    """The weights after one step, and what `describe` says."""
    values = {
        "kernel": np.linspace(1, 2, 6).reshape(2, 3),
        "bias": np.linspace(2, 3, 3),
    }
    variables = [keras.Variable(x, name=n) for n, x in values.items()]
    optimizer.build(variables)
    for grads in ([np.cos(x) for x in values.values()], values.values()):
        optimizer.apply(
            [keras.ops.array(g, "float32") for g in grads], variables
        )
    new = [keras.ops.convert_to_numpy(v) for v in variables]
    return new, optimizer.describe()


@pytest.mark.parametrize(
    "set_later",
    [
        {"groups": [tf_lamb.Group("kernel", learning_rate_multiplier=0.5)]},
        {"beta_1": 0.25},
        {"norm": "l1"},
        {"beta_1": 0.25, "groups": [tf_lamb.Group("bias", beta_2=0.5)]},
    ],
    ids=str,
)
def test_what_is_set_before_build_holds_in_groups_too(set_later):
    given = {"groups": [tf_lamb.Group("kernel", frozen=True)]}
    if "groups" not in set_later:
        given = {"groups": [tf_lamb.Group("kernel", adapt=True, epsilon=1e-3)]}
    later = tf_lamb.LAMB(RATE, **given)
    for name, value in set_later.items():
        setattr(later, name, value)
    (a, described), (b, expected) = map(
        _step, (later, tf_lamb.LAMB(RATE, **{**given, **set_later}))
    )
    assert described == expected
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "given, set_later, match",
    [
        ({}, {"grad_averaging": False, "nesterov": "nadam"}, "^nesterov: "),
        ({"clipnorm": 1.0}, {"clip_by_unit": 0.1}, "^clip_by_unit: "),
        ({"form": "albert"}, {"bias_correction": True}, "^bias_correction: "),
        ({"form": "lans"}, {"cautious": True}, "^cautious: "),
    ],
)
def test_what_the_constructor_refuses_cannot_be_set_one_by_one(
    given, set_later, match
):
    with pytest.raises(ValueError, match=match):
        tf_lamb.LAMB(**given, **set_later)
    optimizer = tf_lamb.LAMB(**given)
    for name, value in set_later.items():
        setattr(optimizer, name, value)
    with pytest.raises(ValueError, match=match):
        optimizer.build([keras.Variable(np.ones(3))])


def test_names_that_would_be_set_to_no_effect():
    optimizer = tf_lamb.LAMB(RATE)
    for name, value in (
        ("exclude_from_weight_decay", ["bias"]),
        ("exclude_from_layer_adaptation", ["bias"]),
        ("lr", 0.5),
        ("form", "nvlamb"),
    ):
        with pytest.raises(AttributeError, match=f"^{name}: it ") as caught:
            setattr(optimizer, name, value)
        assert "\n" not in str(caught.value)
    optimizer.form = "paper"
    with pytest.raises(ValueError, match="groups: expected a list"):
        optimizer.groups = tf_lamb.Group("")


@pytest.mark.parametrize("patterns", [None, ["kernel"]])
def test_the_method_takes_biases_and_norms(patterns):
    optimizer = tf_lamb.LAMB(RATE, exclude_from_weight_decay=patterns)
    optimizer.exclude_from_weight_decay(var_names="biases_and_norms")
    optimizer.build(
        [keras.Variable(np.ones((2, 2)), name=n) for n in ("kernel", "bias")]
        + [keras.Variable(np.ones((2, 2)), name="nodes")]
    )
    decays = [t.decay for t in optimizer.treatments.values()]
    assert decays == [patterns is None, False, True]
    again = tf_lamb.LAMB.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
