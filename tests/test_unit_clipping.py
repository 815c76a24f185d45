"""Adaptive gradient clipping as a function of arrays."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import QUICK, SHAPES, arrays, assert_close
from tests.reference import clipping
from tf_lamb import hyperparameters, rules
from tf_lamb.unit_clipping import clip_by_unit

# Shape, and the axes that optax sums over if it does not find them itself.
UNITS = {
    "scalar": ((), None),
    "bias": ((7,), None),
    "row": ((1, 7), None),
    "column": ((7, 1), None),
    "dense": ((5, 7), None),
    "convolution": ((3, 3, 4, 6), None),
    "convolution_3d": ((2, 3, 2, 4, 6), None),
    "heads": ((5, 2, 3), (0, 1)),
    "one_row_more_than_blocks": ((9, 3), None),
}


def _arrays(shape, dtype="float32"):
    """Weights, some of them 0, and gradients of very different sizes."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape)
    g = rng.normal(size=shape) * rng.choice([1e-4, 0.1, 30.0], shape[-1:])
    if len(shape) > 1:
        w[..., 0] = 0
    return np.asarray(w, dtype), np.asarray(g, dtype)


@pytest.mark.parametrize("limit", [0.01, 0.3])
@pytest.mark.parametrize("name", UNITS)
def test_equals_optax(name, limit):
    shape, axes = UNITS[name]
    w, g = _arrays(shape)
    clip = optax.adaptive_grad_clip(limit, axis=axes)
    expected, _ = clip.update(jnp.asarray(g), clip.init(w), jnp.asarray(w))
    got = clip_by_unit(np, w, g, limit)
    assert got.dtype == np.float32 and got.shape == shape
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=0)


@QUICK
@given(SHAPES.flatmap(lambda s: st.tuples(arrays(s), arrays(s))))
def test_is_the_reference(pair):
    w, g = pair
    got = clip_by_unit(np, w, g, 0.1)
    expected = clipping.clip_by_unit(g, w, 0.1)
    assert_close(got, expected, 1e-14)
    # What is clipped once is at its limit.
    assert_close(clip_by_unit(np, w, got, 0.1), got, 1e-14)


def test_a_unit_is_what_leads_to_one_output():
    w = np.ones((4, 3))
    g = np.array([[0.01, 1.0, 10.0]] * 4)
    norms = np.linalg.norm(clip_by_unit(np, w, g, 0.5), axis=0)
    np.testing.assert_allclose(norms, [0.02, 1.0, 1.0])
    # Of weights that are 0, as long as those of norm 0.001.
    norms = np.linalg.norm(clip_by_unit(np, 0 * w, g, 0.5), axis=0)
    np.testing.assert_allclose(norms, 0.0005)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_norms_of_narrow_arrays_are_float32(dtype):
    w, g = np.ones((4, 3), dtype), np.full((4, 3), 3e4, dtype)
    got = clip_by_unit(np, w, g, 0.5)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, 0.5, rtol=1e-3)


def test_what_is_not_finite_stays_so():
    w = np.ones((2, 3), "float32")
    g = np.array([[np.nan, np.inf, 1], [1, 1, 1]], "float32")
    with np.errstate(invalid="ignore"):
        got = clip_by_unit(np, w, g, 0.5)
    assert np.isfinite(got).tolist() == [[0, 0, 1], [1, 1, 1]]


def test_an_empty_variable_has_no_units():
    for shape in ((0, 3), (3, 0), (0,)):
        empty = np.zeros(shape, "float32")
        assert clip_by_unit(np, empty, empty, 0.5).shape == shape


@pytest.mark.parametrize("rule", ["lamb", "lars"])
def test_the_rule_of_a_clipped_gradient(rule):
    """With the constant, what the rule makes of the clipped gradient."""
    w, g = _arrays((5, 7), "float64")
    slots = [np.zeros_like(w)] * (2 if rule == "lamb" else 1)

    def step(grad, **constants):
        hyper = {"lamb": hyperparameters.Lamb, "lars": hyperparameters.Lars}
        return rules.update(
            np,
            hyper[rule](**constants),
            w,
            slots,
            grad,
            1.0,
            learning_rate=0.1,
            weight_decay=0.1,
        )

    got = step(g, clip_by_unit=0.02)
    expected = step(clip_by_unit(np, w, g, 0.02))
    for one, other in zip(got, expected):
        np.testing.assert_array_equal(one, other)
    assert np.abs(got.m - step(g).m).max() > 1e-4
