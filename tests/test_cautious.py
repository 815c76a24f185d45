"""Cautious masks in LAMB's rule, on NumPy arrays and in a kernel."""

import numpy as np
import pytest

from tf_lamb import directions, hyperparameters, rules

ZEROS = np.zeros(8)
X = np.linspace(-1.0, 1.0, 8)


def _step(m, g, decay=0.0, x=X, **hyper):
    """The second step, from a first moment `m`."""
    return rules.lamb(
        np,
        x,
        g,
        m,
        np.ones_like(x),
        2.0,
        learning_rate=1.0,
        weight_decay=decay,
        adapt=False,
        hyper=hyperparameters.Lamb(cautious=True, **hyper),
    )


def _plain(m, g):
    wide = rules.lamb(
        np, ZEROS, g, m, np.ones(8), 2.0, learning_rate=1.0, adapt=False
    )
    return -wide.param


def test_elements_of_another_sign_stay_and_others_move_further():
    m = np.array([1.0, -1, 1, -1, 1, 1, -1, -1])
    g = np.array([0.1, 0.1, -0.1, -0.1, 0, 0.1, 0.1, -0.1])
    got = X - _step(m, g).param
    agrees = np.sign(m) == np.sign(g)
    assert agrees.sum() == 4
    np.testing.assert_array_equal(got[~agrees], 0)
    np.testing.assert_allclose(got[agrees], 2 * _plain(m, g)[agrees])
    # The decay is that of all elements.
    decayed = X - _step(m, g, decay=0.5).param
    np.testing.assert_allclose(decayed, got + 0.5 * X, atol=1e-15)


def test_the_share_is_at_least_a_thousandth():
    """One element of 4,096 agrees: it moves 1,000 times as far, no more."""
    m, g = np.ones(4096), np.full(4096, -0.1)
    g[7] = 0.1
    x = np.zeros(4096)
    moved = -_step(m, g, x=x).param
    assert np.flatnonzero(moved).tolist() == [7]
    assert moved[7] == pytest.approx(1000 * _plain(m[:8], g[:8])[7])
    # And where none agrees nothing moves, and nothing is divided by 0.
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(_step(ZEROS + 1, ZEROS - 0.1).param, X)


def test_moments_are_those_of_every_lamb():
    m, g = np.ones(8), np.full(8, -0.1)
    one = _step(m, g)
    np.testing.assert_allclose(one.m, 0.9 - 0.01)
    np.testing.assert_allclose(one.v, 0.999 + 0.001 * 0.01)


def test_small_numbers_agree_too():
    """Though their product is 0 in float32."""
    m = np.array([1e-25, -1e-25, 1e-25, 0.0], "float32")
    g = np.array([1e-25, -1e-25, -1e-25, 0.0], "float32")
    assert directions.agrees(np, m, g).tolist() == [1, 1, 0, 0]


def test_an_empty_variable_has_no_share():
    empty = np.zeros((0, 3), "float32")
    got = _step(empty, empty, x=empty)
    assert got.param.shape == (0, 3) and got.trust_ratio == 1


def test_norms_of_parts_count_each_part_by_itself():
    def by_columns(ops, kind, x, function=None, arrays=(), /):
        power = {"l1": 1, "l2": 2}[kind]
        sums = np.sum(np.abs(x) ** power, axis=0, keepdims=True)
        return sums ** (1 / power)

    rng = np.random.default_rng(0)
    x, m, g = rng.normal(size=(3, 6, 5))

    def step(x, m, g, **arguments):
        return rules.lamb(
            np,
            x,
            g,
            m,
            np.ones_like(x),
            2.0,
            learning_rate=0.1,
            weight_decay=0.1,
            hyper=hyperparameters.Lamb(cautious=True),
            **arguments,
        )

    got = step(x, m, g, norm_of=by_columns).param
    for i in range(5):
        alone = step(x[:, i], m[:, i], g[:, i]).param
        np.testing.assert_allclose(got[:, i], alone, atol=1e-14)
    assert np.abs(got - step(x, m, g).param).max() > 1e-3
