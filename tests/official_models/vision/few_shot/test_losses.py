"""Losses of few-shot episodes: identities, and a double loop in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from official_models.vision.few_shot import losses

E, W, S, Q, D = 2, 3, 2, 4, 5


@pytest.fixture
def features():
    return np.random.default_rng(3).normal(size=(E, W, S + Q, D)).astype("f4")


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


def distances_by_loop(features, shots):
    found = np.zeros((E, W * Q, W))
    for e in range(E):
        for i in range(W * Q):
            query = features[e, i // Q, shots + i % Q]
            for k in range(W):
                prototype = features[e, k, :shots].mean(axis=0)
                found[e, i, k] = ((query - prototype) ** 2).sum()
    return found


def margin_by_loop(distances, margin):
    total = np.zeros(E)
    for e in range(E):
        for i in range(W * Q):
            for k in range(W):
                if k != i // Q:
                    own = distances[e, i, i // Q]
                    total[e] += max(margin + own - distances[e, i, k], 0)
    return total / (W * Q * (W - 1))


def test_distances_are_those_to_the_mean_of_the_support(features):
    found = to_numpy(losses.query_distances(ops.array(features), S))
    expected = distances_by_loop(features.astype("f8"), S)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_of_one_shot_the_support_image_is_the_prototype(features):
    found = to_numpy(losses.query_distances(ops.array(features[:, :, :2]), 1))
    support, query = features[:, :, 0], features[:, :, 1]
    expected = ((query[:, :, None] - support[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.7, 10.0, 1e4])
def test_the_margin_is_the_double_loop(features, margin):
    distances = distances_by_loop(features.astype("f8"), S)
    found = losses.large_margin(ops.array(distances.astype("f4")), margin)
    expected = margin_by_loop(distances, margin)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


def term(features, margin, unit="absolute"):
    distances = losses.query_distances(ops.array(features), S)
    return to_numpy(losses.large_margin(distances, margin, unit))


def test_scaled_features_scale_the_term(features):
    """L(a f, a^2 m) = a^2 L(f, m); in units of the distances, L(a f) = L(f)."""
    found = term(3 * features, 9 * 0.7)
    np.testing.assert_allclose(found, 9 * term(features, 0.7), rtol=1e-5)
    by_distance = term(features, 0.5, "distance")
    np.testing.assert_allclose(
        term(3 * features, 0.5, "distance"), by_distance, rtol=1e-5
    )
    distances = distances_by_loop(features.astype("f8"), S)
    others = 1 - np.repeat(np.eye(W), Q, axis=0)
    means = (distances * others).sum((1, 2)) / (W * Q * (W - 1))
    np.testing.assert_allclose(by_distance, term_of(distances, means), 1e-5)


def term_of(distances, means):
    return margin_by_loop(distances / means[:, None, None], 0.5)


def test_a_rotation_of_the_features_changes_nothing(features):
    rotation, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(D, D)))
    turned = (features @ rotation).astype("f4")
    np.testing.assert_allclose(term(turned, 2.0), term(features, 2.0), 1e-4)


def output(features):
    distances = losses.query_distances(ops.array(features), S)
    return ops.concatenate([-distances, distances], axis=-1)


def cross_entropy_by_loop(features):
    found = np.zeros(E)
    for e, rows in enumerate(distances_by_loop(features.astype("f8"), S)):
        for i, row in enumerate(rows):
            p = np.exp(-row - (-row).max())
            found[e] -= np.log(p[i // Q] / p.sum()) / (W * Q)
    return found


def test_without_weight_it_is_the_prototypical_network_to_the_bit(features):
    y = output(features)
    plain = to_numpy(losses.cross_entropy(y[..., :W]))
    np.testing.assert_allclose(plain, cross_entropy_by_loop(features), 1e-5)
    found = losses.EpisodeLoss(0.0, margin=5.0).call(None, y)
    np.testing.assert_array_equal(to_numpy(found), plain)
    with_term = to_numpy(losses.EpisodeLoss(2.0, margin=5.0).call(None, y))
    expected = plain + 2 * term(features, 5.0)
    np.testing.assert_allclose(with_term, expected, rtol=1e-5)


def gradient(loss, features):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(loss.call(None, output(x)))
        return tape.gradient(value, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(
            jax.grad(lambda x: loss.call(None, output(x)).sum())(features)
        )
    import torch

    x = torch.tensor(features, requires_grad=True)
    loss.call(None, output(x)).sum().backward()
    return x.grad.numpy()


def test_inactive_hinges_leave_the_gradient_of_the_cross_entropy(features):
    # Classes far from each other: every hinge of a small margin is 0.
    far = features + 30 * np.arange(W, dtype="f4")[:, None, None]
    plain = gradient(losses.EpisodeLoss(0.0), far)
    inactive = losses.EpisodeLoss(1.0, margin=1.0)
    np.testing.assert_array_equal(gradient(inactive, far), plain)
    active = gradient(losses.EpisodeLoss(1.0, margin=1e4), far)
    assert np.abs(active - plain).max() > 1


def test_accuracy_counts_the_queries_nearest_to_their_own_class():
    logits = np.zeros((2, W * Q, W), "f4")
    logits[0, :, 1] = 1  # all of the first episode are called class 1
    labels = np.repeat(np.arange(W), Q)
    logits[1, np.arange(W * Q), labels] = 1
    found = to_numpy(losses.accuracy(ops.array(logits)))
    np.testing.assert_allclose(found, [1 / W, 1], rtol=1e-6)
    metric = losses.EpisodeAccuracy()
    metric.update_state(None, np.concatenate([logits, logits], axis=-1))
    np.testing.assert_allclose(float(metric.result()), (1 + 1 / W) / 2, 1e-6)


def test_the_loss_is_saved_with_its_arguments():
    loss = losses.EpisodeLoss(2.0, 0.5, "distance")
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert (again.weight, again.margin, again.margin_unit) == (
        2.0,
        0.5,
        "distance",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "weight"),
        ({"margin": float("nan")}, "margin"),
        ({"margin_unit": "metres"}, "margin_unit"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        losses.EpisodeLoss(**arguments)
