"""What holds for LARS' rule whatever the arrays and the hyperparameters."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

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
from tests.reference.lamb import norm_of, phi
from tests.reference.lars import ReferenceLARS
from tf_lamb import arithmetic, hyperparameters, rules

RATE_INSIDE = ("you2017", "optax")
BY_MOMENTUM = ("model_garden", "you2020")


def step_of(x, g, m, rate=0.25, decay=0.0, adapt=True, proceed=None, **hyper):
    """One call of the rule: the only place that knows its signature."""
    return rules.lars(
        np,
        x,
        g,
        m,
        learning_rate=rate,
        weight_decay=decay,
        adapt=adapt,
        hyper=hyperparameters.Lars(**hyper),
        proceed=proceed,
    )


def run(x, grads, rates=None, **arguments):
    """The parameter after all gradients, and the result of each step."""
    m, steps = np.zeros_like(x), []
    for g, rate in zip(grads, rates or [0.25] * len(grads)):
        steps.append(step_of(x, g, m, rate, **arguments))
        x, m, _, _ = steps[-1]
    return x, steps


def none_is_1(steps):
    """Whether no norm was 0, at which the ratio is set to 1."""
    return all(step.trust_ratio != 1 for step in steps)


MOMENTA = st.sampled_from([0.0, 0.5, 0.9, 0.99])
DECAYS = st.sampled_from([0.0, 0.01, 0.5])
NORMS = st.sampled_from(arithmetic.NORMS)
FORMS = st.sampled_from(hyperparameters.LARS_FORMS)
RATES = st.lists(
    st.one_of(st.just(0.0), st.floats(2.0**-8, 1.0)), min_size=4, max_size=4
)
ALL_BUT_FORM = dict(
    momentum=MOMENTA,
    trust_coefficient=st.sampled_from([0.001, 0.1, 1.0]),
    epsilon=st.sampled_from([0.0, 1e-3, 0.5]),
    norm=NORMS,
    phi_bounds=BOUNDS,
)
SAME = st.fixed_dictionaries(ALL_BUT_FORM)


@st.composite
def hypers(draw, forms=FORMS):
    """Every argument of the rule but the rate, the decay and `adapt`."""
    form = draw(forms)
    nesterov = form != "you2020" and draw(st.booleans())
    return {**draw(SAME), "form": form, "nesterov": nesterov}


@st.composite
def states(draw):
    """`x, g, m`: any momentum."""
    shape = draw(SHAPES)
    return tuple(draw(arrays(shape)) for _ in range(3))


def _reference(hyper, rate, decay, **arguments):
    return ReferenceLARS(rate, weight_decay=decay, **hyper, **arguments)


@QUICK
@given(problems(), RATES, hypers(), DECAYS, st.booleans())
def test_it_is_the_reference(problem, rates, hyper, decay, adapt):
    x, grads = problem
    got, steps = run(x, grads, rates, decay=decay, adapt=adapt, **hyper)
    reference = _reference(
        hyper, rates.__getitem__, decay, no_adapt=() if adapt else "x"
    )
    params = {"x": x}
    sizes = [np.abs(x).max()]
    for g in grads:
        params = reference.step(params, {"x": g})
        # Where a decay nearly cancels a gradient, the ratio is as large as the
        # rounding is.
        parts = 1 + np.abs(g).max() + decay * np.abs(params["x"]).max()
        sizes.append(reference.trust_ratios["x"] * parts)
    assert_close(got, params["x"], 1e-9, sizes)
    assert_close(steps[-1].m, reference.buf["x"], 1e-9, sizes + [8.0])
    assert steps[-1].v is None


@QUICK
@given(states(), hypers(), DECAYS, st.booleans())
def test_float32_is_the_float64_reference_but_for_rounding(
    state, hyper, decay, adapt
):
    x, g, m = (a.astype("float32") for a in state)
    got = step_of(
        x, g, m, np.float32(0.25), np.float32(decay), adapt=adapt, **hyper
    )
    assert got.param.dtype == got.m.dtype == np.float32
    reference = _reference(hyper, 0.25, decay, no_adapt=() if adapt else "x")
    reference.buf["x"] = m.astype(float)
    params = reference.step({"x": x}, {"x": g})
    ratio = reference.trust_ratios["x"]
    parts = norm_of(g, "l1") + decay * norm_of(x, "l1") + norm_of(m, "l1")
    # Of a sum that nearly cancels, the ratio is as inexact as the rounding.
    length = norm_of(params["x"] - x, "l2")
    assume(ratio * parts <= 100 * (length + np.abs(x).max()))
    size = np.abs(x).max() + (1 + ratio) * parts
    assert_close(got.param, params["x"], 1e-5, size)
    assert_close(got.m, reference.buf["x"], 1e-5, size)


@QUICK
@given(problems(), RATES, SAME, st.booleans(), st.booleans())
def test_without_decay_two_denominators_are_one(
    problem, rates, hyper, nesterov, adapt
):
    """`|g| + lambda |x|` and `|g + lambda x|`: the same bits."""
    x, grads = problem
    one, two = (
        run(x, grads, rates, form=form, nesterov=nesterov, adapt=adapt, **hyper)
        for form in ("you2017", "optax")
    )
    np.testing.assert_array_equal(one[0], two[0])
    for a, b in zip(one[1], two[1]):
        np.testing.assert_array_equal(a.m, b.m)
        assert a.trust_ratio == b.trust_ratio


@QUICK
@given(problems(), SAME, DECAYS, st.booleans(), st.booleans())
def test_at_a_constant_rate_it_does_not_matter_where_the_rate_enters(
    problem, hyper, decay, nesterov, adapt
):
    """At a power of two, not a bit of it; at another rate only rounding."""
    x, grads = problem
    same = dict(decay=decay, nesterov=nesterov, adapt=adapt, **hyper)
    inside, outside = (
        run(x, grads, form=form, **same)[0] for form in ("you2017", "timm")
    )
    np.testing.assert_array_equal(inside, outside)


@QUICK
@given(problems(), RATES, SAME, DECAYS)
def test_without_momentum_the_forms_are_two(problem, rates, hyper, decay):
    """They differ by the denominator; you2020 has no trust coefficient."""
    x, grads = problem
    same = {**hyper, "momentum": 0.0, "decay": decay, "trust_coefficient": 1.0}
    of = {
        form: run(x, grads, rates, form=form, **same)[0]
        for form in hyperparameters.LARS_FORMS
    }
    size = np.abs(x).max()
    for one, two in (
        ("you2017", "timm"),
        ("optax", "model_garden"),
        ("model_garden", "you2020"),
    ):
        assert_close(of[one], of[two], 1e-9, size + 1.0)


@QUICK
@given(problems(), RATES, SAME, DECAYS)
def test_what_the_momentum_is_scaled_by_cancels_in_its_direction(
    problem, rates, hyper, decay
):
    """model_garden and you2020 on adapted variables, without epsilon."""
    x, grads = problem
    same = {**hyper, "epsilon": 0.0, "trust_coefficient": 1.0, "decay": decay}
    one, two = (
        run(x, grads, rates, form=form, **same)
        for form in ("model_garden", "you2020")
    )
    assume(none_is_1(one[1] + two[1]))
    assert_close(one[0], two[0], 1e-6, np.abs(x).max() + 1.0)


@QUICK
@given(states(), SAME, st.sampled_from([0.01, 0.5]))
def test_bounds_of_the_local_rate(state, hyper, decay):
    """c / lambda at most; by the triangle inequality at most optax' rate."""
    hyper = {**hyper, "phi_bounds": None}
    ratio = {
        form: step_of(*state, decay=decay, form=form, **hyper).trust_ratio
        for form in ("you2017", "optax", "timm")
    }
    x, g, _ = state
    assert ratio["you2017"] == ratio["timm"]
    if x.any() and g.any():
        limit = hyper["trust_coefficient"] / decay
        assert 0 < ratio["you2017"] <= limit * (1 + 1e-12)
        if (g + decay * x).any():
            assert ratio["you2017"] <= ratio["optax"] * (1 + 1e-12)
    elif not x.any():
        assert list(ratio.values()) == [1, 1, 1]


