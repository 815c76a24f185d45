"""Two replicas on one machine give what one device gives on the whole batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb


@pytest.fixture(scope="module")
def strategy():
    cpus = tf.config.list_logical_devices("CPU")
    assert len(cpus) >= 2, "tests/conftest.py makes two logical CPUs"
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )


def _fit(strategy, name, arguments, bad_row=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    ids = rng.integers(0, 9, size=(64, 2)).astype("int32")
    y = rng.normal(size=(64, 1)).astype("float32")
    if bad_row is not None:
        x[bad_row] = np.nan
    data = tf.data.Dataset.from_tensor_slices(((x, ids), y)).batch(16)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,)), keras.Input((2,), dtype="int32")
        words = keras.layers.Embedding(9, 4, name="embedding")(inputs[1])
        h = keras.layers.Concatenate()(
            [inputs[0], keras.layers.Flatten()(words)]
        )
        h = keras.layers.Dense(8, activation="tanh", name="hidden")(h)
        model = keras.Model(inputs, keras.layers.Dense(1, name="out")(h))
        optimizer = getattr(tf_lamb, name)(
            0.05,
            weight_decay=0.1,
            exclude_from_weight_decay=["bias"],
            **arguments,
        )
        model.compile(optimizer, "mse", jit_compile=False)
    model.fit(data, epochs=3, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        # Norms of the sum over replicas, not of each replica's part.
        {"clipnorm": 0.05},
        {"global_clipnorm": 0.05},
        {"clipvalue": 0.01},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        {"gradient_accumulation_steps": 2, "global_clipnorm": 0.05},
    ],
    ids=lambda arguments: "-".join(arguments) or "plain",
)
def test_mirrored_equals_one_device(strategy, name, arguments):
    alone = _fit(tf.distribute.get_strategy(), name, arguments)
    together = _fit(strategy, name, arguments)
    for a, b in zip(alone.get_weights(), together.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert together.optimizer.trust_ratios == pytest.approx(
        alone.optimizer.trust_ratios, rel=1e-4
    )


def _assert_replicas_agree(strategy, model):
    """Every weight and slot has one value on all devices."""
    for variable in [*model.weights, *model.optimizer.variables]:
        native = getattr(variable, "value", variable)
        if callable(native):  # tf_keras' variables are TensorFlow's
            native = variable
        first, *others = strategy.experimental_local_results(native)
        for other in others:
            np.testing.assert_array_equal(first, other, str(variable))


@pytest.mark.parametrize("bad_row", [17, 30], ids=["first", "second"])
def test_nonfinite_gradient_of_one_replica_skips_on_all(strategy, bad_row):
    """In the second batch's part of the first or the second replica."""
    alone = _fit(tf.distribute.get_strategy(), "LAMB", {}, bad_row)
    together = _fit(strategy, "LAMB", {}, bad_row)
    assert alone.optimizer.skipped_steps == 3
    assert together.optimizer.skipped_steps == 3
    for a, b in zip(alone.get_weights(), together.get_weights()):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    _assert_replicas_agree(strategy, together)


def test_an_overflow_on_the_second_replica_of_a_multi_optimizer(strategy):
    """Its loss scaler finds LAMB inside, so that replicas agree."""
    k = tf_lamb.keras3.keras
    x = np.ones((4, 2, 8, 6), "float32")  # steps, replicas
    x[:, 1] *= 1e4  # squared, above float16
    with strategy.scope():
        inputs = k.Input((6,))
        h = k.layers.Dense(8, dtype="mixed_float16")(inputs)
        model = k.Model(inputs, k.layers.Dense(1, dtype="mixed_float16")(h))
        several = k.optimizers.MultiOptimizer(
            k.optimizers.OptimizerMap(tf_lamb.LAMB(0.02))
        )
        scaler = k.optimizers.LossScaleOptimizer(several, initial_scale=2.0**8)
        model.compile(scaler, "mse", jit_compile=False)
    y = np.ones((4 * 16, 1), "float32")
    model.fit(x.reshape(-1, 6), y, batch_size=16, shuffle=False, verbose=0)
    assert scaler.dynamic_scale.numpy() == 2.0**4
    assert tf_lamb.find_optimizer(model).iterations.numpy() == 0
    _assert_replicas_agree(strategy, model)


@pytest.mark.parametrize("large_half", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("module", ["keras3", "keras2"])
def test_an_overflow_on_one_replica_lowers_the_scale(
    strategy, module, large_half
):
    """Keras 3's loss scaler by itself looks at the first replica only."""
    module = getattr(tf_lamb, module)
    k = module.keras
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2, 8, 6)).astype("float32")  # steps, replicas
    x[:, large_half] *= 30.0  # gradients by 900
    y = rng.normal(size=(24 * 16, 1)).astype("float32")
    with strategy.scope():
        inputs = k.Input((6,))
        h = k.layers.Dense(8, dtype="mixed_float16")(inputs)
        model = k.Model(inputs, k.layers.Dense(1, dtype="mixed_float16")(h))
        optimizer = module.LAMB(0.02)
        scaler = k.mixed_precision.LossScaleOptimizer(
            optimizer, initial_scale=2.0**20
        )
        model.compile(scaler, "mse", jit_compile=False)
    before = model.get_weights()
    model.fit(x.reshape(-1, 6), y, batch_size=16, shuffle=False, verbose=0)
    if module is tf_lamb.keras3:
        scale = scaler.dynamic_scale.numpy()
        updates = optimizer.iterations.numpy()
    else:  # which counts the steps that its scaler skips as well
        scale = scaler.loss_scale.numpy()
        updates = 24 - int(np.log2(2.0**20 / scale))
        assert optimizer.iterations.numpy() == 24
    assert 8 <= np.log2(2.0**20 / scale) == 24 - updates <= 20
    assert optimizer.skipped_steps == 0, "the scaler should have been first"
    for a, b in zip(before, model.get_weights()):
        assert np.isfinite(b).all()
        assert np.abs(a - b).max() > 1e-3
    _assert_replicas_agree(strategy, model)


@pytest.mark.parametrize("module", ["keras3", "keras2"])
def test_two_models_on_two_replicas_do_not_touch_each_other(strategy, module):
    """A compiled function must not hold on to the first model's variables."""
    module = getattr(tf_lamb, module)
    layers = keras.layers if module is tf_lamb.keras3 else module.keras.layers
    models = keras if module is tf_lamb.keras3 else module.keras
    x = np.ones((8, 3), "float32")
    with strategy.scope():
        pair = []
        for _ in range(2):
            models.utils.set_random_seed(0)
            model = models.Sequential([layers.Dense(2), layers.Dense(1)])
            model.build((None, 3))
            model.compile(module.LAMB(0.05), "mse")
            pair.append(model)
    one, two = pair
    before = two.get_weights()
    one.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
    for a, b in zip(two.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    two.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
    for a, b in zip(two.get_weights(), one.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one.get_weights()[0] - before[0]).max() > 1e-3
