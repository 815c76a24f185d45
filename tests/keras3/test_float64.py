"""float64 variables: nothing that reaches them passes through float32."""

import os
import subprocess
import sys

import keras
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.parity_cases import STEPS, make
from tf_lamb import arithmetic

ON_JAX = keras.config.backend() == "jax"
if ON_JAX:
    import jax

    ON_JAX = not jax.config.jax_enable_x64

# JAX has float64 only in a process that asks for it: see the last test.
needs_float64 = pytest.mark.skipif(
    ON_JAX, reason="JAX without JAX_ENABLE_X64; run in a process of its own"
)
# No number here is a float32.
CASES = {
    "plain": {"weight_decay": 0.05},
    "uncompiled": {"weight_decay": 0.05, "jit_compile": False},
    "clipnorm": {"weight_decay": 0.05, "clipnorm": 0.1},
    "global_clipnorm": {"weight_decay": 0.05, "global_clipnorm": 0.1},
    "clipvalue": {"weight_decay": 0.05, "clipvalue": 0.1},
    "phi_bounds": {"weight_decay": 0.05, "phi_bounds": (0.3, 1.7)},
    "trust_ratio_bounds": {
        "weight_decay": 0.05,
        "trust_ratio_bounds": (0.3, 0.7),
    },
    "accumulation": {
        "weight_decay": 0.05,
        "gradient_accumulation_steps": 3,
        "global_clipnorm": 0.1,
    },
    "ema": {"weight_decay": 0.05, "use_ema": True, "ema_momentum": 0.9},
}
TO_THE_REFERENCE = {
    "accumulation": {"accumulation_steps": 3},
    "ema": {"ema_momentum": 0.9},
}


@needs_float64
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize("rate", ["function", "floatx"])
def test_equals_the_reference_to_12_digits(name, case, rate):
    arguments = dict(CASES[case])
    changes = {"learning_rate": 0.02, **TO_THE_REFERENCE.get(case, {})}
    if rate == "function":
        arguments["learning_rate"] = lambda: 0.02
    else:
        keras.config.set_floatx("float64")
    try:
        ours, reference = make(tf_lamb, name, arguments, changes)
    finally:
        keras.config.set_floatx("float32")
    variables = problems.run(ours, STEPS, "float64")
    expected = problems.run_reference(reference, STEPS, "float64")
    assert problems.distance(problems.values_of(variables), expected) < 1e-12
    if ours.use_ema:
        averages = {
            v.name: keras.ops.convert_to_numpy(mean)
            for v, mean in zip(variables, ours._model_variables_moving_average)
        }
        assert problems.distance(averages, reference.average) < 1e-12


@needs_float64
@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_beside_float32_variables_each_keeps_its_own(name):
    arguments = dict(weight_decay=0.05, global_clipnorm=0.1)
    ours, reference = make(tf_lamb, name, arguments, {})
    values = problems.initial_values("float64")
    params = {n: x.copy() for n, x in values.items()}
    values["bias"] = values["bias"].astype("float32")
    variables = problems.make_variables(values)
    for step in range(5):
        grads = problems.gradients(step, "float64")
        problems.apply(ours, variables, grads)
        params = reference.step(params, grads)
    dtypes = [arithmetic.dtype_name(v) for v in variables]
    assert dtypes == ["float64", "float32", "float64"]
    assert problems.distance(problems.values_of(variables), params) < 3e-6


@pytest.mark.skipif(not ON_JAX, reason="only JAX needs to be asked")
def test_in_a_process_where_jax_has_float64():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "12_digits or beside"]
        + [__file__],
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "38 passed" in run.stdout
