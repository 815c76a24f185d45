"""A layer that is frozen after the optimizer was built, on every backend."""

import keras
import numpy as np
import pytest

import tf_lamb

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")


def _model():
    layers = [keras.layers.Dense(n, name=f"dense_{n}") for n in (4, 2, 1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.set_weights(
        [np.random.default_rng(1).normal(size=w.shape) for w in model.weights]
    )
    return model


def _fit(model, optimizer):
    model.compile(optimizer, "mse")
    model.fit(X, X[:, :1], batch_size=4, verbose=0, shuffle=False)


def _handed_over(old, model):
    """An optimizer of what is trainable, with the state of another one."""
    state = {}
    old.save_own_variables(state)
    new = type(old).from_config(old.get_config())
    new.build(model.trainable_variables)
    new.load_own_variables(state)
    return new


@pytest.mark.filterwarnings("ignore:.*saved state:UserWarning")
@pytest.mark.filterwarnings("ignore:.*arrays:UserWarning")
@pytest.mark.parametrize("kind", [tf_lamb.LAMB, tf_lamb.LARS])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_clipnorm": 0.5},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
        {"use_ema": True, "gradient_accumulation_steps": 2},
    ],
)
def test_the_others_train_on_as_with_an_optimizer_of_their_own(kind, options):
    """The first and the last layer go on; the second one stays."""
    results = []
    for hand_over in (False, True):
        model, optimizer = _model(), kind(0.05, **options)
        _fit(model, optimizer)
        model.layers[1].trainable = False
        before = model.layers[1].get_weights()
        if hand_over:
            optimizer = _handed_over(optimizer, model)
        _fit(model, optimizer)
        for new, old in zip(model.layers[1].get_weights(), before):
            np.testing.assert_array_equal(new, old)
        results.append(model.get_weights())
        updates = 8 // options.get("gradient_accumulation_steps", 1)
        assert int(optimizer.iterations) == updates
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_in_train_on_batch_and_with_a_loss_scaler():
    for wrap in (lambda o: o, keras.optimizers.LossScaleOptimizer):
        model, optimizer = _model(), wrap(tf_lamb.LAMB(0.05))
        model.compile(optimizer, "mse")
        model.train_on_batch(X, X[:, :1])
        model.layers[0].trainable = False
        model.compile(optimizer, "mse")
        before = model.get_weights()
        model.train_on_batch(X, X[:, :1])
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(model.get_weights(), before, strict=True)
        ]
        assert moved == [False, False, True, True, True, True]


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="of JAX's stateless step"
)
def test_what_is_said_in_a_fit_that_cannot_go_on():
    model, optimizer = _model(), tf_lamb.LAMB(0.05)
    model.layers[0].trainable = False
    _fit(model, optimizer)
    model.layers[0].trainable = True
    message = r"with 4 variables, of which 4 are trainable now, got 6\. .*load"
    with pytest.raises(ValueError, match=message):
        _fit(model, optimizer)
