"""`TrainingMonitor` and `GradientNoiseScale` in every Keras."""

import importlib.util
import warnings

import numpy as np
import pytest

import tf_lamb
from tests.callbacks import kerases
from tests.callbacks.kerases import (
    KERASES,
    ON_TENSORFLOW,
    PATHS,
    POLICIES,
    WITH_MULTI_OPTIMIZER,
    WITH_SEVERAL_STEPS,
    WITH_TENSORBOARD,
    fit,
    kernels_and_biases,
    make_model,
)
from tf_lamb.callbacks import read_table
from tf_lamb.diagnostics.alarms import Alarms

TABLES = ("weight_norm", "gradient_norm", "update_ratio", "trust_ratio")
RNG = np.random.default_rng(1)
X = RNG.normal(size=(64, 5)).astype("float32")
DATA = X, X[:, :1] - X[:, 1:2]


def _monitor(folder, every=2, **more):
    return tf_lamb.TrainingMonitor(
        folder, DATA, every, batch_size=len(X), **more
    )


def _read(folder, name):
    return read_table(folder / f"{name}.csv")


def _steps(table):
    return [step for step, _ in next(iter(table.values()))]


def _weights(model):
    return [w.astype(np.float64) for w in model.get_weights()]


def _gradient(model):
    """The true norms for DATA, from two dense layers by hand."""
    kernel, bias, out, out_bias = _weights(model)
    hidden = np.tanh(X @ kernel + bias)
    error = 2 * (hidden @ out + out_bias - DATA[1]) / len(X)
    back = (error @ out.T) * (1 - hidden**2)
    found = [X.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
    return [float(np.linalg.norm(g)) for g in found]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_both_leave_the_weights_and_show_what_is_true(name, policy, tmp_path):
    """One run: tables against NumPy, and weights to the last bit."""
    front = kerases.front_end(name)
    plain = make_model(front, policy)
    fit(plain, epochs=2)
    losses = plain.history.history["loss"]
    model = make_model(front, policy)
    noise = tf_lamb.GradientNoiseScale(
        DATA, 2, 16, 1, groups={"first": "hidden", "last": "^out"}
    )
    fit(model, [_monitor(tmp_path), noise], epochs=2)
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.history.history["loss"] == losses
    tables = {table: _read(tmp_path, table) for table in TABLES}
    last = {}
    for table, columns in tables.items():
        assert list(columns) == PATHS
        assert _steps(columns) == [2, 4, 6, 8]
        last[table] = [points[-1][1] for points in columns.values()]
    close = 1e-4 if policy == "float32" else 0.02
    norms = [np.linalg.norm(w) for w in model.get_weights()]
    assert last["weight_norm"] == pytest.approx(norms, rel=1e-5)
    assert last["gradient_norm"] == pytest.approx(_gradient(model), rel=close)
    assert last["update_ratio"] == pytest.approx([0.05] * 4, rel=1e-3)
    ratios = tf_lamb.find_optimizer(model).trust_ratios
    assert last["trust_ratio"] == pytest.approx(list(ratios.values()))
    assert list(noise.results) == ["all", "first", "last"]
    whole, *parts = noise.results.values()
    assert whole.records == 8
    assert whole.trace == pytest.approx(sum(part.trace for part in parts))
    assert whole.lower < whole.value < whole.upper


@pytest.mark.parametrize("name", KERASES)
def test_dropout_and_moving_statistics_are_left_alone(name, tmp_path):
    front = kerases.front_end(name)
    layers = front.keras.layers
    found = []
    for is_watched in (False, True):
        front.keras.utils.set_random_seed(0)
        model = front.keras.Sequential(
            [
                front.keras.Input((5,)),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
                layers.Dense(1),
            ]
        )
        model.compile(front.LAMB(0.05), "mse")
        watch = [
            _monitor(tmp_path, 1),
            tf_lamb.GradientNoiseScale(DATA, 2, 8, 1, verbose=False),
        ]
        fit(model, watch if is_watched else [])
        found.append(model.get_weights())
    assert len(found[0]) == 6
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", KERASES)
def test_the_noise_scale_against_per_example_gradients(name):
    """Of a trained model that stands still, against 64 gradients in NumPy."""
    front = kerases.front_end(name)
    model = make_model(front)
    kernel, bias, out, out_bias = _weights(model)
    hidden = np.tanh(X @ kernel + bias)
    error = 2 * (hidden @ out + out_bias - DATA[1])
    back = (error @ out.T) * (1 - hidden**2)
    each = np.concatenate(
        [
            (X[:, :, None] * back[:, None]).reshape(len(X), -1),
            back,
            hidden * error,
            error,
        ],
        axis=1,
    )
    # All 64 are drawn in each record: |G|^2 is that of drawing from them.
    trace = each.var(0, ddof=1).sum()
    squared = (each.mean(0) ** 2).sum() - trace / len(X)
    noise = tf_lamb.GradientNoiseScale(DATA, 4, len(X), 1)
    for _ in range(20):
        noise.record(model)
    assert noise.result.value == pytest.approx(trace / squared, rel=0.1)
    assert noise.result.records == 20


@pytest.mark.parametrize("name", KERASES)
def test_accumulation_other_optimizers_and_what_is_said_once(name, tmp_path):
    front = kerases.front_end(name)
    optimizer = front.LAMB(0.05, gradient_accumulation_steps=2)
    model = make_model(front, optimizer=optimizer)
    fit(model, [_monitor(tmp_path / "ours", 1, first_step=10)], epochs=2)
    ratios = _read(tmp_path / "ours", "update_ratio")
    assert _steps(ratios) == [11, 12, 13, 14]
    assert [r for _, r in ratios["hidden/kernel"]] == pytest.approx(
        [0.05] * 4, rel=1e-3
    )

    other = make_model(front, optimizer=front.keras.optimizers.SGD(0.1))
    folder = tmp_path / "other"
    monitor = tf_lamb.TrainingMonitor(folder, every=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(other, [monitor], epochs=2)
    texts = [str(w.message) for w in said if "TrainingMonitor" in str(w)]
    assert len(texts) == 2
    assert "|g| and its alarms are left out" in texts[0]
    assert "trust ratios are left out" in texts[1]
    assert {p.name for p in folder.iterdir()} == {
        "weight_norm.csv",
        "update_ratio.csv",
    }


@pytest.mark.parametrize("name", WITH_MULTI_OPTIMIZER)
def test_all_of_ours_in_a_multi_optimizer(name, tmp_path):
    optimizer, lamb, lars = kernels_and_biases(kerases.front_end(name))
    model = make_model(kerases.front_end(name), optimizer=optimizer)
    fit(model, [_monitor(tmp_path)])
    table = _read(tmp_path, "trust_ratio")
    last = {path: points[-1][1] for path, points in table.items()}
    assert last == pytest.approx({**lamb.trust_ratios, **lars.trust_ratios})


@pytest.mark.parametrize("name", ON_TENSORFLOW)
def test_two_replicas(name, tmp_path):
    """The gradient is that of the model, the weights are the same bits."""
    import tensorflow as tf

    front = kerases.front_end(name)
    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) > 1
    strategy = tf.distribute.MirroredStrategy([d.name for d in devices[:2]])
    weights, losses = [], []
    for callbacks in ([], [_monitor(tmp_path)]):
        with strategy.scope():
            model = make_model(front)
        fit(model, callbacks)
        weights.append(model.get_weights())
        losses.append(model.history.history["loss"])
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses[0] == losses[1]
    table = _read(tmp_path, "gradient_norm")
    assert _steps(table) == [2, 4]
    last = [points[-1][1] for points in table.values()]
    assert last == pytest.approx(_gradient(model), rel=1e-4)


@pytest.mark.parametrize("name", WITH_SEVERAL_STEPS)
def test_several_steps_of_one_execution(name, tmp_path):
    front = kerases.front_end(name)
    model = make_model(front)
    model.compile(front.LAMB(0.05), "mse", steps_per_execution=2)
    fit(model, [_monitor(tmp_path, 4)])
    ratios = _read(tmp_path, "update_ratio")
    assert _steps(ratios) == [4]
    found = [points[0][1] for points in ratios.values()]
    assert 0.05 < min(found) <= max(found) < 0.11, "of two updates"


@pytest.mark.parametrize("name", WITH_TENSORBOARD)
def test_tensorboard_and_pictures(name, tmp_path):
    import tensorflow as tf

    png = importlib.util.find_spec("matplotlib") is not None
    model = make_model(kerases.front_end(name))
    fit(model, [_monitor(tmp_path, tensorboard=True, histograms=True, png=png)])
    tags = {
        value.tag
        for file in tmp_path.glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    wanted = {f"{t}/{p}" for t in TABLES for p in PATHS}
    assert wanted | {f"weights/{p}" for p in PATHS} <= tags
    pictures = {f"{t}.png" for t in TABLES if png}
    assert {p.name for p in tmp_path.glob("*.png")} == pictures
    assert {t for t in tags if "heat_map" in t} == {
        f"heat_map/{p[:-4]}" for p in pictures
    }


def test_what_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tensorboard", "png"):
        with pytest.raises(ValueError, match=f"{name}: it needs .*not instal"):
            _monitor(tmp_path, **{name: True})


@pytest.mark.parametrize("name", KERASES)
def test_alarms_and_activations_in_a_custom_loop(name, tmp_path):
    front = kerases.front_end(name)
    model = make_model(front)
    monitor = _monitor(tmp_path, 1, alarms=Alarms(patience=2))
    weights = model.get_weights()
    model.set_weights([*weights[:2], 0 * weights[2], weights[3]])
    with pytest.warns(UserWarning, match="'hidden/kernel', 'hidden/bias' is 0"):
        for _ in range(3):
            monitor.record(model, loss=1.0)
    monitor.close()
    assert _steps(_read(tmp_path, "gradient_norm")) == [1, 2, 3]
    found = monitor.activations(X)
    hidden = np.tanh(X @ weights[0] + weights[1])
    assert found["hidden"] == pytest.approx(hidden.var(), rel=1e-4)
    assert found["out"] == 0


def test_batches_are_read_again_and_again():
    from tf_lamb.diagnostics.examples import Examples

    batches = [
        ({"a": X[i : i + 4]}, DATA[1][i : i + 4]) for i in range(0, 12, 4)
    ]
    examples = Examples(batches)
    for _ in range(3):
        x, y, weight = examples.draw(6)
        assert x["a"].shape == (6, 5)
        assert y.shape == (6, 1)
        assert weight is None
    with pytest.raises(ValueError, match="data: expected batches, got none"):
        Examples(iter(())).draw(1)
    with pytest.raises(ValueError, match="at least 65 examples, got 64"):
        Examples(DATA).draw(65)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every: expected a whole number >= 1"),
        ({"data": 3}, r"data: expected a tuple \(x, y\)"),
        ({"data": (X, X[:3])}, "as many examples each"),
        ({"loss": "mse"}, r"loss: expected a function of \(y, y_pred\)"),
        ({"first_step": -1}, "first_step: expected a whole number"),
    ],
)
def test_bad_input_of_both(arguments, message, tmp_path):
    arguments = {"data": DATA, **arguments}
    with pytest.raises(ValueError, match=message):
        tf_lamb.TrainingMonitor(tmp_path, **arguments)
    with pytest.raises(ValueError, match=message):
        tf_lamb.GradientNoiseScale(small_batch=1, big_batch=4, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"big_batch": 5}, "big_batch: expected a multiple of 2"),
        ({"big_batch": 2}, "big_batch: expected a whole number >= 4"),
        ({"decay": 1.0}, r"decay: expected a number in \(0, 1\)"),
        ({"groups": {"all": "x"}}, "groups: expected a dict"),
        ({"groups": {"a": "("}}, "is not a regular expression"),
    ],
)
def test_bad_input_of_the_noise_scale(arguments, message):
    arguments = {"small_batch": 2, "big_batch": 8, **arguments}
    with pytest.raises(ValueError, match=message):
        tf_lamb.GradientNoiseScale(DATA, **arguments)


def test_a_group_that_matches_nothing():
    model = make_model(kerases.front_end(next(iter(KERASES))))
    noise = tf_lamb.GradientNoiseScale(DATA, 2, 8, 1, groups={"a": "hiden"})
    with pytest.raises(ValueError, match="'hiden' matches none of 4"):
        noise.record(model)


def test_bad_input_of_the_monitor(tmp_path):
    for arguments, message in (
        ({"alarms": "loud"}, "alarms: expected an Alarms"),
        ({"histograms": True}, "histograms: .* tensorboard=True"),
        ({"batch_size": 0}, "batch_size: expected a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            tf_lamb.TrainingMonitor(tmp_path, **arguments)
