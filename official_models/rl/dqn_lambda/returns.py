r"""Returns over blocks of transitions: pure functions of NumPy arrays.

Time is the last axis: `N` blocks of `T` transitions, `[..., T]`. Transition i
goes from state i to state i + 1; state T follows the last one. `next_values`
are $V_{i+1} = \max_a Q(s_{i+1}, a)$. All returns here have the form

$$R_i = r_i + \gamma (1 - d_i) [V_{i+1} + \lambda_i (R_{i+1} - V_{i+1})],
\qquad R_T = V_T$$

and differ in $\lambda_i$, which says how much of what comes later is trusted.
Where $d_i = 1$ an episode has ended, and nothing that follows counts.

References:
    Daley, Amato: Reconciling lambda-returns with experience replay (2019).
"""

from __future__ import annotations

import numpy as np

from official_models.common.errors import InputError

# Those of which the dynamic lambda takes the median.
LAMBDAS = np.linspace(0.0, 1.0, 21)
# How Watkins' Q(lambda) finds out that an action was not greedy.
WATKINS_FORMS = ("textbook", "published")


def check_lambda(value: float) -> float:
    """`value`, if it is one of [0, 1].

    Raises:
        InputError: It is not.
    """
    if not 0 <= value <= 1:
        raise InputError(
            f"--lambda {value:g}: expected a number from 0 (one step) to 1 "
            "(to the end of the block)"
        )
    return value


def lambda_returns(
    rewards: np.ndarray,
    dones: np.ndarray,
    next_values: np.ndarray,
    gamma: float,
    lambda_: float | np.ndarray,
) -> np.ndarray:
    """The recursion above; Peng's Q(lambda) where lambda is a constant.

    Args:
        rewards: [..., T], float.
        dones: [..., T], 1 or True where an episode ended with this transition.
        next_values: [..., T], of the states that follow.
        gamma: Discount of a step, in [0, 1].
        lambda_: In [0, 1]; a number, or what broadcasts to [..., T].

    Returns:
        The shape that the arguments broadcast to, in the dtype of `rewards`.
    """
    rewards = np.asarray(rewards)
    discounts = gamma * (1.0 - np.asarray(dones, rewards.dtype))
    lambdas = np.asarray(lambda_, rewards.dtype)
    shape = np.broadcast_shapes(
        rewards.shape, discounts.shape, np.shape(next_values), lambdas.shape
    )
    rewards, discounts, values, lambdas = (
        np.broadcast_to(x, shape)
        for x in (rewards, discounts, next_values, lambdas)
    )
    returns = np.empty(shape, rewards.dtype)
    following = values[..., -1]
    for i in reversed(range(shape[-1])):
        value = values[..., i]
        mixed = value + lambdas[..., i] * (following - value)
        following = rewards[..., i] + discounts[..., i] * mixed
        returns[..., i] = following
    return returns


def n_step_returns(
    rewards: np.ndarray,
    dones: np.ndarray,
    next_values: np.ndarray,
    gamma: float,
    n: int,
) -> np.ndarray:
    r"""The n-step return; at the end of a block, of the steps that are left.

    $$R^{(n)}_i = \sum_{k<n} \gamma^k r_{i+k} + \gamma^n V_{i+n}$$

    Args:
        rewards: As in `lambda_returns`, like those that follow.
        dones: The sum ends with the first 1.
        next_values: Of the states that follow.
        gamma: Discount of a step.
        n: 1 or more; from T on, the return to the end of the block.

    Returns:
        [..., T], in the dtype of `rewards`.
    """
    rewards = np.asarray(rewards)
    discounts = gamma * (1.0 - np.asarray(dones, rewards.dtype))
    length = rewards.shape[-1]
    # R of one step more is r + gamma R of the next state's, so n - 1 rounds of
    # one shift each do it.
    returns = rewards + discounts * next_values
    for _ in range(min(n, length) - 1):
        longer = returns.copy()
        longer[..., :-1] = rewards[..., :-1] + (
            discounts[..., :-1] * returns[..., 1:]
        )
        returns = longer
    return returns


def watkins_trace(greedy: np.ndarray, form: str = "textbook") -> np.ndarray:
    """The factor of lambda, 0 where Watkins' Q(lambda) is cut.

    R_i looks beyond state i + 1 only if the action taken there is greedy. The
    textbook form asks that of action i + 1. The published code asks it of
    action i, one too early: it cuts what it may keep and keeps what it should
    cut.

    Args:
        greedy: [..., T], whether action i has the largest value in state i.
        form: One of `WATKINS_FORMS`.

    Returns:
        [..., T], float32. The last one counts for nothing, as R_T = V_T.

    Raises:
        ValueError: There is no such form.
    """
    greedy = np.asarray(greedy, "float32")
    if form == "published":
        return greedy
    if form != "textbook":
        raise ValueError(
            f"form: got {form!r}, expected one of {', '.join(WATKINS_FORMS)}"
        )
    return np.concatenate(
        [greedy[..., 1:], np.ones_like(greedy[..., :1])], axis=-1
    )


def median_returns(
    rewards: np.ndarray,
    dones: np.ndarray,
    next_values: np.ndarray,
    gamma: float,
    trace: float | np.ndarray = 1.0,
) -> np.ndarray:
    """The median over `LAMBDAS` of each transition's returns.

    Args:
        rewards: As in `lambda_returns`, like those that follow.
        dones: Ends of episodes.
        next_values: Of the states that follow.
        gamma: Discount of a step.
        trace: Factor of lambda, as of `watkins_trace`; broadcasts to [..., T].

    Returns:
        [..., T]: of each element, one of its 21 returns.
    """
    lambdas = LAMBDAS.reshape((-1,) + (1,) * np.ndim(rewards)) * trace
    every = lambda_returns(rewards, dones, next_values, gamma, lambdas)
    return np.median(every, axis=0).astype(every.dtype)


def bounded_returns(
    rewards: np.ndarray,
    dones: np.ndarray,
    next_values: np.ndarray,
    values: np.ndarray,
    gamma: float,
    limit: float,
    trace: float | np.ndarray = 1.0,
    halvings: int = 7,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns of a lambda of each block that keeps its TD error bounded.

    The largest lambda, as bisection finds it, for which

    $$\frac{1}{T} \sum_i (R^\lambda_i - Q(s_i, a_i))^2 \le \delta$$

    It is 1 if that holds there, and 0 if it holds nowhere on the way. The
    published code has max Q(s_i, a) in place of Q(s_i, a_i), and 0 also where
    only a larger lambda holds.

    Args:
        rewards: [..., T], as in `lambda_returns`, like those that follow.
        dones: Ends of episodes.
        next_values: Of the states that follow.
        values: [..., T], Q of each state and the action taken in it.
        gamma: Discount of a step.
        limit: delta, 0 or more, in squared units of the reward.
        trace: Factor of lambda, as of `watkins_trace`.
        halvings: Of [0, 1]; lambda is found to 1 / 2**halvings.

    Returns:
        The returns [..., T], and the lambdas [...].
    """

    def returns_of(lambdas):
        by_time = lambdas[..., None] * trace
        return lambda_returns(rewards, dones, next_values, gamma, by_time)

    def holds(lambdas):
        errors = np.square(returns_of(lambdas) - values)
        return errors.mean(axis=-1) <= limit

    low = np.zeros(np.shape(rewards)[:-1])
    high = np.ones_like(low)
    low = np.where(holds(high), high, low)
    for _ in range(halvings):
        middle = (low + high) / 2
        fits = holds(middle)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return returns_of(low), low
