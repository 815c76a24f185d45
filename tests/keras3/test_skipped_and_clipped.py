"""Steps that are skipped, gradients that are clipped, on every backend."""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.reference.lamb import ReferenceLAMB
from tests.reference.lars import ReferenceLARS

OPTIMIZERS = ("LAMB", "LARS")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20])
def test_nonfinite_gradient_skips_the_whole_update(name, bad):
    optimizer = getattr(tf_lamb, name)(0.1, use_ema=True, weight_decay=0.1)
    variables = problems.run(optimizer, 3)
    state = [*variables, *optimizer._slots[0], *optimizer._slots[-1]]
    state += optimizer._model_variables_moving_average
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in state]
    ratios = optimizer.trust_ratios
    grads = problems.gradients(3)
    grads["bias"][2] = bad  # one value of one variable
    problems.apply(optimizer, variables, grads)
    for variable, value in zip(state, before):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), value
        )
    assert optimizer.skipped_steps == 1
    assert optimizer.trust_ratios == ratios
    # From here on it goes as if the step had never been.
    problems.run(optimizer, 2, first_step=4, variables=variables)
    other = getattr(tf_lamb, name)(0.1, use_ema=True, weight_decay=0.1)
    expected = problems.run(other, 3)
    problems.run(other, 2, first_step=4, variables=expected)
    problems.assert_equal(variables, expected)


CLIPPING = [{"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"clipvalue": 0.5}]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", CLIPPING, ids=lambda clip: next(iter(clip)))
@pytest.mark.parametrize("factor", [1e19, 1e25, 1e35])
@pytest.mark.parametrize("of", ["bias", "all"])
def test_whatever_is_finite_is_clipped(name, clip, factor, of):
    """Squares of these gradients are infinite in float32."""
    arguments = dict(weight_decay=0.1, **clip)
    if name == "LARS":
        arguments.update(trust_coefficient=0.1)
    optimizer = getattr(tf_lamb, name)(0.1, **arguments)
    reference = {"LAMB": ReferenceLAMB, "LARS": ReferenceLARS}[name](
        0.1, **arguments
    )
    variables = problems.make_variables(problems.initial_values())
    params = problems.values_of(variables)
    for step in range(3):
        grads = problems.gradients(step)
        if step:  # the first one is in the normal range
            for variable in [of] if of != "all" else list(grads):
                grads[variable] *= np.float32(factor)
        problems.apply(optimizer, variables, grads)
        wide = {n: g.astype("float64") for n, g in grads.items()}
        params = reference.step(params, wide)
    assert optimizer.skipped_steps == 0
    assert problems.distance(problems.values_of(variables), params) < 3e-6


@pytest.mark.parametrize("clip", CLIPPING, ids=lambda clip: next(iter(clip)))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_skipped_with_clipping_too(clip, bad):
    optimizer = tf_lamb.LAMB(0.1, **clip)
    variables = problems.run(optimizer, 2)
    before = problems.values_of(variables)
    grads = problems.gradients(2)
    grads["bias"][2] = bad
    problems.apply(optimizer, variables, grads)
    assert optimizer.skipped_steps == 1
    assert problems.distance(problems.values_of(variables), before) == 0


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_a_factor_that_no_normal_float32_holds_is_a_skip(clip):
    optimizer = tf_lamb.LAMB(0.1, **{clip: 1e-4})
    variables = problems.run(optimizer, 1)
    grads = problems.gradients(1)
    grads["kernel"][:] = 3e38
    problems.apply(optimizer, variables, grads)
    assert optimizer.skipped_steps == 1


def test_first_step_may_be_skipped():
    optimizer = tf_lamb.LAMB(0.1)
    variables = problems.make_variables(problems.initial_values())
    problems.apply(
        optimizer,
        variables,
        {n: np.full_like(g, np.nan) for n, g in problems.gradients(0).items()},
    )
    problems.run(optimizer, 2, variables=variables)
    expected = problems.run(tf_lamb.LAMB(0.1), 2)
    problems.assert_equal(variables, expected)


def test_without_skipping_a_nan_reaches_the_weights():
    optimizer = tf_lamb.LAMB(0.1, skip_nonfinite=False)
    variables = problems.make_variables(problems.initial_values())
    grads = problems.gradients(0)
    grads["kernel"][0, 0] = np.nan
    problems.apply(optimizer, variables, grads)
    assert np.isnan(problems.values_of(variables)["kernel"]).any()


@pytest.mark.parametrize("iterations", [0, 1, -3, 2**31 - 100])
def test_iterations_set_by_hand_after_skipped_steps(iterations):
    """From 0 on, the steps are those that count from 1 with these moments."""
    optimizer = tf_lamb.LAMB(0.1, weight_decay=0.1, use_ema=True)
    variables = problems.run(optimizer, 2)
    for _ in range(3):
        grads = problems.gradients(2)
        grads["kernel"][:] = np.nan
        problems.apply(optimizer, variables, grads)
    assert optimizer.skipped_steps == 3
    optimizer.iterations.assign(iterations)
    expected = ReferenceLAMB(0.1, weight_decay=0.1)
    params = problems.values_of(variables)
    for name, slot in zip(("m", "v"), optimizer._slots):
        values = {
            x.name: keras.ops.convert_to_numpy(s).astype("float64")
            for x, s in zip(variables, slot)
        }
        setattr(expected, name, values)
    for step in range(3, 6):
        grads = problems.gradients(step)
        problems.apply(optimizer, variables, grads)
        params = expected.step(params, grads)
    got = problems.values_of(variables)
    assert all(np.isfinite(x).all() for x in got.values())
    if iterations == 0:
        assert problems.distance(got, params) < 1e-6
        assert optimizer.skipped_steps == 0


@pytest.mark.parametrize("clip", CLIPPING, ids=lambda clip: next(iter(clip)))
@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"])
def test_clipping_whatever_keras_makes_of_numbers(floatx, clip):
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        variable = keras.Variable(np.ones(4), dtype="float32", name="w")
        optimizer = tf_lamb.LARS(
            0.1, momentum=0.0, exclude_from_layer_adaptation=[""], **clip
        )
        optimizer.build([variable])
        grad = np.full(4, 1e25, "float32")
        optimizer.apply([keras.ops.convert_to_tensor(grad)], [variable])
        found = keras.ops.convert_to_numpy(variable)
    finally:
        keras.config.set_floatx(before)
    # The norm of the clipped gradient is 0.5, or each element is.
    moved = 0.05 if "clipvalue" in clip else 0.025
    np.testing.assert_allclose(found, 1 - moved, rtol=2e-3)
    assert optimizer.skipped_steps == 0
