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


def test_nonfinite_gradient_of_one_replica_skips_on_all(strategy):
    """Row 30 is in the second batch's part of the second replica."""
    alone = _fit(tf.distribute.get_strategy(), "LAMB", {}, bad_row=30)
    together = _fit(strategy, "LAMB", {}, bad_row=30)
    assert alone.optimizer.skipped_steps == 3
    assert together.optimizer.skipped_steps == 3
    for a, b in zip(alone.get_weights(), together.get_weights()):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


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
