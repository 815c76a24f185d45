"""Masks that hold, on any backend; trainings that begin at a later step."""

import keras
import numpy as np
import pytest

import tf_lamb
from tf_lamb.diagnostics import masks, tickets
from tf_lamb.diagnostics.examples import Examples

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 6)).astype("float32")
Y = (X[:, :2].sum(1) > 0).astype("int32")


def network(inputs=6):
    layers = [
        keras.Input((inputs,)),
        keras.layers.Dense(4, activation="tanh"),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss


OPTIMIZERS = {
    "lamb": lambda: tf_lamb.LAMB(0.05, weight_decay=0.1),
    "adam": lambda: keras.optimizers.Adam(0.05, weight_decay=0.1),
    "momentum": lambda: keras.optimizers.SGD(0.3, momentum=0.9, clipnorm=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_masked_network_trains_as_the_smaller_one(name):
    """Weights of three inputs are pruned, or the network has not got them.

    Norms, trust ratios and clipping see no pruned weight, or they differ.
    """
    keras.utils.set_random_seed(0)
    model, loss = network()
    model.compile(OPTIMIZERS[name](), loss)
    mask = np.ones((6, 4), bool)
    mask[3:] = False
    start = model.get_weights()
    found = tickets.Trainer(model, 16, 8).train(
        start, {0: mask}, Examples((X, Y), 3)
    )
    small, _ = network(3)
    small.compile(OPTIMIZERS[name](), loss)
    expected = tickets.Trainer(small, 16, 8).train(
        [start[0][:3], *start[1:]], {}, Examples((X[:, :3], Y), 3)
    )
    assert not found[0][3:].any()
    for a, b in zip([found[0][:3], *found[1:]], expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    moments = [v for v in model.optimizer.variables if v.shape == (6, 4)]
    assert moments
    for moment in moments:
        assert not keras.ops.convert_to_numpy(moment)[3:].any()


def test_an_update_that_mixes_weights_moves_no_pruned_one():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,), dtype="int32"), keras.layers.Embedding(9, 4)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Muon(0.05, exclude_embeddings=False), loss)
    left = {
        i: RANDOM.random(tuple(model.trainable_variables[i].shape)) > 0.5
        for i in masks.prunable(model)
    }
    assert list(left) == [0, 1]
    ids = RANDOM.integers(0, 9, (64, 3)).astype("int32")
    start = model.get_weights()
    found = tickets.Trainer(model, 16, 4).train(start, left, Examples((ids, Y)))
    for i, mask in left.items():
        assert not found[i][~mask].any()
        assert abs(found[i] - start[i])[mask].max() > 1e-3


def test_the_smallest_that_are_left_are_pruned():
    weights = [np.array([[1.0, -4], [3, 0]]), np.array([[-9.0, 2, 5, 6]])]
    whole = {i: np.ones(w.shape, bool) for i, w in enumerate(weights)}
    by_layer = masks.by_magnitude(weights, whole, 0.5)
    assert by_layer[0].tolist() == [[False, True], [True, False]]
    assert by_layer[1].tolist() == [[True, False, False, True]]
    together = masks.by_magnitude(weights, whole, 0.5, "global")
    assert together[0].tolist() == [[False, True], [False, False]]
    assert together[1].tolist() == [[True, False, True, True]]
    again = masks.by_magnitude(weights, by_layer, 0.5)
    assert again[0].tolist() == [[False, True], [False, False]]
    assert masks.sparsity(by_layer) == 0.5 and masks.sparsity(again) == 0.75
    last = masks.by_magnitude(weights, again, 0.99)
    assert [int(m.sum()) for m in last.values()] == [1, 1]
    random = masks.shuffled(together, np.random.default_rng(1))
    assert [int(m.sum()) for m in random.values()] == [1, 3]
    assert any((random[i] != together[i]).any() for i in (0, 1))


def test_a_training_from_step_k_is_the_rest_of_the_whole_one():
    """The same batches, and the rate of their steps."""
    keras.utils.set_random_seed(0)
    model, loss = network()
    rate = keras.optimizers.schedules.PolynomialDecay(0.5, 9)
    model.compile(keras.optimizers.SGD(rate), loss)
    start = model.get_weights()
    trainer = tickets.Trainer(model, 16, 8)
    whole = trainer.train(start, {}, Examples((X, Y)))
    early = trainer.train(start, {}, Examples((X, Y)), last=3)
    steps = []
    rest = trainer.train(
        early, {}, Examples((X, Y)), first=3, progress=steps.append
    )
    assert steps == [4, 5, 6, 7, 8]
    for a, b in zip(rest, whole):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    optimizer = model.optimizer
    trainer.close()
    assert model.optimizer is not optimizer
    for a, b in zip(model.get_weights(), start):
        np.testing.assert_array_equal(a, b)


def test_new_weights_are_the_same_for_a_seed_only():
    model, _ = network()
    first, again = (tickets.initial_weights(model, 3) for _ in range(2))
    other = tickets.initial_weights(model, 4)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert all((first[i] != other[i]).all() for i in (0, 2))
    fixed = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="ones")]
    )
    with pytest.raises(ValueError, match="same weights for every seed"):
        tickets.initial_weights(fixed, 0)


def test_frozen_and_adapted_layers_keep_their_weights():
    normal = keras.layers.Normalization()
    normal.adapt(np.array([[99.0, 7.0], [101.0, 9.0]]))
    frozen = keras.layers.Dense(3, trainable=False)
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential(
        [keras.Input((2,)), normal, frozen, norm, keras.layers.Dense(2)]
    )
    norm.moving_mean.assign(np.ones(3))
    found = tickets.initial_weights(model, 0)
    for variable, value in zip(model.weights, found):
        is_same = np.array_equal(keras.ops.convert_to_numpy(variable), value)
        kept = any(variable is v for v in normal.weights + frozen.weights)
        assert is_same == kept or variable.path.endswith(
            ("bias", "beta", "gamma", "moving_variance")
        )
