"""What a step of LAMB goes along: functions of a variable and its moments.

`rules.lamb` takes a norm of each direction and adds up the steps along them.
LAMB has one, Adam's with weight decay; LANS has two. They are functions by
element, so that their norm can be computed in parts without storing them.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

from tf_lamb import moments
from tf_lamb.arithmetic import Array, Ops, widen
from tf_lamb.hyperparameters import LAMB_FORMS, Lamb

__all__ = ["Part", "parts", "unit"]

_SMALLEST_NORMAL = 2.0**-126


class Part(NamedTuple):
    """A direction, and how much of the step goes along it.

    Attributes:
      share: of the learning rate; all shares add up to 1.
      direction: function by element of `x, g, m, v`, each `[*shape]`, whose
        result has the dtype of the arithmetic.
    """

    share: float
    direction: Callable[..., Array]


def unit(ops: Ops, grad: Array, norm: Array) -> Array:
    """`g / |g|`, and 0 where `|g|` is 0.

    Args:
      ops: array functions.
      grad: `g`, `[*shape]`, float32 or float64.
      norm: `|g|`, a scalar or an array that broadcasts against `g`; one below
        1.2e-38 counts as 0.

    Returns:
      `[*shape]`.
    """
    one = ops.ones_like(norm)
    applies = norm >= _SMALLEST_NORMAL
    factor = one / ops.where(applies, norm, one)
    # Times 0, not a constant: what is not finite stays so.
    return grad * ops.where(applies, factor, 0 * one)


def parts(
    ops: Ops, hyper: Lamb, step: Array, weight_decay: Array
) -> tuple[Part, ...]:
    r"""The directions of a form of LAMB.

    $$u = \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda x$$

    with a share of 1; where the form has `two_directions`, that one with a
    share of $\beta_1$, and with a share of $1 - \beta_1$

    $$u' = \frac{g}{\sqrt{\hat v} + \epsilon} + \lambda x$$

    Args:
      ops: array functions.
      hyper: the constants of the run.
      step: `t`, floating scalar.
      weight_decay: `lambda`, scalar.
    """
    beta_1, beta_2, epsilon, corrected, nesterov = hyper[:5]
    form = LAMB_FORMS[hyper.form]
    hats = corrected and not form.corrects_step

    def decayed(adam: Array, x: Array) -> Array:
        return adam if form.decoupled_decay else adam + weight_decay * x

    def divisor(g: Array, v: Array) -> Array:
        both, squared = nesterov == "nadam_both", ops.square(g)
        v_hat = moments.estimate(ops, v, squared, beta_2, step, hats, both)
        return ops.sqrt(v_hat) + epsilon

    # Of the moments as stored: so a compiler can compute it twice instead of
    # keeping it.
    def of_moment(x: Array, g: Array, m: Array, v: Array) -> Array:
        x, g, m, v = (widen(ops, array) for array in (x, g, m, v))
        m_hat = moments.estimate(ops, m, g, beta_1, step, hats, bool(nesterov))
        return decayed(m_hat / divisor(g, v), x)

    def of_gradient(x: Array, g: Array, m: Array, v: Array) -> Array:
        x, g, v = (widen(ops, array) for array in (x, g, v))
        return decayed(g / divisor(g, v), x)

    if not form.two_directions:
        return (Part(1.0, of_moment),)
    return Part(beta_1, of_moment), Part(1 - beta_1, of_gradient)
