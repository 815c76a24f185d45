"""The tangent kernel: where it is known, against jax.jacrev; regression."""

import json

import keras
import numpy as np
import pytest

from tests.diagnostics.saved_models import classifier, refused, run
from tf_lamb.diagnostics import ntk, ntk_command

FLAGS = "--examples 12 --held_out 8 --batch_size 4".split()


def data(count=6, width=3):
    random = np.random.default_rng(0)
    return random.normal(size=(count, width)).astype("float32")


def kernel(model, x, size=4):
    jacobian = ntk.Jacobian(model, x)
    count = len(next(iter(x.values())) if isinstance(x, dict) else x)
    parts = [
        jacobian.rows(i, min(i + size, count))[0] for i in range(0, count, size)
    ]
    return ntk.gram(np.concatenate(parts))


def test_the_kernel_of_a_linear_model():
    """`K = (x x' + 1) I`, of `x W + b`."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    x = data()
    exact = np.kron(x.astype("float64") @ x.T + 1, np.eye(2))
    np.testing.assert_allclose(kernel(model, x), exact, atol=1e-6)


def test_the_kernel_is_that_of_jacrev():
    """Of a network that is written out; on either backend."""
    jax = pytest.importorskip("jax")
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(7, activation="tanh"),
        keras.layers.Dense(2),
    ]
    model, x = keras.Sequential(layers), data()

    def outputs(weights):
        w, b, v, c = weights
        return jax.numpy.tanh(x @ w + b) @ v + c

    blocks = jax.jacrev(outputs)(
        [jax.numpy.asarray(w) for w in model.get_weights()]
    )
    rows = np.concatenate([np.reshape(b, (12, -1)) for b in blocks], 1)
    exact = rows.astype("float64") @ rows.T
    error = np.linalg.norm(kernel(model, x) - exact) / np.linalg.norm(exact)
    assert error < 1e-6
    _, predicted = ntk.Jacobian(model, x).rows(0, 6)
    np.testing.assert_allclose(predicted, model(x), atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="`stateless_call` under jacrev"
)
def test_the_kernel_of_layers_that_keras_has_is_that_of_jacrev():
    import jax

    model, x = images()

    def outputs(weights):
        state = [v.value for v in model.non_trainable_variables]
        return model.stateless_call(weights, state, x, training=False)[0]

    blocks = jax.jacrev(outputs)([v.value for v in model.trainable_variables])
    rows = np.concatenate([np.reshape(b, (10, -1)) for b in blocks], 1)
    exact = rows.astype("float64") @ rows.T
    error = np.linalg.norm(kernel(model, x, 2) - exact) / np.linalg.norm(exact)
    assert error < 1e-5


def images():
    """Convolutions, normalisation, an embedding; its examples."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((5, 5, 1), name="image")
    text = keras.Input((3,), dtype="int32", name="text")
    a = layers.Conv2D(3, 2, activation="tanh")(image)
    a = layers.Flatten()(layers.BatchNormalization()(a))
    b = layers.Flatten()(layers.Embedding(6, 2)(text))
    out = layers.Dense(2)(layers.Concatenate()([a, b]))
    random = np.random.default_rng(0)
    pixels = random.normal(size=(5, 5, 5, 1)).astype("float32")
    ids = random.integers(0, 6, (5, 3)).astype("int32")
    return keras.Model([image, text], out), dict(image=pixels, text=ids)


def test_rows_are_derivatives():
    """`J v` is what central differences of the outputs give."""
    model, x = images()
    jacobian = ntk.Jacobian(model, x)
    rows, _ = jacobian.rows(0, 5)
    assert rows.shape == jacobian.shape
    vector = np.random.default_rng(1).normal(size=jacobian.parameters)
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]

    def moved(step):
        start = 0
        for variable, value in zip(model.trainable_variables, before):
            part = vector[start : start + value.size].reshape(value.shape)
            variable.assign(value + step * part)
            start += value.size
        return keras.ops.convert_to_numpy(model(x)).astype("float64")

    near = (moved(1e-2) - moved(-1e-2)) / 2e-2
    np.testing.assert_allclose(rows @ vector, near.ravel(), atol=5e-3)


