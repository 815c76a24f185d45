"""Adam's moments as its direction uses them: corrected, or one step ahead."""

from __future__ import annotations

import math

from tf_lamb.arithmetic import Array, Ops


def one_minus_power(ops: Ops, beta: float, exponent: Array) -> Array:
    """`1 - beta ** exponent`; the plain form loses 5 digits at beta 0.999.

    Args:
      ops: array functions.
      beta: in [0, 1).
      exponent: floating scalar >= 1.

    Returns:
      A scalar of the exponent's dtype; for `beta` 0, the number 1.
    """
    if beta == 0:
        return 1.0
    return -ops.expm1(exponent * math.log(beta))


def estimate(
    ops: Ops,
    moment: Array,
    sample: Array,
    beta: float,
    step: Array,
    bias_correction: bool,
    lookahead: bool,
) -> Array:
    """`moment` without its bias towards 0, or Nesterov's look-ahead of it.

    Args:
      ops: array functions.
      moment: `m_t` (or `v_t`), `[*shape]`.
      sample: `g_t` (or its square), `[*shape]`.
      beta: decay of the moment, in [0, 1).
      step: `t`, floating scalar >= 1.
      bias_correction: whether the bias is taken out.
      lookahead: whether it is
        `beta m_t / (1-beta^(t+1)) + (1-beta) g_t / (1-beta^t)`.

    Returns:
      `[*shape]`.
    """
    if not lookahead:
        if not bias_correction:
            return moment
        # A factor, because a division of every element would cost more.
        return moment * (1.0 / one_minus_power(ops, beta, step))
    ahead, now = beta * moment, (1 - beta) * sample
    if bias_correction:
        ahead = ahead / one_minus_power(ops, beta, step + 1)
        now = now / one_minus_power(ops, beta, step)
    return ahead + now


def step_correction(
    ops: Ops, beta_1: float, beta_2: float, step: Array, like: Array
) -> Array:
    r"""$\sqrt{1-\beta_2^t} / (1-\beta_1^t)$, for moments with their bias.

    Adam's step, times it, is that of corrected moments, but for epsilon.

    Args:
      ops: array functions.
      beta_1: decay of the first moment.
      beta_2: decay of the second moment.
      step: `t`, floating scalar >= 1.
      like: array of the result's dtype and shape.
    """
    second = one_minus_power(ops, beta_2, step) * ops.ones_like(like)
    return ops.sqrt(second) / one_minus_power(ops, beta_1, step)
