"""Batch norm, patches and blocks: values, gradients, second derivatives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.vision.resnet import blocks, layers
from tests.official_models.nlp.transformer.test_layers import hvp_error
from tests.official_models.vision.resnet.test_forward import randomise


def pair_of_norms(shape):
    config = layers.ResNetConfig(norm_momentum=0.8, norm_epsilon=1e-3)
    ours = layers.BatchNorm(config, name="norm")
    stock = keras.layers.BatchNormalization(
        momentum=0.8, epsilon=1e-3, name="norm"
    )
    for layer in (ours, stock):
        layer.build(shape)
        randomise(layer)
    return ours, stock


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_keras(training):
    rng = np.random.default_rng(0)
    shape = (5, 3, 4, 6)
    x = tf.constant(rng.normal(2.0, 3.0, shape), tf.float32)
    weight = rng.normal(size=shape)
    results = []
    for layer in pair_of_norms(shape):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * weight)
        sources = [x, layer.gamma.value, layer.beta.value]
        gradients = tape.gradient(loss, sources)
        statistics = [layer.moving_mean.value, layer.moving_variance.value]
        results.append([y, *gradients, *statistics])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def batch_norm_hvp_error(layer) -> float:
    rng = np.random.default_rng(1)
    shape = (4, 3, 2, 5)
    x = keras.Variable(rng.normal(size=shape), dtype="float64")
    target = rng.normal(size=shape)
    layer.build(shape)

    def loss():
        y = layer(x, training=True)
        return tf.reduce_sum(tf.square(y - target) * target)

    return hvp_error(loss, [x, *layer.trainable_variables])


def test_second_derivatives():
    ours = layers.BatchNorm(layers.ResNetConfig(), dtype="float64")
    assert batch_norm_hvp_error(ours) < 1e-7


def batch_norm_hvp(dtype):
    """Hessian of a loss in (x, gamma, beta) times a fixed direction."""
    rng = np.random.default_rng(1)
    shape = (4, 3, 2, 5)
    layer = layers.BatchNorm(layers.ResNetConfig(), dtype=dtype)
    layer.build(shape)
    x = keras.Variable(rng.normal(size=shape), dtype=dtype)
    target = tf.constant(rng.normal(size=shape), dtype)
    places = [v.value for v in (x, layer.gamma, layer.beta)]
    along = [tf.constant(rng.normal(size=v.shape), dtype) for v in places]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = layer(x.value, training=True)
            loss = tf.reduce_sum(tf.square(y - target) * target)
        gradient = inner.gradient(loss, places)
        product = sum(tf.reduce_sum(g * d) for g, d in zip(gradient, along))
    return outer.gradient(product, places)


def test_second_derivatives_of_the_fused_operation():
    """float32 takes it, float64 the equation of the test above."""
    for a, b in zip(batch_norm_hvp("float32"), batch_norm_hvp("float64")):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)


def test_patches_are_squares_of_pixels():
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    y = np.asarray(layers.Patches(2)(x))
    assert y.shape == (2, 2, 3, 12)
    for i in range(2):
        for j in range(3):
            square = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            np.testing.assert_array_equal(y[:, i, j], square.reshape(2, 12))


def test_second_derivatives_of_the_stock_layer_are_wrong():
    """The reason for our own, and the proof that the test above can fail."""
    stock = keras.layers.BatchNormalization(dtype="float64")
    assert batch_norm_hvp_error(stock) > 0.01


def test_synchronized_statistics_are_those_of_the_whole_batch(mirrored):
    x = np.random.default_rng(0).normal(1.0, 2.0, (6, 2, 2, 3))
    x = x.astype("float32") * np.arange(1, 7)[:, None, None, None]
    alone = layers.BatchNorm(layers.ResNetConfig())
    expected = alone(x, training=True)
    outputs = {}
    for synchronized in (True, False):
        with mirrored.scope():
            config = layers.ResNetConfig(synchronized=synchronized)
            layer = layers.BatchNorm(config)
            layer.build(x.shape)
        parts = mirrored.experimental_distribute_values_from_function(
            lambda c: tf.constant(np.split(x, 2)[c.replica_id_in_sync_group])
        )

        @tf.function
        def step(part, layer=layer):
            return mirrored.run(layer, (part,), {"training": True})

        result = mirrored.experimental_local_results(step(parts))
        outputs[synchronized] = np.concatenate(result)
        np.testing.assert_allclose(
            layer.moving_mean, alone.moving_mean, rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(outputs[True], expected, atol=1e-5)
    assert np.abs(outputs[False] - expected).max() > 0.1


def test_blocks_with_a_zero_gamma_are_identities():
    x = np.random.default_rng(0).uniform(size=(2, 5, 5, 6)).astype("float32")
    convs = [(6, 3, 1), (6, 3, 1)]
    for zero_gamma in (True, False):
        block = blocks.ResidualBlock(
            convs, "A", layers.ResNetConfig(zero_gamma=zero_gamma)
        )
        same = np.array_equal(block(x, training=True), x)
        assert same == zero_gamma


def test_compiled_block_equals_the_eager_one():
    block = blocks.ResidualBlock(
        [(4, 3, 2), (4, 3, 1)], "B", layers.ResNetConfig(zero_gamma=False)
    )
    x = np.random.default_rng(0).normal(size=(3, 5, 5, 2)).astype("float32")
    expected = block(x, training=True)
    compiled = tf.function(block.__call__, jit_compile=True)
    np.testing.assert_allclose(compiled(x, training=True), expected, atol=1e-5)
