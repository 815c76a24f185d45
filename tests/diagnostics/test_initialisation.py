"""LSUV and Fixup: variances and scales, by NumPy."""

import keras
import numpy as np
import pytest

from tf_lamb import diagnostics
from tf_lamb.diagnostics.initialisation import fixup, lsuv

X = np.random.default_rng(0).normal(2, 3, size=(256, 6)).astype("float32")


def perceptron(**last):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(12, activation="relu"),
        keras.layers.Dense(12, activation="tanh"),
        keras.layers.Dense(3, **last),
    ]
    return keras.Sequential(layers)


def test_every_layer_has_variance_one():
    model = perceptron()
    done = diagnostics.lsuv(model, (X, np.zeros(256)))
    assert [one.layer for one in done] == [x.path for x in model.layers]
    first, _, second, _, third, _ = model.get_weights()
    inside = X @ first
    hidden = np.maximum(inside, 0) @ second
    outputs = np.tanh(hidden) @ third
    for one, found in zip(done, (inside, hidden, outputs)):
        assert found.var() == pytest.approx(1, abs=0.02)
        assert one.after == pytest.approx(found.var(), rel=1e-4)
    norm = np.linalg.norm(first, 2)
    assert done[0].before == pytest.approx((X @ first / norm).var(), rel=1e-4)
    assert done[0].rounds >= 1
    # Orthogonal, up to the scale.
    gram = second.T @ second
    np.testing.assert_allclose(gram / gram[0, 0], np.eye(12), atol=1e-5)
    assert model.layers[0].activation is keras.activations.relu


def test_convolutions_a_shared_layer_and_the_order_of_calls():
    keras.utils.set_random_seed(0)
    late = keras.layers.Conv2D(4, 3, activation="relu", padding="same")
    early = keras.layers.Conv2D(4, 3, activation="relu", padding="same")
    inputs = keras.Input((8, 8, 2))
    middle = early(inputs)
    outputs = keras.layers.Flatten()(late(late(middle)))
    model = keras.Model(inputs, keras.layers.Dense(2)(outputs))
    x = np.random.default_rng(1).normal(size=(32, 8, 8, 2)).astype("float32")
    done = lsuv(model, x)
    assert [one.layer for one in done] == [
        early.path,
        late.path,
        model.layers[-1].path,
    ]
    once = keras.ops.convert_to_numpy(
        keras.ops.conv(x, early.kernel, padding="same")
    )
    assert once.var() == pytest.approx(1, abs=0.02)
    twice = [np.maximum(once, 0)]
    for _ in range(2):
        found = keras.ops.conv(twice[-1], late.kernel, padding="same")
        twice.append(keras.ops.convert_to_numpy(found))
        twice[-1:] = [twice[-1], np.maximum(twice[-1], 0)]
    both = np.concatenate([twice[1].ravel(), twice[3].ravel()])
    assert both.var() == pytest.approx(1, abs=0.02)


def test_kernels_keep_their_direction_if_asked():
    model = perceptron()
    before = model.get_weights()[0]
    lsuv(model, X, orthogonal=False)
    share = model.get_weights()[0] / before
    np.testing.assert_allclose(share, share[0, 0], rtol=1e-5)


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(ValueError, match="variance 0"):
        lsuv(perceptron(), np.zeros((8, 6), "float32"))
    model = perceptron(bias_initializer=keras.initializers.RandomNormal(0, 9))
    with pytest.raises(ValueError, match="dense.*set its bias to 0"):
        lsuv(model, X)
    with pytest.raises(ValueError, match="tolerance"):
        lsuv(model, X, tolerance=0)
    flat = keras.Sequential([keras.Input((6,)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="trainable kernel"):
        lsuv(flat, X)


def residual(blocks=16, width=64):
    """Branches of three kernels each."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    x = keras.layers.Dense(width, name="stem")(x)
    branches = []
    for i in range(blocks):
        branches.append([f"block_{i}_{k}" for k in range(3)])
        y = x
        for name in branches[-1]:
            y = keras.layers.Dense(width, activation="relu", name=name)(y)
        x = keras.layers.Add()([x, y])
    outputs = keras.layers.Dense(2, name="head")(x)
    return keras.Model(inputs, outputs), branches


def test_fixup_by_its_formula():
    model, branches = residual()
    stem = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
    fixup(model, branches, "head")
    he = (2 / 64) ** 0.5
    kernels = [
        [
            keras.ops.convert_to_numpy(model.get_layer(name).kernel)
            for name in branch
        ]
        for branch in branches
    ]
    inner = np.array([branch[:2] for branch in kernels])
    assert inner.std() == pytest.approx(he * 16**-0.25, rel=0.01)
    assert (
        len({round(float(k.std()), 6) for k in inner.reshape(32, 64, 64)}) > 9
    )
    assert not any(branch[2].any() for branch in kernels)
    assert not keras.ops.convert_to_numpy(model(X)).any()
    same = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
    np.testing.assert_array_equal(same, stem)
    # The branches add nothing yet.
    ends = keras.Model(
        model.inputs, [model.layers[1].output, model.layers[-2].output]
    )
    first, last = (keras.ops.convert_to_numpy(z) for z in ends(X))
    np.testing.assert_array_equal(first, last)


def test_fixup_refuses():
    model, branches = residual(1)
    for given, message in (
        ([], "expected names"),
        ([[]], "expected names"),
        (branches[0], "list of lists"),
        ([["none"]], "none"),
        ([[model.layers[0].name]], "with a kernel"),
    ):
        with pytest.raises(ValueError, match=message):
            fixup(model, given)


def test_recurrent_cells_stay():
    """Their activation gets the state of the cell, too."""
    cell = keras.layers.LSTM(4)
    model = keras.Sequential([keras.Input((3, 2)), cell, keras.layers.Dense(5)])
    before = cell.get_weights()
    x = np.random.default_rng(0).normal(size=(32, 3, 2)).astype("float32")
    assert [one.layer for one in lsuv(model, x)] == [model.layers[-1].path]
    for a, b in zip(before, cell.get_weights()):
        np.testing.assert_array_equal(a, b)
