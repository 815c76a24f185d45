"""`TrainingMonitor` and `GradientNoiseScale`: another loss, run, optimizer."""

import numpy as np
import pytest

import tf_lamb
from tests.callbacks import kerases
from tests.callbacks.kerases import (
    KERASES,
    WITH_MULTI_OPTIMIZER,
    fit,
    make_model,
)
from tests.callbacks.test_monitor import DATA, X
from tests.callbacks.test_monitor import _gradient as true_gradient
from tests.callbacks.test_monitor import _monitor as monitor_of
from tests.callbacks.test_monitor import _read as read
from tests.callbacks.test_monitor import _steps as steps
from tf_lamb.callbacks import read_table


@pytest.mark.parametrize("name", KERASES)
def test_another_loss_and_other_variables(name, tmp_path):
    """Neither is computed by what was compiled for those before."""
    front = kerases.front_end(name)
    model = make_model(front)
    monitor = monitor_of(tmp_path, 1)
    noise = tf_lamb.GradientNoiseScale(DATA, 4, len(X), 1, verbose=False)
    for callback in (monitor, noise):
        callback.record(model)
    first = noise.result

    def tenfold(y, y_pred):
        return 10 * (y - y_pred) ** 2

    model.compile(front.LAMB(0.05), tenfold)
    for callback in (monitor, noise):
        callback.record(model)
    table = read(tmp_path, "gradient_norm")
    for (_, one), (_, ten) in table.values():
        assert ten == pytest.approx(10 * one, rel=1e-3)
    second = noise.result
    assert second.records == 1
    assert 50 < second.trace / first.trace < 200  # of other pieces
    model.compile(front.LAMB(0.05), tenfold)  # no other loss
    noise.record(model)
    assert noise.result.records == 2
    for i, layer in enumerate(("hidden", "out")):
        model.get_layer("hidden").trainable = layer == "hidden"
        model.get_layer("out").trainable = layer == "out"
        model.compile(front.LAMB(0.05), "mse")
        noise.record(model)
        assert noise.result.records == 1
        true = sum(g**2 for g in true_gradient(model)[2 * i : 2 * i + 2])
        found = noise.result.gradient_squared + noise.result.trace / len(X)
        assert found == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("name", KERASES)
def test_rows_of_another_run_are_not_left(name, tmp_path):
    for every in (2, 3):
        model = make_model(kerases.front_end(name))
        path = tmp_path / "noise.csv"
        noise = tf_lamb.GradientNoiseScale(
            DATA, 4, 16, every, csv_path=path, verbose=False
        )
        fit(model, [monitor_of(tmp_path, every), noise])
    assert steps(read(tmp_path, "weight_norm")) == [3]
    assert steps(read_table(path)) == [3]


@pytest.mark.parametrize("name", WITH_MULTI_OPTIMIZER)
def test_equal_paths_of_two_optimizers(name, tmp_path):
    front = kerases.front_end(name)
    layers = front.keras.layers

    class Twins(front.keras.Model):
        def __init__(self):
            super().__init__(name="twins")
            self.first = layers.Dense(8, "tanh", name="same")
            self.second = layers.Dense(1, name="same")

        def call(self, x):
            return self.second(self.first(x))

    front.keras.utils.set_random_seed(0)
    model = Twins()
    model(X)
    first = [id(v) for v in model.first.trainable_variables]
    lamb = front.LAMB(0.05, trust_ratio_bounds=(0.5, 2.0))
    lars = front.LARS(0.05)
    model.compile(
        front.keras.optimizers.MultiOptimizer(
            lambda v: lamb if id(v) in first else lars
        ),
        "mse",
    )
    fit(model, [monitor_of(tmp_path, 1)])
    last = [p[-1][1] for p in read(tmp_path, "trust_ratio").values()]
    theirs = [*lamb.trust_ratios.values(), *lars.trust_ratios.values()]
    assert last == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("name", KERASES)
def test_activations_of_a_layer_that_another_model_has_too(name, tmp_path):
    front = kerases.front_end(name)
    whole = make_model(front)
    head = whole.get_layer("out")
    inputs = front.keras.Input((8,))
    model = front.keras.Model(inputs, head(inputs))
    monitor = monitor_of(tmp_path)
    monitor.set_model(model)
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    kernel = np.asarray(head.get_weights()[0])
    found = monitor.activations(x)
    assert found["out"] == pytest.approx((x @ kernel).var(), rel=1e-4)


@pytest.mark.parametrize("name", KERASES)
def test_sample_weights_are_not_passed_over(name, tmp_path):
    model = make_model(kerases.front_end(name))
    data = (*DATA, np.ones(len(X), "float32"))
    noise = tf_lamb.GradientNoiseScale(
        data, 4, 16, 1, loss=lambda y, y_pred: (y - y_pred) ** 2
    )
    with pytest.raises(ValueError, match="sample weights"):
        noise.record(model)
