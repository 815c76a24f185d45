"""The loss and its gradient, against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.transformer.losses import SparseCrossEntropy


def test_loss_without_weight_is_zero_and_has_no_gradient():
    logits = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 5)))
    logits = tf.cast(logits, tf.float32)
    labels = np.zeros((2, 3), "int32")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SparseCrossEntropy()(labels, logits, np.zeros((2, 3), "float32"))
    assert loss.numpy() == 0.0
    assert not np.any(tape.gradient(loss, logits))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_loss_equals_the_stock_loss_and_its_gradient(scale):
    rng = np.random.default_rng(0)
    logits = tf.constant(scale * rng.normal(size=(4, 3, 50)), tf.float32)
    labels = rng.integers(0, 50, (4, 3))
    weights = rng.random((4, 3), "float32")
    results = []
    for loss in (
        SparseCrossEntropy(),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, logits, weights)
        results.append((value, tape.gradient(value, logits)))
    (ours, our_gradient), (stock, stock_gradient) = results
    np.testing.assert_allclose(ours, stock, rtol=1e-6)
    np.testing.assert_allclose(our_gradient, stock_gradient, atol=1e-7)
