"""The array functions of the models against NumPy, under every Keras."""

import ast
import functools
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from official_models.common import ops

X = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype("float32")
MATRIX = np.random.default_rng(1).normal(size=(3, 5)).astype("float32")


def log_softmax(x, axis):
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def gelu(x, approximate):
    x = x.astype("float64")
    if approximate:
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = np.vectorize(math.erf)(x / math.sqrt(2))
    return x * (1 + inner) / 2


# name -> (ours, NumPy's)
CASES = {
    "add": (lambda: ops.add(X, X[:1]), lambda: X + X[:1]),
    "average_pool": (
        lambda: ops.average_pool(X, 2, 2),
        lambda: X.reshape(2, 2, 2, 3, 2, 3).mean((2, 4)),
    ),
    "average_pool of every other pixel": (
        lambda: ops.average_pool(X, 1, 2),
        lambda: X[:, ::2, ::2],
    ),
    "cast": (lambda: ops.cast(X, "int32"), lambda: X.astype("int32")),
    "convert_to_tensor": (lambda: ops.convert_to_tensor(X), lambda: X),
    "einsum": (
        lambda: ops.einsum("bhwc,bkwc->bhkw", X, X),
        lambda: np.einsum("bhwc,bkwc->bhkw", X, X),
    ),
    "gelu by tanh": (
        lambda: ops.gelu(X, approximate=True),
        lambda: gelu(X, True),
    ),
    "gelu by erf": (
        lambda: ops.gelu(X, approximate=False),
        lambda: gelu(X, False),
    ),
    "log_softmax": (
        lambda: ops.log_softmax(100 * X, axis=-1),
        lambda: log_softmax(100 * X, -1),
    ),
    "matmul": (lambda: ops.matmul(X, MATRIX), lambda: X @ MATRIX),
    "mean": (
        lambda: ops.mean(X, axis=(0, 1, 2)),
        lambda: X.mean((0, 1, 2)),
    ),
    "mean of an axis that stays": (
        lambda: ops.mean(X, axis=-1, keepdims=True),
        lambda: X.mean(-1, keepdims=True),
    ),
    "one_hot": (
        lambda: ops.one_hot(np.array([2, 0, 3]), 3, dtype="float32"),
        lambda: np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0]]),
    ),
    "pad": (
        lambda: ops.pad(MATRIX, ((1, 2), (0, 3))),
        lambda: np.pad(MATRIX, ((1, 2), (0, 3))),
    ),
    "relu": (lambda: ops.relu(X), lambda: np.maximum(X, 0)),
    "reshape": (
        lambda: ops.reshape(X, (-1, 12, 3)),
        lambda: X.reshape(-1, 12, 3),
    ),
    "rsqrt": (lambda: ops.rsqrt(X * X + 1), lambda: (X * X + 1) ** -0.5),
    "shape": (lambda: ops.shape(X), lambda: X.shape),
    "softmax": (
        lambda: ops.softmax(100 * X),
        lambda: np.exp(log_softmax(100 * X, -1)),
    ),
    "sum": (lambda: ops.sum(X, axis=1), lambda: X.sum(1)),
    "take": (
        lambda: ops.take(X, np.array([[2, 0], [1, 1]]), axis=1),
        lambda: X.take([[2, 0], [1, 1]], 1),
    ),
    "tanh": (lambda: ops.tanh(X), lambda: np.tanh(X)),
    "transpose": (
        lambda: ops.transpose(X, (0, 2, 1, 3)),
        lambda: X.transpose(0, 2, 1, 3),
    ),
    "where": (
        lambda: ops.where(X > 0, X, 2 * X),
        lambda: np.where(X > 0, X, 2 * X),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    ours, numpy = CASES[name]
    actual, expected = np.asarray(ours()), numpy()
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-5)


def names_of(module):
    """`__all__` of a file beside `ops`, which may need another Keras."""
    path = Path(ops.__file__).with_name(module)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(module)


def test_every_keras_has_the_same_names():
    old, new = names_of("keras2.py"), names_of("keras3.py")
    assert new < old
    missing = [name for name in sorted(old) if not hasattr(ops, name)]
    assert missing == []
    compared = {name.split()[0] for name in CASES}
    assert compared == old - new - {"name_scope"}


def test_fused_batch_norm_and_its_biased_variance():
    gamma, beta = np.arange(1, 4, dtype="float32"), np.ones(3, "float32")
    found = ops.fused_batch_norm(X, gamma, beta, 1e-3)
    if found is None:
        assert keras.config.backend() != "tensorflow"
        return
    y, mean, variance = (np.asarray(value) for value in found)
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(variance, X.var((0, 1, 2)), rtol=1e-5)
    expected = (X - X.mean((0, 1, 2))) / np.sqrt(X.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(y, gamma * expected + beta, atol=1e-5)


def test_a_replica_alone_has_its_own_mean():
    np.testing.assert_array_equal(ops.replica_mean(X), X)


def test_a_dropout_scales_what_it_keeps():
    dropout = ops.Dropout(0.25, seed=3)
    ones = np.ones((100, 100), "float32")
    np.testing.assert_array_equal(dropout(ones, training=False), ones)
    found = np.asarray(dropout(ones, training=True))
    assert set(np.unique(found)) == {0.0, np.float32(1 / 0.75)}
    assert np.mean(found == 0) == pytest.approx(0.25, abs=0.02)


@pytest.mark.skipif(
    not ops.KERAS_3 or keras.config.backend() != "tensorflow",
    reason="of Keras 3 on TensorFlow",
)
def test_a_dropout_on_tensorflow_is_keras_own_and_compiles_to_less():
    import tensorflow as tf

    ones = np.ones((40, 30), "float32")
    masks, programs = [], []
    for made in (ops.Dropout, keras.layers.Dropout):
        layer = made(0.25, seed=3)
        masks.append([np.asarray(layer(ones, training=True)) for _ in range(2)])
        compiled = tf.function(
            functools.partial(layer, training=True), jit_compile=True
        )
        share = np.mean(np.asarray(compiled(ones)) == 0)
        assert share == pytest.approx(0.25, abs=0.06)
        text = compiled.experimental_get_compiler_ir(tf.constant(ones))("hlo")
        programs.append(text.count(" xor("))
    np.testing.assert_array_equal(*masks)
    assert (masks[0][0] != masks[0][1]).any()
    # Those of the key, which XLA would compute for every number.
    assert programs[0] == 0 < programs[1]
    shared = ops.Dropout(0.5, noise_shape=(None, 1), seed=3)
    rows = np.asarray(shared(ones, training=True))
    assert (rows == rows[:, :1]).all()


class Root(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="root")
        self.w = ops.add_root_weight(self, "alone", (2,), "ones")
        self.inner = keras.layers.Dense(3, name="inner")

    def build(self, input_shape=None):
        self.path_inside = ops.layer_path(self)
        self.mean = ops.add_statistic(self, "mean", 2, "zeros")
        with ops.name_scope("scope"):
            ops.build_child(self.inner, (None, 2))

    def call(self, x):
        ops.assign_statistic(self, self.mean, self.mean + 1.0)
        return self.inner(x)


def test_paths_of_weights():
    layer = Root()
    layer(np.ones((4, 2), "float32"))
    paths = {getattr(v, "path", v.name).split(":")[0]: v for v in layer.weights}
    assert paths.keys() >= {
        "alone",
        "root/scope/inner/kernel",
        "root/scope/inner/bias",
        "root/mean",
    }
    assert layer.path_inside == "root"
    assert not paths["root/mean"].trainable
    np.testing.assert_array_equal(np.asarray(paths["root/mean"]), [1, 1])
