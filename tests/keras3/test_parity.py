"""Every option of LAMB and LARS against the float64 reference, 30 steps."""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.reference.lamb import ReferenceLAMB
from tests.reference.lars import ReferenceLARS

STEPS = 30
DECAY = {"weight_decay": 0.05}
NO_BIAS = {"exclude_from_weight_decay": ["bias", "scale"]}


def _fall(step):
    return 0.02 * (1 - step / 40)


class Fall(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of `_fall`, as Keras wants it."""

    def __call__(self, step):
        return 0.02 * (1 - keras.ops.cast(step, "float32") / 40)

    def get_config(self):
        return {}


# (what the optimizer is given, what the reference is given on top or instead)
SHARED = {
    "plain": ({}, {}),
    "weight_decay": (DECAY, {}),
    "exclusions": (
        {**DECAY, **NO_BIAS},
        {"no_decay": ("bias", "scale"), "no_adapt": ("bias", "scale")},
    ),
    "excluded_from_decay_only": (
        {**DECAY, **NO_BIAS, "exclude_from_layer_adaptation": []},
        {"no_decay": ("bias", "scale")},
    ),
    "excluded_from_adaptation_only": (
        {**DECAY, "exclude_from_layer_adaptation": ["kernel"]},
        {"no_adapt": ("kernel",)},
    ),
    "norm_l1": ({**DECAY, "norm": "l1"}, {}),
    "norm_linf": ({**DECAY, "norm": "linf"}, {}),
    "phi_bounds": ({**DECAY, "phi_bounds": (0.5, 2.0)}, {}),
    "clipnorm": ({**DECAY, "clipnorm": 0.1}, {}),
    "clipvalue": ({**DECAY, "clipvalue": 0.1}, {}),
    "global_clipnorm": ({**DECAY, "global_clipnorm": 0.1}, {}),
    "schedule": (
        {**DECAY, "learning_rate": Fall()},
        {"learning_rate": _fall},
    ),
    "keep_nonfinite": ({**DECAY, "skip_nonfinite": False}, {}),
    "not_compiled": ({**DECAY, "jit_compile": False}, {}),
    "accumulation": (
        {**DECAY, "gradient_accumulation_steps": 3, "global_clipnorm": 0.1},
        {"accumulation_steps": 3},
    ),
    "ema": (
        {**DECAY, "use_ema": True, "ema_momentum": 0.9},
        {"ema_momentum": 0.9},
    ),
    "accumulation_and_ema": (
        {
            **DECAY,
            "gradient_accumulation_steps": 3,
            "use_ema": True,
            "ema_momentum": 0.9,
        },
        {"accumulation_steps": 3, "ema_momentum": 0.9},
    ),
}
LAMB = {
    "betas": ({**DECAY, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}, {}),
    "betas_0": ({**DECAY, "beta_1": 0.0, "beta_2": 0.0}, {}),
    "no_bias_correction": ({**DECAY, "bias_correction": False}, {}),
    "nadam": ({**DECAY, "nesterov": "nadam"}, {}),
    "nadam_both": ({**DECAY, "nesterov": "nadam_both"}, {}),
    "nadam_uncorrected": (
        {**DECAY, "nesterov": "nadam_both", "bias_correction": False},
        {},
    ),
}
LARS = {
    form if not nesterov else f"{form}_nesterov": (
        {**DECAY, "form": form, "nesterov": nesterov, "learning_rate": Fall()},
        {"learning_rate": _fall},
    )
    for form in tf_lamb.rules.LARS_FORMS
    for nesterov in (False, True)
    if not (nesterov and form == "you2020")
} | {
    f"{form}_excluded": (
        {**DECAY, **NO_BIAS, "form": form, "epsilon": 0.01},
        {"no_decay": ("bias", "scale"), "no_adapt": ("bias", "scale")},
    )
    for form in tf_lamb.rules.LARS_FORMS
}
# Arguments of the optimizer that the reference knows by another name, or not.
_NOT_THE_REFERENCE_S = (
    "exclude_from_weight_decay",
    "exclude_from_layer_adaptation",
    "gradient_accumulation_steps",
    "use_ema",
    "jit_compile",
)


def _cases():
    for optimizer, table in (("LAMB", SHARED | LAMB), ("LARS", SHARED | LARS)):
        for name, (arguments, changes) in table.items():
            yield pytest.param(
                optimizer, arguments, changes, id=f"{optimizer}-{name}"
            )


def _make(optimizer, arguments, changes):
    start = {"learning_rate": 0.02}
    if optimizer == "LARS":
        start["trust_coefficient"] = 0.1
    known = {
        name: value
        for name, value in arguments.items()
        if name not in _NOT_THE_REFERENCE_S
    }
    reference = {"LAMB": ReferenceLAMB, "LARS": ReferenceLARS}[optimizer]
    return (
        getattr(tf_lamb, optimizer)(**{**start, **arguments}),
        reference(**{**start, **known, **changes}),
    )


@pytest.mark.parametrize("optimizer, arguments, changes", list(_cases()))
def test_equals_the_reference_over_30_steps(optimizer, arguments, changes):
    ours, reference = _make(optimizer, arguments, changes)
    variables = problems.run(ours, STEPS)
    expected = problems.run_reference(reference, STEPS)
    got = problems.values_of(variables)
    assert problems.distance(got, expected) < 3e-6
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
    ours, reference = _make(
        optimizer, {"weight_decay": 0.5, "learning_rate": 0.5}, {}
    )
    got = problems.values_of(problems.run(ours, STEPS, "float64"))
    expected = problems.run_reference(reference, STEPS, "float64")
    # The factors that reach a kernel as float32 scalars (rate, decay) are
    # powers of 2 here, so that nothing is lost on the way.
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
