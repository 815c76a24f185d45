"""Returns against the forward view, written out, and what they reduce to.

Blocks are cut from streams with ends of episodes in them, so that every case
has some.
"""

import numpy as np
import pytest

from official_models.rl.dqn_lambda import returns
from tests.official_models.scripts import refusal

GAMMA = 0.9
LENGTH = 12


def blocks(seed=0, count=6, share_of_ends=0.2):
    rng = np.random.default_rng(seed)
    shape = count, LENGTH
    return (
        rng.normal(size=shape),
        rng.random(shape) < share_of_ends,
        rng.normal(size=shape),
    )


def n_step(rewards, dones, next_values, i, n):
    """R(n) of transition i of one block: a sum, term by term."""
    total, discount = 0.0, 1.0
    for k in range(i, min(i + n, len(rewards))):
        total += discount * rewards[k]
        discount *= GAMMA
        if dones[k]:
            return total
    return total + discount * next_values[k]


def forward_view(rewards, dones, next_values, lambdas):
    """Sums of n-step returns, each weighed by the lambdas before it.

    lambdas[k] is the weight of going on beyond state k + 1.
    """
    result = []
    for i in range(len(rewards)):
        total, weight = 0.0, 1.0
        for n in range(1, len(rewards) - i + 1):
            value = n_step(rewards, dones, next_values, i, n)
            if n == len(rewards) - i:  # the tail has all that is left
                total += weight * value
            else:
                going_on = lambdas[i + n - 1]
                total += weight * (1 - going_on) * value
                weight *= going_on
        result.append(total)
    return np.array(result)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.75, 1.0])
def test_peng_is_the_weighted_sum_of_n_step_returns(lambda_):
    given = blocks()
    found = returns.lambda_returns(*given, GAMMA, lambda_)
    for row, one in enumerate(zip(*given)):
        expected = forward_view(*one, [lambda_] * LENGTH)
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


def test_the_sum_of_the_specification():
    """(1 - lambda) sum lambda^(n-1) R(n) + lambda^(T-1) R(T), no ends."""
    given = blocks(share_of_ends=0)
    found = returns.lambda_returns(*given, GAMMA, 0.6)
    row = [x[0] for x in given]
    expected = sum(
        0.4 * 0.6 ** (n - 1) * n_step(*row, 0, n) for n in range(1, LENGTH)
    ) + 0.6 ** (LENGTH - 1) * n_step(*row, 0, LENGTH)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-12)


