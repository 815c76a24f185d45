"""Variables in narrow dtypes: what is kept in float32 beside them."""

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import problems as keras2_problems
from tests.keras3.problems import (
    distance,
    gradients,
    initial_values,
    run_reference,
)
from tests.parity_cases import STEPS, make
from tf_lamb import keras2

MOMENTA = {"bfloat16": 0.999, "float16": 0.9999}


def _numpy(x):
    return tf.cast(x, "float64").numpy()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("dtype", MOMENTA)
def test_averages_follow_the_weights(mirrored, dtype, replicas):
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    d = MOMENTA[dtype]
    with strategy.scope():
        variable = tf.Variable(
            tf.cast(tf.linspace(1.0, 2.0, 6), dtype), name="w"
        )
        optimizer = keras2.LAMB(0.1, use_ema=True, ema_momentum=d)
        optimizer.build([variable])

    @tf.function
    def step(grad):
        strategy.run(
            lambda g: optimizer.apply_gradients([(1 * g, variable)]), [grad]
        )

    expected = first = None
    for i in range(12):
        step(tf.cast(tf.cos(tf.range(6.0) + i) + 1.0, dtype))
        x = _numpy(variable)
        first = x if first is None else first
        expected = x if expected is None else d * expected + (1 - d) * x
    (mean,) = optimizer._model_variables_moving_average
    assert mean.dtype == tf.float32
    moved = np.abs(expected - first).max()
    assert moved > 1e-4
    assert np.abs(_numpy(mean) - expected).max() < 0.01 * moved
    optimizer.finalize_variable_values([variable])
    nearest = tf.cast(tf.convert_to_tensor(mean), dtype)
    np.testing.assert_array_equal(_numpy(variable), _numpy(nearest))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("dtype", MOMENTA)
def test_small_micro_batches_count_beside_large_ones(mirrored, dtype, replicas):
    """Sums in the variable's dtype would lose every quarter."""
    parts = [1024.0, *[0.25] * 6, -1024.0]
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        variable = tf.Variable(tf.ones(3, dtype), name="w")
        optimizer = keras2.LARS(
            1.0,
            momentum=0.0,
            exclude_from_layer_adaptation=["w"],
            gradient_accumulation_steps=len(parts),
        )
        optimizer.build([variable])

    @tf.function
    def step(grad):
        strategy.run(
            lambda g: optimizer.apply_gradients([(1 * g, variable)]), [grad]
        )

    for part in parts:
        step(tf.fill([3], tf.cast(part, dtype)))
    moved = 1 - _numpy(variable)
    np.testing.assert_array_equal(moved, replicas * 1.5 / len(parts))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex128"])
def test_variables_that_are_not_floating_are_refused_by_name(dtype):
    weight = tf.Variable(tf.ones(3), name="weight")
    other = tf.Variable(tf.cast([1, 1, 1], dtype), name="other")
    for optimizer in (keras2.LAMB(0.1), keras2.LARS(0.1)):
        with pytest.raises(ValueError, match=f"variable 'other.* is {dtype};"):
            optimizer.apply_gradients(
                [(tf.ones(3), weight), (tf.ones_like(other), other)]
            )
        assert not optimizer.built
        np.testing.assert_array_equal(weight.numpy(), 1)


FLOAT64 = {
    "plain": ({}, {}),
    "uncompiled": ({"jit_compile": False}, {}),
    "clipnorm": ({"clipnorm": 0.1}, {}),
    "global_clipnorm": ({"global_clipnorm": 0.1}, {}),
    "ema": ({"use_ema": True, "ema_momentum": 0.9}, {"ema_momentum": 0.9}),
}


@pytest.mark.parametrize("arguments, changes", FLOAT64.values(), ids=FLOAT64)
@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_float64_equals_the_reference_to_12_digits(name, arguments, changes):
    """No number here is a float32."""
    arguments = {
        "weight_decay": 0.05,
        "learning_rate": lambda: 0.02,
        **arguments,
    }
    changes = {"learning_rate": 0.02, **changes}
    ours, reference = make(keras2, name, arguments, changes)
    variables = keras2_problems.make_variables(initial_values("float64"))
    for step in range(STEPS):
        grads = gradients(step, "float64")
        ours.apply_gradients([(grads[v.name[:-2]], v) for v in variables])
    expected = run_reference(reference, STEPS, "float64")
    got = keras2_problems.values_of(variables)
    assert distance(got, expected) < 1e-12
    if ours.use_ema:
        averages = dict(zip(got, ours._model_variables_moving_average))
        averages = {n: x.numpy() for n, x in averages.items()}
        assert distance(averages, reference.average) < 1e-12


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_bfloat16_moments_are_in_files(tmp_path, ending):
    """HDF5 has no bfloat16: two bytes without a dtype."""
    model = keras2_problems.make_model(
        keras2.LAMB(0.1, moment_dtype="bfloat16")
    )
    keras2_problems.fit(model)
    path = str(tmp_path / f"model.{ending}")
    model.save(path)
    loaded = keras2.keras.models.load_model(path)
    for one, two in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(_numpy(one), _numpy(two))