@QUICK
@given(states(), hypers(st.sampled_from(BY_MOMENTUM)), DECAYS)
def test_an_adapted_step_of_the_momentum_is_as_long_as_phi_says(
    state, hyper, decay
):
    """Without epsilon, `lr c phi(|x|)` in the norm that was asked for."""
    hyper = {**hyper, "epsilon": 0.0}
    x, kind = state[0], hyper["norm"]
    got = step_of(*state, rate=1.0, decay=decay, **hyper)
    moved = x - got.param
    if not x.any():
        assert got.trust_ratio == 1
    elif moved.any():
        c = hyper["trust_coefficient"] if hyper["form"] != "you2020" else 1.0
        own = norm_of(x, kind)
        length = norm_of(moved, kind)
        assert_close(length, c * phi(own, hyper["phi_bounds"]), 1e-9, own)


@QUICK
@given(problems(), RATES, hypers(), POWERS_OF_TWO)
def test_the_scale_of_the_gradient_does_not_matter(
    problem, rates, hyper, scale
):
    """Without epsilon and decay; the local rate divides by the scale."""
    x, grads = problem
    hyper = {**hyper, "epsilon": 0.0}
    expected, steps = run(x, grads, rates, **hyper)
    got, scaled = run(x, [scale * g for g in grads], rates, **hyper)
    assume(none_is_1(steps + scaled))
    np.testing.assert_array_equal(got, expected)
    for a, b in zip(scaled, steps):
        assert a.trust_ratio * scale == b.trust_ratio


