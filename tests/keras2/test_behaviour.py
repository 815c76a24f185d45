"""What tf_keras (tf.keras up to 2.15) promises, kept by our optimizers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import problems
from tests.keras2.problems import fit, make_model
from tests.keras3.problems import distance, gradients, initial_values
from tests.reference.lamb import ReferenceLAMB
from tf_lamb import keras2

keras = keras2.keras
# Up to TensorFlow 2.15, tf.keras is this Keras anyway.
LEGACY = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
if tf.__version__ < "2.16":
    LEGACY = dict(os.environ)


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_fit_learns(name):
    arguments = {"trust_coefficient": 0.1} if name == "LARS" else {}
    losses = fit(make_model(getattr(keras2, name)(0.05, **arguments)), 20)
    assert losses[-1] < 0.3 * losses[0]


def test_the_names_of_the_package_are_these_under_legacy_keras():
    code = (
        "import tf_lamb, tensorflow as tf\n"
        "assert tf_lamb.LAMB.__module__ == 'tf_lamb.keras2'\n"
        "assert issubclass(tf_lamb.LARS, tf.keras.optimizers.Optimizer)\n"
        "s = tf.keras.optimizers.schedules.LearningRateSchedule\n"
        "assert issubclass(tf_lamb.WarmupPolynomial, s)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=LEGACY, check=True)


def test_without_it_they_are_those_of_the_keras_that_is_there():
    name = "keras2" if tf.__version__ < "2.16" else "keras3"
    code = f"import tf_lamb; assert tf_lamb.LAMB.__module__[8:] == '{name}'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_config_round_trip_keeps_everything():
    optimizer = keras2.LARS(
        0.1,
        0.8,
        weight_decay=0.2,
        exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=[],
        form="timm",
        norm="l1",
        phi_bounds=(0.1, 2.0),
        trust_ratio_bounds=(0.01, 10.0),
        skip_nonfinite=False,
        jit_compile=False,
        clipvalue=1.0,
        loss_scale_factor=8.0,
        name="other",
    )
    config = optimizer.get_config()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == config
    assert config["exclude_from_layer_adaptation"] == []


@pytest.mark.parametrize("form", ["paper", "lambc", "deepspeed"])
def test_config_round_trip_keeps_a_form(form):
    optimizer = keras2.LAMB(form=form, weight_decay=0.3)
    config = optimizer.get_config()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == config
    assert (config["form"], config["weight_decay"]) == (form, 0.3)
    clips = 1.0 if form == "lambc" else None
    assert config["global_clipnorm"] == clips


def test_loss_scaler_skips_a_micro_batch_and_the_cycle_goes_on():
    """Three good micro-batches with a bad one among them are three."""

    def run(bad_at):
        inner = keras2.LAMB(0.05, gradient_accumulation_steps=3)
        optimizer = keras.mixed_precision.LossScaleOptimizer(
            inner, initial_scale=8.0
        )
        variables = problems.make_variables(initial_values())
        good = iter(range(9))
        for i in range(9 if bad_at is None else 10):
            factor = np.float32(np.inf if i == bad_at else 1)
            grads = gradients(0 if i == bad_at else next(good))
            optimizer.apply_gradients(
                [
                    (tf.constant(factor * (grads[v.name[:-2]] + 1)), v)
                    for v in variables
                ]
            )
        return problems.values_of(variables)

    alone = run(None)
    for name, value in run(5).items():
        np.testing.assert_array_equal(value, alone[name])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_whatever_is_finite_is_clipped(clip, compiled):
    optimizer = keras2.LAMB(0.1, **{clip: 0.5})
    reference = ReferenceLAMB(0.1, **{clip: 0.5})
    variables = problems.make_variables(initial_values())
    optimizer.build(variables)
    params = problems.values_of(variables)
    step = tf.function(
        lambda *grads: optimizer.apply_gradients(zip(grads, variables)),
        jit_compile=compiled,
    )
    for i, factor in enumerate((1, 1e25, 1e35)):
        grads = {n: g * np.float32(factor) for n, g in gradients(i).items()}
        step(*(tf.constant(g) for g in grads.values()))
        params = reference.step(
            params, {n: g.astype("float64") for n, g in grads.items()}
        )
    assert optimizer.skipped_steps == 0
    assert distance(problems.values_of(variables), params) < 3e-6


@pytest.mark.parametrize("replicas", [1, 2])
def test_weight_decay_that_is_set_takes_effect(mirrored, replicas):
    """Not adapted, and without a gradient: a step only decays."""
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        model = keras.Sequential(
            [keras.layers.Dense(3, use_bias=False, input_shape=(4,))]
        )
        optimizer = keras2.LAMB(
            0.125, weight_decay=0.5, exclude_from_layer_adaptation=[""]
        )
        model.compile(optimizer, "mse")
    for decay in (0.5, 0.25, 0.0):
        optimizer.weight_decay = decay
        before = model.get_weights()[0]
        model.fit(np.zeros((8, 4)), np.zeros((8, 3)), batch_size=4, verbose=0)
        np.testing.assert_allclose(
            model.get_weights()[0], before * (1 - 0.125 * decay) ** 2, rtol=1e-5
        )
    with pytest.raises(AttributeError, match="beta_1: it stays 0.9"):
        optimizer.beta_1 = 0.8


@pytest.mark.parametrize("iterations", [0, 1, -5])
@pytest.mark.parametrize("before", [0, 2])
def test_iterations_set_by_hand_change_no_count_of_updates(iterations, before):
    runs = []
    for assign in (True, False):
        optimizer = keras2.LAMB(0.1, weight_decay=0.1, use_ema=True)
        variables = problems.run(optimizer, before)
        optimizer.build(variables)
        if before:
            bad = [(tf.fill(v.shape, np.nan), v) for v in variables]
            optimizer.apply_gradients(bad)
        if assign and (before or iterations < 1):
            optimizer.iterations.assign(iterations)
        problems.run(optimizer, 3, first_step=2, variables=variables)
        runs.append(problems.values_of(variables))
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name])
        assert np.isfinite(value).all()


@pytest.mark.parametrize("replicas", [1, 2])
def test_two_models_do_not_touch_each_other(mirrored, replicas):
    """A compiled function must not hold on to the first model's variables."""
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        one, two = (make_model(keras2.LAMB(0.05)) for _ in range(2))
    before = two.get_weights()
    fit(one)
    for a, b in zip(two.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    fit(two)
    for a, b in zip(two.get_weights(), one.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one.get_weights()[0] - before[0]).max() > 1e-3


def test_constraint_method_and_rate():
    variable = tf.Variable(
        np.ones(3, "float32"),
        name="w",
        constraint=lambda x: tf.clip_by_value(x, 0.9, 1.1),
    )
    optimizer = keras2.LAMB(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["^w$"])
    optimizer.apply_gradients([(tf.ones(3), variable)])
    np.testing.assert_allclose(variable.numpy(), 0.9)
    assert not optimizer.treatments["w"].decay
    optimizer.learning_rate = 0.25
    assert float(optimizer.lr) == 0.25
    with pytest.raises(ValueError, match="built already"):
        optimizer.exclude_from_weight_decay(var_names=["w"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"gradient_accumulation_steps": 0}, "whole number >= 2"),
        ({"loss_scale_factor": -1.0}, "loss_scale_factor: expected"),
        ({"learning_rate": -1.0}, "learning_rate: expected"),
        ({"global_clipnorm": 0.0}, "global_clipnorm: expected"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras2.LAMB(**arguments)


def test_errors_name_the_variable_and_the_pattern():
    optimizer = keras2.LAMB(0.1, exclude_from_weight_decay=["LayerNorm"])
    with pytest.raises(ValueError, match="'LayerNorm' matches none of 4"):
        fit(make_model(optimizer))
    optimizer = keras2.LAMB(0.1)
    with pytest.raises(ValueError, match="knows no variables yet"):
        optimizer.describe()
    optimizer.build([tf.Variable(1.0, name="known")])
    with pytest.raises(ValueError, match="'unknown:0' is not one of the 1"):
        optimizer.apply_gradients(
            [(tf.constant(1.0), tf.Variable(1.0, name="unknown"))]
        )
    with pytest.raises(ValueError, match="no variable has a gradient"):
        keras2.LAMB(0.1).apply_gradients([(None, tf.Variable(1.0))])


def test_a_run_of_addons_goes_on_from_its_checkpoint():
    """Written by TensorFlow 2.15; see `addons_checkpoint/write.py`."""
    folder = Path(__file__).parent / "addons_checkpoint"
    ours = keras2.LAMB(
        0.5, weight_decay=0.05, exclude_from_weight_decay=["bias"]
    )
    variables = problems.make_variables(initial_values())
    checkpoint = tf.train.Checkpoint(optimizer=ours, variables=variables)
    checkpoint.read(str(folder / "addons")).expect_partial()
    problems.run(ours, 10, first_step=10, variables=variables)
    assert int(ours.iterations) == 20
    assert float(ours.learning_rate) == pytest.approx(0.02)
    with np.load(folder / "expected.npz") as expected:
        for name, value in problems.values_of(variables).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-6)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_a_norm_that_is_clipped_leaves_clipvalue_unused(clip):
    """As in Keras 2's own optimizers, which take both."""
    optimizer = keras2.LARS(
        1.0,
        momentum=0.0,
        exclude_from_layer_adaptation=["."],
        clipvalue=0.7,
        **{clip: 1.0},
    )
    variable = tf.Variable([0.0, 0.0])
    optimizer.apply_gradients([(tf.constant([3.0, 4.0]), variable)])
    np.testing.assert_allclose(variable.numpy(), [-0.6, -0.8], rtol=1e-6)
