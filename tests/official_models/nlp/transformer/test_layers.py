"""The layers of a Transformer: GELU, LayerNorm, second derivatives."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from official_models.nlp.bert.model import bert_pretrainer
from official_models.nlp.transformer import layers
from official_models.nlp.transformer.losses import SparseCrossEntropy
from tests.official_models.nlp.bert.small_bert import config_of


def randomise(model: keras.Model, seed: int = 0, scale: float = 0.3) -> None:
    """Draws every trainable variable anew, so that none is 0 or 1."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        centre = 1.0 if v.path.endswith("gamma") else 0.0
        v.assign(centre + scale * rng.normal(size=v.shape))


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_gelu_against_scipy(gelu):
    x = np.linspace(-6.0, 6.0, 101)
    if gelu == "erf":
        expected = x * scipy.special.ndtr(x)
    else:
        z = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)
        expected = 0.5 * x * (1.0 + np.tanh(z))
    actual = layers.gelu(tf.constant(x, tf.float64), gelu)
    # TensorFlow keeps the constants of its GELU in float32.
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-12)


def test_layer_norm_against_numpy():
    layer = layers.LayerNorm(config_of(), dtype="float64")
    layer.build()
    randomise(layer)
    x = np.random.default_rng(1).normal(3.0, 2.0, (5, 7, 32))
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    expected = expected * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)


def hvp_error(loss, variables) -> float:
    """Relative error of H v against central differences of the gradient."""
    rng = np.random.default_rng(0)
    direction = [rng.normal(size=v.shape) for v in variables]

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch([v.value for v in variables])
            value = loss()
        return [
            tf.convert_to_tensor(g)
            for g in tape.gradient(value, [v.value for v in variables])
        ]

    with tf.GradientTape() as tape:
        product = tf.add_n(
            [tf.reduce_sum(g * d) for g, d in zip(gradient(), direction)]
        )
    actual = tape.gradient(
        product,
        [v.value for v in variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    start = [v.numpy() for v in variables]
    sides = []
    for epsilon in (1e-5, -1e-5):
        for v, s, d in zip(variables, start, direction):
            v.assign(s + epsilon * d)
        sides.append(gradient())
    expected = np.concatenate([np.ravel(a - b) / 2e-5 for a, b in zip(*sides)])
    actual = np.concatenate([np.ravel(tf.convert_to_tensor(a)) for a in actual])
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def layer_norm_hvp_error(layer) -> float:
    """The error through a layer norm of size 32, in x, gamma and beta."""
    rng = np.random.default_rng(1)
    x = keras.Variable(rng.normal(size=(3, 32)), dtype="float64")
    target = rng.normal(size=(3, 32))
    return hvp_error(
        lambda: tf.reduce_sum(tf.square(layer(x) - target) * target),
        [x, *layer.trainable_variables],
    )


def test_hvp_through_layer_norm():
    ours = layers.LayerNorm(config_of(), dtype="float64")
    ours.build()
    assert layer_norm_hvp_error(ours) < 1e-7


def test_hvp_through_the_stock_layer_norm_is_wrong():
    """The reason for our own, and the proof that the test above can fail."""
    stock = keras.layers.LayerNormalization(epsilon=1e-12, dtype="float64")
    stock.build((3, 32))
    assert layer_norm_hvp_error(stock) > 0.01


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_hvp_through_the_pretrainer(gelu):
    model = bert_pretrainer(
        config_of(hidden_size=8, intermediate_size=16, gelu=gelu),
        dtype="float64",
    )
    randomise(model)
    rng = np.random.default_rng(1)
    x = {
        "input_ids": rng.integers(0, 60, (3, 9)),
        "input_mask": np.arange(9) < np.array([[9], [7], [5]]),
        "segment_ids": rng.integers(0, 2, (3, 9)),
        "masked_lm_positions": rng.integers(0, 5, (3, 2)),
    }
    x = {name: array.astype("int32") for name, array in x.items()}
    labels = {
        "masked_lm": rng.integers(0, 60, (3, 2)),
        "next_sentence": rng.integers(0, 2, 3),
    }
    cross_entropy = SparseCrossEntropy(dtype="float64")

    def loss():
        outputs = model(x)
        return tf.add_n([cross_entropy(labels[k], outputs[k]) for k in labels])

    assert hvp_error(loss, model.trainable_variables) < 1e-6
