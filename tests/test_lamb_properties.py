"""What holds for LAMB's rule whatever the arrays and the hyperparameters."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.lamb_rule import run, step_of
from tests.properties import (
    BOUNDS,
    POWERS_OF_TWO,
    QUICK,
    SHAPES,
    arrays,
    assert_close,
    mix,
    problems,
)
from tests.reference.lamb import ReferenceLAMB, norm_of, phi
from tests.reference.lamb_peers import PEERS
from tf_lamb import arithmetic, hyperparameters

# So small that it changes no sum in float64.
NO_EPSILON = 1e-200

BETAS = st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999])
DECAYS = st.sampled_from([0.0, 0.01, 0.5])
NORMS = st.sampled_from(arithmetic.NORMS)
NESTEROV = st.sampled_from(hyperparameters.NESTEROV_FORMS)
# What the direction depends on, under the names of the rule.
DIRECTION = dict(
    beta_1=BETAS,
    beta_2=BETAS,
    epsilon=st.sampled_from([1e-6, 1e-3, 0.1]),
    bias_correction=st.booleans(),
    nesterov=NESTEROV,
)
HYPER = st.fixed_dictionaries(
    {**DIRECTION, "norm": NORMS, "phi_bounds": BOUNDS}
)


def _of_a_form(hyper):
    """What a form does not have, as it has it."""
    own = hyperparameters.LAMB_FORMS[hyper["form"]]
    hyper |= {n: getattr(own, n) for n in own.fixed}
    hyper["cautious"] &= not own.two_directions
    hyper["grad_averaging"] |= hyper["nesterov"] is not None
    return hyper


ANY_FORM = st.fixed_dictionaries(
    {
        **DIRECTION,
        "norm": NORMS,
        "phi_bounds": BOUNDS,
        "form": st.sampled_from(list(hyperparameters.LAMB_FORMS)),
        "cautious": st.booleans(),
        "grad_averaging": st.booleans(),
    }
).map(_of_a_form)
UNITS = st.sampled_from([None, 0.01, 1.0])


@st.composite
def states(draw):
    """`x, g, m, v, t`: any moments, at any step."""
    shape = draw(SHAPES)
    v = draw(arrays(shape, st.floats(2.0**-20, 64.0)))
    x, g, m = (draw(arrays(shape)) for _ in range(3))
    return x, g, m, v, draw(st.integers(1, 1000))


def _reference(hyper, rate, decay, **arguments):
    return ReferenceLAMB(rate, weight_decay=decay, **hyper, **arguments)


@QUICK
@given(problems(), HYPER, DECAYS, st.booleans())
def test_it_is_the_reference(problem, hyper, decay, adapt):
    x, grads = problem
    got, last = run(x, grads, decay=decay, adapt=adapt, **hyper)
    reference = _reference(hyper, 0.01, decay, no_adapt=() if adapt else "x")
    params = {"x": x}
    for g in grads:
        params = reference.step(params, {"x": g})
    # Where a decay nearly cancels the moments, the ratio is as large as the
    # rounding is.
    u_size = 0.01 * last.trust_ratio * (5 + decay * np.abs(x).max())
    assert_close(got, params["x"], 1e-9, u_size)
    assert_close(last.m, reference.m["x"], 1e-12, 8.0)
    assert_close(last.v, reference.v["x"], 1e-12, 64.0)


@QUICK
@given(problems(), st.sampled_from(list(PEERS)), DECAYS, st.booleans())
def test_each_form_is_its_source(problem, form, decay, cautious):
    x, grads = problem
    own = hyperparameters.LAMB_FORMS[form]
    cautious = cautious and form in ("timm", "lambw")
    hyper = dict(
        form=form,
        epsilon=1e-3,
        bias_correction=own.bias_correction,
        trust_ratio_bounds=own.trust_ratio_bounds,
        cautious=cautious,
    )
    adapt = own.undecayed != "by_list" or bool(decay)
    got, last = run(x, grads, decay=decay, adapt=adapt, **hyper)
    options = {"cautious": True} if cautious else {}
    if own.global_clipnorm is not None:
        options["global_clipnorm"] = np.inf
    peer = PEERS[form](
        0.01, decay, no_decay=() if decay else "x", epsilon=1e-3, **options
    )
    params = {"x": x}
    for g in grads:
        params = peer.step(params, {"x": g})
    size = 0.01 * last.trust_ratio * (50 + decay * np.abs(x).max())
    if cautious:
        size *= 1000
    assert_close(got, params["x"], 1e-9, size)


@QUICK
@given(problems(), DECAYS, st.booleans(), UNITS, NESTEROV)
def test_masks_and_units_are_those_of_the_reference(
    problem, decay, cautious, unit, nesterov
):
    x, grads = problem
    same = dict(cautious=cautious, clip_by_unit=unit)
    same["nesterov"] = None if cautious else nesterov
    got, last = run(x, grads, decay=decay, **same)
    reference = _reference(same, 0.01, decay)
    params = {"x": x}
    for g in grads:
        params = reference.step(params, {"x": g})
    size = 0.01 * last.trust_ratio * (5 + decay * np.abs(x).max())
    assert_close(got, params["x"], 1e-9, 1000 * size if cautious else size)
    assert_close(last.m, reference.m["x"], 1e-12, 8.0)


@QUICK
@given(states(), HYPER, DECAYS, st.booleans())
def test_float32_is_the_float64_reference_but_for_rounding(
    state, hyper, decay, adapt
):
    *arrays_, t = state
    x, g, m, v = (a.astype("float32") for a in arrays_)
    rate = np.float32(0.01)
    got = step_of(x, g, m, v, t, rate, np.float32(decay), adapt=adapt, **hyper)
    assert got.param.dtype == got.m.dtype == got.v.dtype == np.float32
    reference = _reference(
        hyper, float(rate), decay, no_adapt=() if adapt else "x"
    )
    reference.t = t - 1
    reference.m["x"], reference.v["x"] = m.astype(float), v.astype(float)
    params = reference.step({"x": x}, {"x": g})
    ratio = reference.trust_ratios["x"]
    # Of a direction that is a sum of two parts which nearly cancel, the ratio
    # is as inexact as their rounding.
    length = norm_of(params["x"] - x, "l2") / 0.01
    decayed = ratio * decay * norm_of(x, "l2")
    assume(decayed <= 100 * length)
    size = np.abs(x).max() + 0.01 * (length + decayed)
    assert_close(got.param, params["x"], 1e-5, size)
    assert_close(got.m, reference.m["x"], 1e-6, 8.0)
    assert_close(got.v, reference.v["x"], 1e-6, 64.0)


@QUICK
@given(states(), HYPER, DECAYS)
def test_an_adapted_step_is_as_long_as_phi_says(state, hyper, decay):
    x, kind, bounds = state[0], hyper["norm"], hyper["phi_bounds"]
    got = step_of(*state, rate=1.0, decay=decay, **hyper)
    moved = x - got.param
    if not x.any():
        assert got.trust_ratio == 1
    elif moved.any():
        length, own = norm_of(moved, kind), norm_of(x, kind)
        assert_close(length, phi(own, bounds), 1e-9, own)
        if bounds:
            slack = 1e-9 * own
            assert bounds[0] - slack <= length <= bounds[1] + slack
    assert got.trust_ratio >= 0 and np.isfinite(got.trust_ratio)


@QUICK
@given(problems(), ANY_FORM, POWERS_OF_TWO)
def test_the_scale_of_the_gradient_does_not_matter(problem, hyper, scale):
    """Without epsilon; all gradients times a power of two: the same bits."""
    x, grads = problem
    hyper = {**hyper, "epsilon": NO_EPSILON, "beta_2": 0.99}
    expected, step = run(x, grads, decay=0.1, **hyper)
    got, scaled = run(x, [scale * g for g in grads], decay=0.1, **hyper)
    np.testing.assert_array_equal(got, expected)
    assert scaled.trust_ratio == step.trust_ratio
    if hyper["form"] == "lans":
        scale = 1  # its moments are those of a gradient without a scale
    np.testing.assert_array_equal(scaled.m, scale * step.m)
    np.testing.assert_array_equal(scaled.v, scale**2 * step.v)


@QUICK
@given(problems(), HYPER, DECAYS, POWERS_OF_TWO)
def test_a_step_scales_with_its_parameter(problem, hyper, decay, scale):
    """`c x` with the decay `lambda / c`: all parameters times `c`, exactly."""
    x, grads = problem
    hyper = {**hyper, "phi_bounds": None}
    if not x.any():
        return  # The ratio is 1 there, whatever the scale.
    expected, _ = run(x, grads[:1], decay=decay, **hyper)
    got, _ = run(scale * x, grads[:1], decay=decay / scale, **hyper)
    np.testing.assert_array_equal(got, scale * expected)


@QUICK
@given(problems(), ANY_FORM, DECAYS, st.booleans(), UNITS)
def test_the_sign_does_not_matter(problem, hyper, decay, adapt, unit):
    x, grads = problem
    same = dict(decay=decay, adapt=adapt, clip_by_unit=unit, **hyper)
    expected, step = run(x, grads, **same)
    got, mirrored = run(-x, [-g for g in grads], **same)
    np.testing.assert_array_equal(got, -expected)
    assert mirrored.trust_ratio == step.trust_ratio


@QUICK
@given(problems(), HYPER, DECAYS, st.data())
def test_order_and_shape_of_the_elements_do_not_matter(
    problem, hyper, decay, data
):
    x, grads = problem
    mixed = mix(data.draw, x.shape)
    expected, step = run(x, grads, decay=decay, **hyper)
    got, last = run(mixed(x), list(map(mixed, grads)), decay=decay, **hyper)
    assert_close(last.trust_ratio, step.trust_ratio, 1e-9)
    assert_close(got, mixed(expected), 1e-9, np.abs(x).max())


@QUICK
@given(problems(), st.fixed_dictionaries(DIRECTION), DECAYS, NORMS, BOUNDS)
def test_an_excluded_variable_takes_the_step_of_adamw(
    problem, hyper, decay, norm, bounds
):
    """Whatever the norm and phi are; without decay it is Adam."""
    x, grads = problem
    hyper = {**hyper, "bias_correction": True, "nesterov": None}
    got, last = run(
        x,
        grads,
        decay=decay,
        adapt=False,
        norm=norm,
        phi_bounds=bounds,
        **hyper,
    )
    beta_1, beta_2 = hyper["beta_1"], hyper["beta_2"]
    m = v = np.zeros_like(x)
    for t, g in enumerate(grads, 1):
        m, v = m + (1 - beta_1) * (g - m), v + (1 - beta_2) * (g * g - v)
        adam = (
            m
            / (1 - beta_1**t)
            / (np.sqrt(v / (1 - beta_2**t)) + hyper["epsilon"])
        )
        x = x - 0.01 * adam - 0.01 * decay * x
    assert_close(got, x, 1e-9, 1e-2)
    assert last.trust_ratio == 1


@QUICK
@given(
    states(),
    ANY_FORM,
    DECAYS,
    st.booleans(),
    st.sampled_from([1, np.nan]),
    UNITS,
)
def test_a_skipped_step_leaves_all_as_it_is(
    state, hyper, decay, adapt, bad, unit
):
    x, g, m, v, t = state
    same = dict(decay=decay, adapt=adapt, clip_by_unit=unit, **hyper)
    skipped = step_of(x, bad * g, m, v, t, proceed=np.False_, **same)
    for got, old in zip(skipped, (x, m, v)):
        np.testing.assert_array_equal(got, old)
    made = step_of(x, g, m, v, t, proceed=np.True_, **same)
    for got, expected in zip(made, step_of(x, g, m, v, t, **same)):
        np.testing.assert_array_equal(got, expected)


@QUICK
@given(states(), HYPER, DECAYS, st.booleans())
def test_moments_know_only_the_gradients(state, hyper, decay, adapt):
    """Not the rate, the decay, the adaptation or the parameter."""
    x, g, m, v, t = state
    one = step_of(x, g, m, v, t, 0.0, decay, adapt=adapt, **hyper)
    np.testing.assert_array_equal(one.param, x)
    other = {**hyper, "norm": "l1", "phi_bounds": None, "nesterov": None}
    two = step_of(x + 1, g, m, v, t, 3.0, 0.7, adapt=not adapt, **other)
    np.testing.assert_array_equal(one.m, two.m)
    np.testing.assert_array_equal(one.v, two.v)
    # Averages: between what they were and what came.
    for new, old, came in ((one.m, m, g), (one.v, v, g * g)):
        slack = 1e-12 * (np.abs(old) + np.abs(came))
        assert (new >= np.minimum(old, came) - slack).all()
        assert (new <= np.maximum(old, came) + slack).all()


@QUICK
@given(problems(), HYPER)
def test_bias_correction_cancels_without_decay_and_epsilon(problem, hyper):
    """It is one factor of the direction; the trust ratio divides it out."""
    x, grads = problem
    hyper = {**hyper, "epsilon": NO_EPSILON, "nesterov": None}
    if not x.any():
        return  # The ratio is 1 there.
    results = [
        run(x, grads[:1], **{**hyper, "bias_correction": correction})[0]
        for correction in (False, True)
    ]
    assert_close(*results, 1e-9)


@QUICK
@given(problems(), HYPER, DECAYS, st.booleans())
def test_without_memory_there_is_no_look_ahead(problem, hyper, decay, adapt):
    x, grads = problem
    same = dict(decay=decay, adapt=adapt)
    for forms, betas in (
        ((None, "nadam"), {"beta_1": 0.0}),
        ((None, "nadam", "nadam_both"), {"beta_1": 0.0, "beta_2": 0.0}),
    ):
        expected, *others = [
            run(x, grads, **{**same, **hyper, **betas, "nesterov": form})[0]
            for form in forms
        ]
        for other in others:
            np.testing.assert_array_equal(other, expected)


@QUICK
@given(states(), ANY_FORM, DECAYS)
def test_bounds_that_nothing_reaches_are_no_bounds(state, hyper, decay):
    wide = {**hyper, "phi_bounds": (0.0, 1e300)}
    none = {**hyper, "phi_bounds": None}
    for got, expected in zip(
        step_of(*state, decay=decay, **wide),
        step_of(*state, decay=decay, **none),
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("nesterov", hyperparameters.NESTEROV_FORMS)
@QUICK
@given(problems(max_steps=1), st.sampled_from([0.5, 0.9, 0.999]))
def test_the_first_step_of_adam_is_the_sign(nesterov, problem, beta):
    """Without epsilon, `m_hat / sqrt(v_hat)` is `g / |g|` at the first step."""
    x, (g,) = problem
    got, _ = run(
        x,
        [g],
        rate=1.0,
        adapt=False,
        beta_1=beta,
        beta_2=beta**2,
        epsilon=NO_EPSILON,
        nesterov=nesterov,
    )
    if nesterov is None:
        assert_close(got, x - np.sign(g), 1e-12, 1.0)
    else:
        # The look-ahead changes its length, not its sign.
        np.testing.assert_array_equal(np.sign(x - got), np.sign(g))