def test_drift():
    random = np.random.default_rng(0)
    root = random.normal(size=(60, 80))
    first = root @ root.T
    assert ntk.drift(first, first, 2) == (0, 0, 0, 0)
    scaled = ntk.drift(first, 3 * first, 2)
    assert scaled.relative_change == pytest.approx(2)
    assert scaled.cosine_distance == pytest.approx(0, abs=1e-12)
    other = random.normal(size=(60, 80))
    second = other @ other.T
    found = ntk.drift(first, second, 2)
    cosine = np.vdot(first, second) / (
        np.linalg.norm(first) * np.linalg.norm(second)
    )
    assert found.cosine_distance == pytest.approx(1 - cosine)
    change = np.linalg.norm(second - first) / np.linalg.norm(first)
    assert found.relative_change == pytest.approx(change)
    with pytest.raises(ValueError, match="not 0"):
        ntk.drift(first, 0 * first, 2)


def test_the_error_of_a_drift_is_that_over_examples():
    """Against the spread over many sets of examples."""

    def draw(seed):
        # Of unequal axes: else the cosine would be stationary.
        x = np.random.default_rng(seed).normal(size=(100, 4)) * [1, 1, 1, 2]
        return ntk.drift(x @ x.T, (x @ np.diag([1, 1, 1, 3.0])) @ x.T, 1)

    found = np.asarray([draw(i) for i in range(60)])
    for value, error in ((0, 1), (2, 3)):
        spread = found[:, value].std(ddof=1)
        assert found[:, error].mean() == pytest.approx(spread, rel=0.35)


def test_regression_is_ridge_regression_of_the_features():
    random = np.random.default_rng(0)
    rows = random.normal(size=(30, 5))
    y = rows @ random.normal(size=(5, 1)) + 2
    found = ntk.regress(rows @ rows.T, y, 20, ridge=0.1)
    strength = 0.1 * np.sum(rows[:20] ** 2) / 20
    mean = y[:20].mean()
    theta = np.linalg.solve(
        rows[:20].T @ rows[:20] + strength * np.eye(5),
        rows[:20].T @ (y[:20] - mean),
    )
    np.testing.assert_allclose(found, rows[20:] @ theta + mean, rtol=1e-8)
    fitted = ntk.fit(found, y[20:], classes=False)
    errors = np.square(found - y[20:])[:, 0]
    assert fitted.squared_error == pytest.approx(errors.mean())
    assert fitted.squared_error_error == pytest.approx(
        errors.std(ddof=1) / 10**0.5
    )
    assert fitted.score is None


def test_targets():
    classes, is_class = ntk.targets(np.array([0, 2]), 3)
    np.testing.assert_array_equal(classes, [[1, 0, 0], [0, 0, 1]])
    assert is_class
    assert ntk.targets(classes, 3)[1]
    assert not ntk.targets(classes + 0.5, 3)[1]
    assert not ntk.targets(np.array([1, 0]), 1)[1]
    for y in (np.array([0, 3]), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="data: expected"):
            ntk.targets(y, 3)
    predicted = np.array([[0.2, 0.1, 0], [0.3, 0, 0.1]])
    found = ntk.fit(predicted, classes, classes=True)
    assert found.score == 0.5
    assert found.score_error == pytest.approx((0.25 / 6) ** 0.5)
    found = ntk.fit(classes, classes, classes=True)
    assert found.score == 1 and found.score_error > 0.1