@QUICK
@given(states(), hypers(), DECAYS, POWERS_OF_TWO)
def test_a_step_scales_with_its_parameter(state, hyper, decay, scale):
    """`c x` with the decay `lambda / c`: the parameter times `c`, exactly."""
    x, g, _ = state
    hyper = {**hyper, "phi_bounds": None}
    zeros = np.zeros_like(x)
    expected = step_of(x, g, zeros, decay=decay, **hyper)
    assume(expected.trust_ratio != 1)
    got = step_of(scale * x, g, zeros, decay=decay / scale, **hyper)
    np.testing.assert_array_equal(got.param, scale * expected.param)


@QUICK
@given(problems(), RATES, hypers(), DECAYS, st.booleans())
def test_the_sign_does_not_matter(problem, rates, hyper, decay, adapt):
    x, grads = problem
    same = dict(decay=decay, adapt=adapt, **hyper)
    expected, steps = run(x, grads, rates, **same)
    got, mirrored = run(-x, [-g for g in grads], rates, **same)
    np.testing.assert_array_equal(got, -expected)
    assert mirrored[-1].trust_ratio == steps[-1].trust_ratio


@QUICK
@given(states(), hypers(), DECAYS, st.data())
def test_order_and_shape_of_the_elements_do_not_matter(
    state, hyper, decay, data
):
    x, g, m = state
    mixed = mix(data.draw, x.shape)
    expected = step_of(x, g, m, decay=decay, **hyper)
    got = step_of(*map(mixed, state), decay=decay, **hyper)
    assert_close(got.trust_ratio, expected.trust_ratio, 1e-9)
    size = np.abs(x).max() + 1.0
    assert_close(got.param, mixed(expected.param), 1e-9, size)
    assert_close(got.m, mixed(expected.m), 1e-9, size)


@QUICK
@given(problems(), hypers(), DECAYS)
def test_an_excluded_variable_takes_the_step_of_sgd(problem, hyper, decay):
    """With momentum and decay; at a constant rate in every form."""
    x, grads = problem
    got, steps = run(x, grads, decay=decay, adapt=False, **hyper)
    momentum, m = hyper["momentum"], np.zeros_like(x)
    share = 1 - momentum if hyper["form"] == "you2020" else 1.0
    for g in grads:
        d = share * (g + decay * x)
        m = momentum * m + d
        x = x - 0.25 * (d + momentum * m if hyper["nesterov"] else m)
    assert_close(got, x, 1e-9, 8.0)
    assert steps[-1].trust_ratio == 1


@QUICK
@given(states(), hypers(), DECAYS, st.booleans(), st.sampled_from([1, np.nan]))
def test_a_skipped_step_leaves_all_as_it_is(state, hyper, decay, adapt, bad):
    x, g, m = state
    same = dict(decay=decay, adapt=adapt, **hyper)
    skipped = step_of(x, bad * g, m, proceed=np.False_, **same)
    for got, old in zip(skipped, (x, m)):
        np.testing.assert_array_equal(got, old)
    made = step_of(x, g, m, proceed=np.True_, **same)
    expected = step_of(x, g, m, **same)
    for i in (0, 1, 3):
        np.testing.assert_array_equal(made[i], expected[i])


@QUICK
@given(states(), hypers(), DECAYS)
def test_at_rate_0_an_adapted_parameter_stays(state, hyper, decay):
    """But for a momentum that has the rate inside it."""
    x, g, m = state
    if hyper["form"] in RATE_INSIDE:
        m = np.zeros_like(m)
    got = step_of(x, g, m, rate=0.0, decay=decay, **hyper)
    np.testing.assert_array_equal(got.param, x)


@pytest.mark.parametrize("form", hyperparameters.LARS_FORMS)
def test_the_forms_are_five(form):
    """No two of them agree under a falling rate, with decay and momentum."""
    x, g = np.array([3.0, -1.0]), np.array([0.5, 2.0])
    rates = [0.5, 0.25, 0.125]
    arguments = dict(decay=0.5, trust_coefficient=0.1, epsilon=1e-3)
    own, _ = run(x, [g] * 3, rates, form=form, **arguments)
    for other in set(hyperparameters.LARS_FORMS) - {form}:
        theirs, _ = run(x, [g] * 3, rates, form=other, **arguments)
        assert np.abs(own - theirs).max() > 1e-3
