"""Optimizers around ours: loss scaling, several, averages swapped in.

Rows of `keras_table`.
"""

import numpy as np
import pytest

from tests.support_matrix.keras_front_end import behaviour

ONES = [1.0, 1.0]
INFINITE = [np.inf, 1.0]


def _scaler(front, optimizer, scale=8.0, growth_steps=2, **arguments):
    if front.is_keras_3:
        scaler = front.keras.optimizers.LossScaleOptimizer
        arguments["dynamic_growth_steps"] = growth_steps
        return scaler(optimizer, initial_scale=scale, **arguments)
    scaler = front.keras.mixed_precision.LossScaleOptimizer
    if growth_steps != 2:
        arguments["dynamic_growth_steps"] = growth_steps
    return scaler(optimizer, initial_scale=scale, **arguments)


def _scale(front, scaler):
    if front.is_keras_3:
        return float(scaler.scale_loss(1.0))
    return float(scaler.get_scaled_loss(front.tensor(1.0)))


def _step(front, scaler, v, grad):
    """One step of gradients of the scaled loss."""
    scaled = np.float32(grad) * np.float32(_scale(front, scaler))
    if front.is_keras_3:
        front.stateless_step(scaler, [front.tensor(scaled)], [v])
        return
    grads = scaler.get_unscaled_gradients([front.tensor(scaled)])
    scaler.apply_gradients(zip(grads, [v]))


@behaviour("`loss_scale_factor`")
def test_factor(front):
    optimizer, v = front.plain(loss_scale_factor=1024.0), front.variable(ONES)
    assert float(optimizer.scale_loss(front.tensor(1.0))) == 1024.0
    front.step(optimizer, ([1024.0, 512.0], v))
    front.close(v, [0.0, 0.5])


@behaviour("`LossScaleOptimizer`: a finite step")
def test_finite(front):
    scaler, v = _scaler(front, front.plain()), front.variable(ONES)
    scaler.build([v])
    _step(front, scaler, v, [1.0, 0.5])
    front.close(v, [0.0, 0.5])
    assert int(front.numpy(scaler.iterations)) == 1


@behaviour("`LossScaleOptimizer`: an infinite one lowers the scale")
def test_infinite(front):
    scaler, v = _scaler(front, front.plain()), front.variable(ONES)
    scaler.build([v])
    for scale in (8.0, 4.0):
        assert _scale(front, scaler) == scale
        _step(front, scaler, v, INFINITE)
        front.close(v, ONES)
    _step(front, scaler, v, [1.0, 0.5])
    front.close(v, [0.0, 0.5])


@behaviour("`LossScaleOptimizer`: finite ones raise it")
def test_growth(front):
    scaler = _scaler(front, front.plain(0.0), growth_steps=3)
    v = front.variable(ONES)
    scaler.build([v])
    for scale in (8.0, 8.0, 8.0, 16.0):
        assert _scale(front, scaler) == scale
        _step(front, scaler, v, ONES)


@behaviour("`LossScaleOptimizer`: config")
def test_scaler_config(front):
    inner = front.LAMB(0.1, weight_decay=0.1, exclude_from_weight_decay=["b"])
    scaler = _scaler(front, inner, 4.0)
    optimizers = front.keras.optimizers
    again = optimizers.deserialize(optimizers.serialize(scaler))
    assert type(again.inner_optimizer) is front.LAMB
    assert again.inner_optimizer.get_config() == inner.get_config()
    assert _scale(front, again) == 4.0


@behaviour("mixed float16 wraps it in `compile`")
def test_mixed_policy(front):
    policies = front.keras.mixed_precision
    policies.set_global_policy("mixed_float16")
    try:
        model = front.model(front.LAMB(0.05))
        before = model.get_weights()
        assert type(model.optimizer).__name__.startswith("LossScaleOptimizer")
        assert type(model.optimizer.inner_optimizer) is front.LAMB
        # Keras begins at a scale of 32,768.
        front.fit(model, epochs=2)
        after = model.get_weights()
        assert np.isfinite(after[0]).all()
        assert np.abs(after[0] - before[0]).max() > 1e-3
    finally:
        policies.set_global_policy("float32")


@behaviour("`SwapEMAWeights`")
def test_swap(front):
    """Evaluation is of the averages, and training goes on from the weights."""
    seen = {}

    class Look(front.keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen["test"] = self.model.get_weights()[0]

        def on_epoch_begin(self, epoch, logs=None):
            seen["epoch", epoch] = self.model.get_weights()[0]

        def on_train_batch_end(self, batch, logs=None):
            seen["batch"] = self.model.get_weights()[0]

    optimizer = front.plain(0.05, use_ema=True, ema_momentum=0.9)
    # On JAX, callbacks see the weights where steps are not compiled.
    model = front.model(optimizer, run_eagerly=True)
    x, y = np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32")
    swap = front.keras.callbacks.SwapEMAWeights(swap_on_epoch=False)
    front.fit(model, 2, callbacks=[swap, Look()], validation_data=(x, y))
    assert np.abs(seen["test"] - seen["batch"]).max() > 1e-4
    assert np.abs(seen["epoch", 0] - seen["epoch", 1]).max() > 1e-4


def _multi(front, default, **by_pattern):
    optimizers = front.keras.optimizers
    if not hasattr(optimizers, "MultiOptimizer"):
        pytest.skip(f"Keras {front.keras.__version__} has no MultiOptimizer")
    chosen = optimizers.OptimizerMap(default_optimizer=default)
    for pattern, optimizer in by_pattern.items():
        chosen[pattern] = optimizer
    return optimizers.MultiOptimizer(chosen)


@behaviour("`MultiOptimizer`: steps, config")
def test_multi(front):
    multi = _multi(
        front, front.keras.optimizers.SGD(0.25), one=front.plain(1.0)
    )
    one, two = front.variable(ONES, "one"), front.variable(ONES, "two")
    multi.build([one, two])
    front.stateless_step(multi, [front.tensor(ONES)] * 2, [one, two])
    front.close(one, [0.0, 0.0])
    front.close(two, [0.75, 0.75])
    optimizers = front.keras.optimizers
    again = optimizers.deserialize(optimizers.serialize(multi))
    again.build([one, two])
    assert type(again.optimizers[0]) is front.LARS
    assert again.optimizers[0].get_config() == (
        multi.optimizers[0].get_config()
    )


@behaviour("`MultiOptimizer`: two of ours, `get_state_tree`")
def test_two_of_ours(front):
    multi = _multi(front, front.LAMB(0.1), dense=front.LAMB(0.05))
    model = front.model(multi)
    front.fit(model)
    tree = model.get_state_tree()
    assert tree["optimizer_variables"]