def test_lambda_0_is_one_step_and_1_is_the_block_to_its_end():
    rewards, dones, values = blocks()
    one_step = rewards + GAMMA * ~dones * values
    for found in (
        returns.lambda_returns(rewards, dones, values, GAMMA, 0),
        returns.n_step_returns(rewards, dones, values, GAMMA, 1),
    ):
        np.testing.assert_allclose(found, one_step, rtol=1e-12)
    monte_carlo = returns.lambda_returns(rewards, dones, values, GAMMA, 1)
    for row in range(len(rewards)):
        expected = [
            n_step(rewards[row], dones[row], values[row], i, LENGTH)
            for i in range(LENGTH)
        ]
        np.testing.assert_allclose(monte_carlo[row], expected, rtol=1e-12)
    for n in (LENGTH, LENGTH + 5):
        whole = returns.n_step_returns(rewards, dones, values, GAMMA, n)
        np.testing.assert_allclose(whole, monte_carlo, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_n_step_returns(n):
    given = blocks()
    found = returns.n_step_returns(*given, GAMMA, n)
    for row, one in enumerate(zip(*given)):
        expected = [n_step(*one, i, n) for i in range(LENGTH)]
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


def test_errors_telescope():
    """R - V is the sum of (gamma lambda)^k delta_k, V of the state itself."""
    rewards, _, values = blocks(share_of_ends=0)
    own = np.concatenate([np.ones((len(values), 1)), values[:, :-1]], axis=1)
    deltas = rewards + GAMMA * values - own
    found = returns.lambda_returns(rewards, 0 * rewards, values, GAMMA, 0.8)
    decay = (GAMMA * 0.8) ** np.arange(LENGTH)
    np.testing.assert_allclose(
        (found - own)[:, 0], (decay * deltas).sum(axis=1), rtol=1e-10
    )


RLAX = (
    # lambda, lambda_returns of rlax 0.1.9
    (0.0, (1.45, 0.4, 2, 1.8, 0.925, 0.775, 0.35, 3.2)),
    (
        0.75,
        (1.838125, 1.075, 2, 1.6232036, 1.7380795, 1.9545623, 1.4974998, 3.2),
    ),
    (1.0, (2.17, 1.3, 2, 2.4055195, 2.6727996, 2.6919997, 1.8799998, 3.2)),
    (
        (0.5, 0, 0.5, 0.5, 0, 0.5, 0.5, 0.5),
        (1.405, 0.4, 2, 1.31625, 0.925, 1.38925, 1.115, 3.2),
    ),
)


@pytest.mark.parametrize(("lambda_", "expected"), RLAX)
def test_returns_are_those_of_rlax(lambda_, expected):
    """Whose discounts are gamma (1 - done); its `v_t` is of the next state."""
    given = rlax_block()
    found = returns.lambda_returns(*given, GAMMA, lambda_)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_n_step_returns_are_those_of_rlax():
    """`n_step_bootstrapped_returns` of rlax 0.1.9, n = 3."""
    found = returns.n_step_returns(*rlax_block(), GAMMA, 3)
    expected = (2.17, 1.3, 2, 0.85275, 1.4335, 2.692, 1.88, 3.2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def rlax_block():
    rewards = np.array([1, -0.5, 2, 0, 0.25, 1, -1, 0.5])
    dones = np.arange(8) == 2
    return rewards, dones, np.array([0.5, 1, -1, 2, 0.75, -0.25, 1.5, 3])


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
def test_nothing_leaks_across_an_end(lambda_):
    rewards, dones, values = blocks(share_of_ends=0)
    dones[:, 5] = True
    before = returns.lambda_returns(rewards, dones, values, GAMMA, lambda_)
    after = returns.n_step_returns(rewards, dones, values, GAMMA, 4)
    rewards[:, 6:] += 100
    values[:, 5:] -= 100  # 5 is of the state after the end
    for old, new in (
        (
            before,
            returns.lambda_returns(rewards, dones, values, GAMMA, lambda_),
        ),
        (after, returns.n_step_returns(rewards, dones, values, GAMMA, 4)),
    ):
        np.testing.assert_array_equal(old[:, :6], new[:, :6])
        assert (old[:, 6:] != new[:, 6:]).all()
    np.testing.assert_array_equal(before[:, 5], rewards[:, 5])


def test_watkins_is_cut_before_an_action_that_is_not_greedy():
    given = blocks()
    greedy = np.random.default_rng(1).random((6, LENGTH)) < 0.6
    trace = returns.watkins_trace(greedy)
    found = returns.lambda_returns(*given, GAMMA, 0.7 * trace)
    for row, one in enumerate(zip(*given)):
        lambdas = [0.7 * g for g in greedy[row][1:]] + [0.7]
        np.testing.assert_allclose(
            found[row], forward_view(*one, lambdas), rtol=1e-6
        )


def test_the_published_form_asks_one_action_too_early():
    """One action that is not greedy, the third: who looks beyond it?"""
    greedy = np.ones(5, bool)
    greedy[2] = False
    textbook = returns.watkins_trace(greedy)
    published = returns.watkins_trace(greedy, "published")
    np.testing.assert_array_equal(textbook, [1, 0, 1, 1, 1])
    np.testing.assert_array_equal(published, [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(published[1:], textbook[:-1])
    with pytest.raises(ValueError, match="'other', expected one of textbook"):
        returns.watkins_trace(greedy, "other")


def test_watkins_of_greedy_actions_is_peng_s():
    given = blocks()
    everywhere = np.ones((6, LENGTH), bool)
    for form in returns.WATKINS_FORMS:
        trace = returns.watkins_trace(everywhere, form)
        np.testing.assert_array_equal(
            returns.lambda_returns(*given, GAMMA, 0.7 * trace.astype(float)),
            returns.lambda_returns(*given, GAMMA, 0.7),
        )


def test_the_median_is_one_of_its_lambdas_returns():
    given = blocks()
    assert returns.LAMBDAS[0] == 0 and returns.LAMBDAS[-1] == 1
    np.testing.assert_allclose(np.diff(returns.LAMBDAS), 0.05)
    every = np.stack(
        [returns.lambda_returns(*given, GAMMA, x) for x in returns.LAMBDAS]
    )
    found = returns.median_returns(*given, GAMMA)
    assert (every.min(axis=0) <= found).all()
    assert (found <= every.max(axis=0)).all()
    assert (found[None] == every).any(axis=0).all()
    # As many of the 21 are above it as below.
    assert ((every < found).sum(axis=0) <= 10).all()
    assert ((every > found).sum(axis=0) <= 10).all()
    # Another lambda for each element, or a mean would do.
    assert len({int(i) for i in (every == found).argmax(axis=0).flat}) > 3
    cut = returns.median_returns(*given, GAMMA, np.zeros((6, LENGTH)))
    np.testing.assert_allclose(cut, every[0], rtol=1e-12)


def test_bisection_bounds_each_block_s_error():
    rewards, dones, values = blocks(count=40)
    own = np.random.default_rng(3).normal(size=rewards.shape)

    def errors(lambda_):
        found = returns.lambda_returns(
            rewards, dones, values, GAMMA, lambda_[:, None]
        )
        return np.square(found - own).mean(axis=1)

    limit = float(np.median(errors(np.full(40, 0.5))))
    given = rewards, dones, values, own, GAMMA
    found, lambdas = returns.bounded_returns(*given, limit)
    assert (0 <= lambdas).all() and (lambdas <= 1).all()
    assert ((errors(lambdas) <= limit) | (lambdas == 0)).all()
    assert 0 < ((0 < lambdas) & (lambdas < 1)).sum()
    # A little more is too much, unless all of it is fine.
    inside = (lambdas > 0) & (lambdas < 1)
    more = errors(np.minimum(lambdas + 2**-7, 1))
    assert (more[inside] > limit).all()
    np.testing.assert_array_equal(
        found,
        returns.lambda_returns(rewards, dones, values, GAMMA, lambdas[:, None]),
    )
    for bound, lambda_ in ((0.0, 0.0), (1e9, 1.0)):
        found, lambdas = returns.bounded_returns(*given, bound)
        assert (lambdas == lambda_).all()


def test_float32_stays_float32():
    rewards, dones, values = blocks()
    given = rewards.astype("float32"), dones, values.astype("float32"), GAMMA
    for found in (
        returns.lambda_returns(*given, 0.5),
        returns.n_step_returns(*given, 3),
        returns.median_returns(*given),
    ):
        assert found.dtype == np.float32
        assert found.shape == rewards.shape


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_lambda_that_is_none(value):
    refusal(
        lambda: returns.check_lambda(value), f"--lambda {value:g}", "from 0"
    )
