"""Every option of LAMB and LARS against the float64 reference, 30 steps."""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.parity_cases import STEPS, cases, make


@pytest.mark.parametrize("optimizer, arguments, changes", list(cases()))
def test_equals_the_reference_over_30_steps(optimizer, arguments, changes):
    ours, reference = make(tf_lamb, optimizer, arguments, changes)
    variables = problems.run(ours, STEPS)
    expected = problems.run_reference(reference, STEPS)
    got = problems.values_of(variables)
    lamb_form = optimizer == "LAMB" and "form" in arguments
    allowed = 1e-6 if lamb_form else 3e-6
    assert problems.distance(got, expected) < allowed
    moved = {n: expected[n] - problems.initial_values()[n] for n in expected}
    assert all(np.abs(change).max() > 1e-6 for change in moved.values())
    for name, ratio in ours.trust_ratios.items():
        assert ratio == pytest.approx(reference.trust_ratios[name], rel=1e-5)
    if ours.use_ema:
        averages = {
            v.name: keras.ops.convert_to_numpy(mean).astype("float64")
            for v, mean in zip(variables, ours._model_variables_moving_average)
        }
        assert problems.distance(averages, reference.average) < 3e-6


@pytest.mark.parametrize("optimizer", ["LAMB", "LARS"])
def test_float64_variables_keep_their_precision(optimizer):
    if keras.config.backend() == "jax":
        pytest.skip("JAX has no float64 unless the process asks for it")
    ours, reference = make(
        tf_lamb, optimizer, {"weight_decay": 0.5, "learning_rate": 0.5}, {}
    )
    got = problems.values_of(problems.run(ours, STEPS, "float64"))
    expected = problems.run_reference(reference, STEPS, "float64")
    # A rate that is a number is float32 in Keras: here a power of 2.
    assert problems.distance(got, expected) < 1e-12


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_variables_have_wide_moments_and_norms(dtype):
    """The update itself is float32; only the parameter is rounded."""
    ones = keras.Variable(np.ones(70_000), dtype=dtype, name="ones")
    optimizer = tf_lamb.LAMB(0.25)
    grad = keras.ops.cast(np.full(70_000, 0.5, "float32"), dtype)
    optimizer.apply([grad], [ones])
    # |x| = |u| = sqrt(70000): a float16 sum of squares would be infinite.
    assert optimizer.trust_ratios["ones"] == pytest.approx(1, rel=1e-3)
    value = keras.ops.convert_to_numpy(keras.ops.cast(ones.value, "float32"))
    np.testing.assert_allclose(value, 0.75, rtol=1e-2)
    assert {slot.dtype for row in optimizer._slots for slot in row} == {
        "float32"
    }