def test_the_command_resumes_to_the_same(tmp_path, capsys, monkeypatch):
    classifier(tmp_path)
    classifier(tmp_path, "other.keras", seed=1)
    flags = ["--other", str(tmp_path / "other.keras"), *FLAGS]
    out = tmp_path / "out"
    rows, count = ntk.Jacobian.rows, []

    def stop(self, *places):
        count.append(places)
        if len(count) == 8:
            raise KeyboardInterrupt
        return rows(self, *places)

    monkeypatch.setattr(ntk.Jacobian, "rows", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "ntk", *flags)
    assert not (out / "ntk.json").exists()
    capsys.readouterr()
    assert run(tmp_path, "ntk", *flags) == 0
    # Five batches of MODEL, two of OTHER before; three after.
    assert len(count) == 8 + 3 and count[8] == (8, 12)
    first = json.loads((out / "ntk.json").read_text())
    assert "jackknife" in capsys.readouterr().out
    assert not list(out.glob(".jacobian*"))
    assert (out / "ntk.png").stat().st_size > 1000
    whole = ["--output_dir", str(tmp_path / "whole")]
    assert run(tmp_path, "ntk", *flags, *whole) == 0
    second = json.loads((tmp_path / "whole" / "ntk.json").read_text())
    for report in (first, second):
        del report["seconds"]
    assert first == second
    assert 0 < first["drift"]["cosine_distance"] < 1
    assert (first["rows"], first["parameters"]) == (40, 6 * 8 + 8 + 16 + 2)


def test_statistics_of_the_examples(tmp_path):
    """Those that another model of the same weights was saved with."""
    model, _, _ = classifier(tmp_path, norm=True)
    x = np.load(tmp_path / "data.npz")["x"]
    norm = model.layers[1]
    out = tmp_path / "out" / "kernel_model.npz"
    assert run(tmp_path, "ntk", *FLAGS, "--statistics", "recomputed") == 0
    found = np.load(out)["kernel"]
    rows = np.random.default_rng(0).choice(96, 20, replace=False)
    hidden = keras.ops.convert_to_numpy(model.layers[0](x[rows]))
    norm.moving_mean.assign(hidden.mean(0))
    norm.moving_variance.assign(hidden.var(0))
    model.save(tmp_path / "model.keras")
    assert run(tmp_path, "ntk", *FLAGS) == 0
    np.testing.assert_allclose(np.load(out)["kernel"], found, atol=1e-4)


def test_no_drift_of_the_same_model(tmp_path):
    classifier(tmp_path)
    same = str(tmp_path / "model.keras")
    assert run(tmp_path, "ntk", "--other", same, *FLAGS) == 0
    found = json.loads((tmp_path / "out" / "ntk.json").read_text())
    assert set(found["drift"].values()) == {0.0}


def test_bad_input_is_one_line(tmp_path, capsys):
    classifier(tmp_path)
    classifier(tmp_path, "norm.keras", norm=True)

    def line(*more, **files):
        return refused(capsys, tmp_path, "ntk", *more, *FLAGS, **files)

    assert "needs about" in line("--memory_gib", "1e-6")
    assert "same shapes" in line("--other", str(tmp_path / "norm.keras"))
    found = dict(np.load(tmp_path / "data.npz"))
    np.savez(tmp_path / "classes.npz", x=found["x"], y=found["y"] + 1)
    assert "classes from 0 to 1" in line(data="classes.npz")
    few = ["--held_out", "1"]
    assert "two or more" in refused(capsys, tmp_path, "ntk", *few)
    assert not (tmp_path / "out").exists()


def test_the_estimate_of_memory():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    jacobian = ntk.Jacobian(model, data(10))
    # 20 rows of 8 numbers, two copies of a batch of 4 examples, 8 columns in
    # float64, four kernels.
    wanted = 4 * 20 * 8 + 2 * 4 * 8 * 8 + 8 * 20 * 8 + 4 * 8 * 400
    assert jacobian.bytes_needed(4) == wanted
    assert ntk_command._shown(ntk.Regression(0.5, 0.1, None, None)) == (
        "squared error 0.5 ± 0.1"
    )
