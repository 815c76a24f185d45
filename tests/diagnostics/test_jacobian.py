"""Singular values of Jacobians, against those of dense matrices."""

import json

import keras
import numpy as np
import pytest

from tests.diagnostics.saved_models import classifier, refused, run
from tf_lamb.diagnostics import jacobian

DTYPE = "float64" if keras.backend.backend() == "tensorflow" else "float32"
TOLERANCE = 1e-6 if DTYPE == "float64" else 1e-4


def convolutional():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((5, 5, 2), dtype=DTYPE),
        keras.layers.Conv2D(4, 3, activation="gelu", dtype=DTYPE, name="conv"),
        keras.layers.BatchNormalization(dtype=DTYPE),
        keras.layers.Flatten(dtype=DTYPE),
        keras.layers.Dense(40, activation="tanh", dtype=DTYPE, name="dense"),
        keras.layers.Dense(7, dtype=DTYPE, name="last"),
    ]
    return keras.Sequential(layers)


def dense(model, x, width=1e-3):
    """The Jacobian by central differences of fourth order."""

    def outputs(moved):
        found = model(moved.reshape(1, *x.shape), training=False)
        return keras.ops.convert_to_numpy(found).ravel().astype(np.float64)

    columns = []
    for row in np.eye(x.size):
        near, far = (
            outputs(x.ravel() + k * width * row)
            - outputs(x.ravel() - k * width * row)
            for k in (1, 2)
        )
        columns.append((8 * near - far) / (12 * width))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    "last, rows, counts", [("dense", 40, (1, 3, 12)), ("last", 7, (3, 7, 9))]
)
def test_the_largest_of_a_dense_jacobian(last, rows, counts):
    """By PROPACK where fewer than a third are asked for; against NumPy."""
    model = jacobian.between(convolutional(), None, last)
    x = np.random.default_rng(1).normal(size=(5, 5, 2)).astype(DTYPE)
    at = jacobian.Jacobian(model, x)
    assert at.shape == (rows, 50)
    whole = np.stack([at.times(row) for row in np.eye(50)], axis=1)
    back = np.stack([at.transposed_times(row) for row in np.eye(rows)])
    np.testing.assert_allclose(whole, back, atol=TOLERANCE)
    exact = np.linalg.svd(whole, compute_uv=False)
    for count in counts:
        found = jacobian.singular_values(at, count)
        expected = exact[: min(count, rows)]
        np.testing.assert_allclose(found.values, expected, rtol=TOLERANCE)
        errors = abs(found.values - expected)
        assert (errors <= found.residuals + 1e-12).all()
    width = 1e-3 if DTYPE == "float64" else 0.05
    tolerance = 1e-7 if DTYPE == "float64" else 5e-3
    near = dense(model, x, width)
    np.testing.assert_allclose(whole, near, atol=tolerance)


def test_from_one_layer_to_another():
    model = convolutional()
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel)
    last = jacobian.between(model, "dense")
    at = jacobian.Jacobian(last, np.zeros(40, DTYPE))
    found = jacobian.singular_values(at, 7).values
    exact = np.linalg.svd(kernel.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(found, exact, rtol=TOLERANCE)
    part = jacobian.between(model, "conv", "dense")
    assert jacobian.Jacobian(part, np.ones((3, 3, 4), DTYPE)).shape == (40, 36)
    with pytest.raises(ValueError, match="No such layer: none"):
        jacobian.between(model, "none")


def test_spectrum_finds_them_and_resumes(tmp_path, capsys):
    model, x, _ = classifier(tmp_path)
    flags = "--examples 32 --batch_size 32 --steps 2 --vectors 1 --jacobians 2"
    first = [*flags.split(), "--jacobian_from", model.layers[0].name]
    assert run(tmp_path, "spectrum", *first) == 0
    report = json.loads((tmp_path / "out" / "spectrum.json").read_text())
    kernel = keras.ops.convert_to_numpy(model.layers[1].kernel)
    exact = np.linalg.svd(kernel, compute_uv=False)
    assert len(report["jacobians"]) == 2
    for one in report["jacobians"]:
        np.testing.assert_allclose(one["values"], exact, rtol=1e-4)
    assert "Jacobian 2/2" in capsys.readouterr().out
    assert run(tmp_path, "spectrum", *first) == 0
    assert "Jacobian 2/2" not in capsys.readouterr().out
    line = refused(capsys, tmp_path, "spectrum", *flags.split()[:-1], "33")
    assert "at most --examples 32" in line


def test_whole_numbers_are_refused():
    model = keras.Sequential([keras.Input((3,), dtype="int32")])
    with pytest.raises(ValueError, match="int64.*behind embeddings"):
        jacobian.Jacobian(model, np.zeros(3, "int64"))


def test_a_model_of_low_precision_is_refused():
    layers = [keras.Input((3,)), keras.layers.Dense(2, dtype="mixed_bfloat16")]
    with pytest.raises(ValueError, match="float16 or bfloat16; expected"):
        jacobian.Jacobian(keras.Sequential(layers), np.zeros(3, "float32"))
