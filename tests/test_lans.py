"""LANS' rule on NumPy arrays; `tests/keras3/` and others run the optimizer."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import lamb_rule
from tests.properties import POWERS_OF_TWO, QUICK, assert_close, problems
from tests.reference.lamb import norm_of
from tests.reference.lamb_peers import ApexFusedLANS
from tests.reference.lans import LANS
from tf_lamb import arithmetic

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 9))
GRADS = [RNG.normal(size=X.shape) for _ in range(30)]


OF_LANS = {"form": "lans", "decay": 0.1}


def step_of(*state, **arguments):
    return lamb_rule.step_of(*state, **{**OF_LANS, **arguments})


def run(x, grads, **arguments):
    return lamb_rule.run(x, grads, **{**OF_LANS, **arguments})


def _by_columns(ops, kind, x, function=None, arrays=(), /):
    """A norm for each column: `arithmetic.NormOf`."""
    return np.sqrt(np.sum(np.square(x), axis=0, keepdims=True))


@pytest.mark.parametrize("beta_1", [0.0, 0.5, 0.9])
def test_is_the_authors_kernel_but_for_epsilon(beta_1):
    """They add it to the norm of a gradient; here that norm is about 7."""
    got, _ = run(X, GRADS, beta_1=beta_1)
    peer = ApexFusedLANS(0.01, 0.1, beta_1=beta_1)
    params = {"x": X}
    for g in GRADS:
        params = peer.step(params, {"x": g})
    np.testing.assert_allclose(got, params["x"], rtol=0, atol=1e-6)
    assert np.abs(got - X).max() > 0.01


@QUICK
@given(problems(), st.sampled_from(arithmetic.NORMS), st.booleans())
def test_is_the_reference(problem, norm, adapt):
    x, grads = problem
    got, last = run(x, grads, norm=norm, adapt=adapt)
    reference = LANS(0.01, 0.1, norm=norm, no_adapt=() if adapt else "x")
    params = {"x": x}
    for g in grads:
        params = reference.step(params, {"x": g})
    size = 0.01 * last.trust_ratio * (40 + np.abs(x).max())
    assert_close(got, params["x"], 1e-9, size)
    assert_close(last.m, reference.m["x"], 1e-12, 1.0)


@QUICK
@given(problems(), POWERS_OF_TWO)
def test_the_scale_of_each_gradient_does_not_matter(problem, scale):
    """Not even with an epsilon: the same bits."""
    x, grads = problem
    scales = np.where(np.arange(len(grads)) % 2, scale, 1.0)
    scaled = [g * s for g, s in zip(grads, scales)]
    np.testing.assert_array_equal(run(x, grads)[0], run(x, scaled)[0])


@QUICK
@given(problems(), st.sampled_from([0.0, 0.1]))
def test_a_step_is_at_most_as_long_as_the_parameter(problem, decay):
    """Both of its parts are: a share of `|x|` each."""
    x, grads = problem
    before, _ = run(x, grads[:-1], decay=decay) if grads[1:] else (x, None)
    after, _ = run(x, grads, decay=decay)
    if before.any():
        length = norm_of(after - before, "l2")
        assert length <= 0.01 * norm_of(before, "l2") * (1 + 1e-9)


def test_of_a_zero_gradient_the_step_is_what_moments_and_decay_make():
    zeros = np.zeros_like(X)
    with np.errstate(all="raise"):
        got, last = run(X, [zeros] * 3, decay=0.0)
        np.testing.assert_array_equal(got, X)
        assert last.trust_ratio == 1 and not last.v.any()
        got, last = run(X, [zeros] * 3, decay=0.1)
        np.testing.assert_allclose(got, X * 0.99**3, rtol=1e-14)
        x, _, v = X, *step_of(X, GRADS[0], zeros, zeros, 1)[1:3]
        got = step_of(x, zeros, zeros, v, 2, decay=0.0)
        np.testing.assert_array_equal(got.param, x)


def test_the_trust_ratio_shown_is_that_of_the_moments_direction():
    zeros = np.zeros_like(X)
    got = step_of(X, GRADS[0], zeros, zeros, 1, decay=0.0)
    g = GRADS[0] / norm_of(GRADS[0], "l2")
    u = g / (np.abs(g) + 1e-6)
    assert got.trust_ratio == pytest.approx(
        norm_of(X, "l2") / norm_of(u, "l2"), rel=1e-12
    )


def test_norms_of_parts_make_each_part_a_variable_of_its_own():
    got, last = run(X, GRADS, norm_of=_by_columns)
    assert last.trust_ratio.shape == (1, X.shape[1])
    for i in range(X.shape[1]):
        alone, step = run(X[:, i], [g[:, i] for g in GRADS])
        np.testing.assert_allclose(got[:, i], alone, rtol=0, atol=1e-14)
        assert last.trust_ratio[0, i] == pytest.approx(step.trust_ratio)


def test_a_skipped_step_changes_nothing_whatever_its_gradient():
    x, m, v, _ = step_of(X, GRADS[0], 0 * X, 0 * X, 1)
    for bad in (np.nan, np.inf):
        with np.errstate(invalid="ignore"):
            got = step_of(x, np.full_like(X, bad), m, v, 2, proceed=False)
        for new, old in zip(got[:3], (x, m, v)):
            np.testing.assert_array_equal(new, old)
    # And one that is made shows what was not finite.
    with np.errstate(invalid="ignore"):
        got = step_of(x, np.full_like(X, np.nan), m, v, 2)
    assert np.isnan(got.param).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_gradients_are_normalised_in_float32(dtype):
    x, g = X.astype(dtype), np.full(X.shape, 6e4, dtype)
    zeros = np.zeros(X.shape, "float32")
    got = step_of(x, g, zeros, zeros, 1)
    assert got.param.dtype == dtype and got.m.dtype == np.float32
    np.testing.assert_allclose(got.m, 0.1 * X.size**-0.5, rtol=1e-6)


def test_gradients_too_small_for_float32_count_as_zero():
    """Their squares are 0: the norm is, and nothing is divided by it."""
    x, zeros = X.astype("float32"), np.zeros(X.shape, "float32")
    got = step_of(x, np.full_like(x, 1e-30), zeros, zeros, 1, decay=0.0)
    np.testing.assert_array_equal(got.param, x)
    assert np.isfinite(got.m).all()
