"""Norms, and rounding by chance, whatever the arrays."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import (
    POWERS_OF_TWO,
    QUICK,
    SHAPES,
    arrays,
    assert_close,
    mix,
)
from tf_lamb import arithmetic

NORMS = st.sampled_from(arithmetic.NORMS)
ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}
# NumPy under the names of `BitOps`.
BITS = SimpleNamespace(
    arange=np.arange,
    reshape=np.reshape,
    right_shift=np.right_shift,
    view=lambda x, dtype: np.asarray(x).view(dtype),
)


def norm(x, kind):
    return arithmetic.norm(np, x, kind)


@QUICK
@given(SHAPES.flatmap(arrays), NORMS, POWERS_OF_TWO, st.data())
def test_a_norm_is_that_of_all_elements(x, kind, scale, data):
    expected = np.linalg.norm(x.reshape(-1), ORDERS[kind])
    assert_close(norm(x, kind), expected, 1e-14)
    assert norm(-scale * x, kind) == scale * norm(x, kind)
    mixed = mix(data.draw, x.shape)
    assert_close(norm(mixed(x), kind), expected, 1e-14)
    assert (norm(x, kind) == 0) == (not x.any())


@QUICK
@given(SHAPES.flatmap(lambda s: st.tuples(arrays(s), arrays(s))), NORMS)
def test_norms_are_in_order_and_obey_the_triangle_inequality(pair, kind):
    x, y = pair
    slack = 1 + 1e-14
    assert norm(x, "linf") <= norm(x, "l2") * slack
    assert norm(x, "l2") <= norm(x, "l1") * slack
    assert norm(x, "l1") <= x.size**0.5 * norm(x, "l2") * slack
    assert norm(x + y, kind) <= (norm(x, kind) + norm(y, kind)) * slack


@QUICK
@given(
    SHAPES.flatmap(arrays),
    NORMS,
    st.sampled_from([np.float16, np.float32, ml_dtypes.bfloat16]),
)
def test_a_norm_of_narrow_numbers_is_float32(x, kind, dtype):
    narrow = x.astype(dtype)
    got = norm(narrow, kind)
    assert got.dtype == np.float32
    exact = np.linalg.norm(narrow.astype(float).reshape(-1), ORDERS[kind])
    assert_close(got, exact, 1e-6)


def _round(x, step):
    with np.errstate(over="ignore"):  # the hash wraps around
        return arithmetic.round_by_chance(BITS, x, np.float32(step))


# Numbers of every size; above, the rounding would reach infinity.
FLOATS32 = st.floats(-(2.0**127), 2.0**127, width=32)


@QUICK
@given(
    st.lists(FLOATS32, min_size=1, max_size=20).map(np.float32),
    st.integers(1, 10**6),
)
def test_rounding_by_chance_takes_a_neighbour(x, step):
    got = _round(x, step)
    narrow = got.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(narrow.astype("float32"), got)
    # No bfloat16 lies between: the lower 16 bits are the distance to it.
    low = (x.view("int32") & ~0xFFFF).view("float32")
    high = ((x.view("int32") + 0xFFFF) & ~0xFFFF).view("float32")
    assert ((got == low) | (got == high)).all()
    # What bfloat16 holds is itself; and a step repeats itself.
    np.testing.assert_array_equal(_round(got, step), got)
    np.testing.assert_array_equal(_round(x, step), got)


@QUICK
@given(FLOATS32.filter(lambda x: abs(x) > 1e-30))
def test_the_mean_of_rounding_by_chance_is_the_number(x):
    """Over 4,096 places, within five standard deviations."""
    x = np.full(4096, x, "float32")
    got = _round(x, 7).astype(float) - x.astype(float)
    spacing = np.ptp(got)
    assert abs(got.mean()) <= 5 * 0.5 * spacing / 64


@QUICK
@given(FLOATS32.filter(lambda x: abs(x) > 1e-30))
def test_at_one_place_it_is_the_mean_over_steps(x):
    """Each step has another chance: 256 of them, five standard deviations."""
    x = np.full(1, x, "float32")
    low = (x.view("int32") & ~0xFFFF).view("float32").astype(float)
    high = ((x.view("int32") + 0xFFFF) & ~0xFFFF).view("float32").astype(float)
    mean = np.mean([_round(x, t).astype(float) for t in range(1, 257)])
    assert abs(mean - float(x[0])) <= 5 * 0.5 * abs(high - low) / 16
