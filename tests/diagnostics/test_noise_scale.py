"""The noise scale of known quadratics, its error bars by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from tf_lamb.diagnostics import noise_scale

SMALL, BIG = 4, 32


def _records(rng, n, gradient, deviations, small=SMALL, big=BIG):
    """Squared norms of gradients on a quadratic with noise of known variance.

    A record's big batch is cut into small ones, as the callback cuts it.
    """
    d, pieces = len(gradient), big // small
    noise = rng.normal(size=(n, pieces, d)) * deviations / math.sqrt(small)
    each = gradient + noise
    return (each**2).sum(-1).mean(-1), (each.mean(1) ** 2).sum(-1)


def _problem():
    rng = np.random.default_rng(0)
    # f(x) = x' A x / 2 at a point; each example shifts the minimum.
    curvature = np.geomspace(0.1, 10, 20)
    point, spread = rng.normal(size=20), 2.0
    gradient, deviations = curvature * point, curvature * spread
    return gradient, deviations, (deviations**2).sum() / (gradient**2).sum()


def test_a_quadratic_of_known_covariance_within_a_tenth():
    gradient, deviations, true = _problem()
    norms = _records(np.random.default_rng(1), 2000, gradient, deviations)
    found = noise_scale.estimate(*norms, SMALL, BIG)
    assert found.value == pytest.approx(true, rel=0.1)
    assert found.lower < true < found.upper
    assert found.gradient_squared == pytest.approx((gradient**2).sum(), rel=0.1)
    assert found.trace == pytest.approx((deviations**2).sum(), rel=0.05)


@pytest.mark.parametrize("decay", [None, 0.95])
def test_error_bars_by_simulation(decay):
    """The interval holds the truth as often as it says; the error is right."""
    gradient, deviations, true = _problem()
    rng = np.random.default_rng(2)
    found = [
        noise_scale.estimate(
            *_records(rng, 60, gradient, deviations), SMALL, BIG, decay=decay
        )
        for _ in range(600)
    ]
    covered = np.mean([x.lower <= true <= x.upper for x in found])
    assert 0.92 < covered < 0.98
    spread = np.std([x.value for x in found])
    claimed = np.median([x.standard_error for x in found])
    assert claimed == pytest.approx(spread, rel=0.25)


def test_blocks_for_records_that_depend_on_each_other():
    """Each record ten times: the errors of ten times too many are too small."""
    gradient, deviations, true = _problem()
    norms = _records(np.random.default_rng(3), 100, gradient, deviations)
    many = [np.repeat(x, 10) for x in norms]
    plain = noise_scale.estimate(*norms, SMALL, BIG)
    blocked = noise_scale.estimate(*many, SMALL, BIG, block=10)
    assert blocked == pytest.approx(plain)
    naive = noise_scale.estimate(*many, SMALL, BIG)
    assert naive.standard_error < plain.standard_error / 3


def test_a_gradient_lost_in_noise_has_no_upper_end():
    norms = _records(np.random.default_rng(4), 30, np.zeros(5), np.ones(5))
    found = noise_scale.estimate(*norms, SMALL, BIG)
    assert found.upper == math.inf
    assert 0 < found.lower < found.value


def test_no_noise_and_one_record():
    found = noise_scale.estimate([2.0, 2.0], [2.0, 2.0], 1, 2)
    assert found[:4] == (0, 0, 0, 0)
    found = noise_scale.estimate([3.0], [2.0], 1, 2)
    assert found == (2, math.inf, 0, math.inf, 1, 2, 1)


def test_what_a_batch_size_costs():
    found = noise_scale.estimate([3.0], [2.0], 1, 2)
    assert found.steps_factor(2) == found.examples_factor(2) == 2
    assert found.steps_factor(1) == 3
    assert found.examples_factor(4) == 3


@pytest.mark.parametrize("freedom", [3, 5, 10, 100])
def test_quantiles_of_student(freedom):
    expected = stats.t.ppf(0.975, freedom)
    found = noise_scale._student(0.95, freedom)
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0], 4, 4), "small, big: expected small < big, got 4 and 4"),
        (([1.0], [1.0], 0, 4), "small: expected a number > 0"),
        (([1.0], [1.0, 2.0], 1, 4), "small_squares, big_squares: expected one"),
        (([], [], 1, 4), "small_squares: expected one axis with at least 1"),
        (([math.nan], [1.0], 1, 4), "a norm is not finite"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise_scale.estimate(*arguments)


@pytest.mark.parametrize("name", ["decay", "level", "block"])
@pytest.mark.parametrize("value", [0, 1.5, "half"])
def test_options_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a"):
        noise_scale.estimate([1.0, 2.0], [1.0, 1.0], 1, 4, **{name: value})
