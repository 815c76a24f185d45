"""What a step of LAMB goes along: functions of a variable and its moments.

`rules.lamb` takes a norm of each direction and adds up the steps along them.
LAMB has one, Adam's with weight decay; LANS has two. They are functions by
element, so that their norm can be computed in parts without storing them; a
number that all elements share is computed before.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence

from tf_lamb import moments
from tf_lamb.arithmetic import Array, NormOf, Ops, widen
from tf_lamb.hyperparameters import LAMB_FORMS, Lamb

__all__ = ["Part", "agreement", "agrees", "parts", "unit"]

_SMALLEST_NORMAL = 2.0**-126
_LEAST_AGREEMENT = 1e-3


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


def agrees(ops: Ops, direction: Array, grad: Array) -> Array:
    """Where a direction has the gradient's sign, not 0; by element.

    Args:
      ops: array functions.
      direction: `[*shape]`, or anything else of its sign.
      grad: `g`, `[*shape]`.
    """
    # Not their product, which is 0 where both are small.
    along = ops.where(grad > 0, direction, -direction)
    return ops.where(grad == 0, ops.zeros_like(along), along) > 0


def agreement(
    ops: Ops,
    function: Callable[..., Array],
    arrays: Sequence[Array],
    norm_of: NormOf,
) -> Array:
    """The share of elements of which a direction has the gradient's sign.

    Args:
      ops: array functions.
      function: whether they do, by element of the arrays.
      arrays: `x, g, m, v`, each `[*shape]`.
      norm_of: how the elements are counted, as an l1 norm: of a whole variable,
        or of each of its parts.

    Returns:
      What `norm_of` gives, at least 0.001.

    References:
      Liang et al. 2024 (arXiv:2411.16085); the bound is timm's.
    """

    def counted(*arrays: Array) -> Array:
        ones = ops.ones_like(widen(ops, arrays[1]))
        return ops.where(function(*arrays), ones, ops.zeros_like(ones))

    count = norm_of(ops, "l1", counted(*arrays), counted, arrays)
    size = norm_of(ops, "l1", ops.ones_like(widen(ops, arrays[1])))
    share = count / ops.maximum(size, ops.ones_like(size))
    return ops.maximum(share, _LEAST_AGREEMENT * ops.ones_like(share))


def parts(
    ops: Ops,
    hyper: Lamb,
    step: Array,
    weight_decay: Array,
    arrays: Sequence[Array],
    norm_of: NormOf,
) -> tuple[Part, ...]:
    r"""The directions of a form of LAMB.

    $$u = \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda x$$

    with a share of 1; where the form has `two_directions`, that one with a
    share of $\beta_1$, and with a share of $1 - \beta_1$

    $$u' = \frac{g}{\sqrt{\hat v} + \epsilon} + \lambda x$$

    With `cautious`, the fraction of `u` is divided by `agreement` where it has
    the sign of `g`, and 0 elsewhere.

    Args:
      ops: array functions.
      hyper: the constants of the run.
      step: `t`, floating scalar.
      weight_decay: `lambda`, scalar.
      arrays: `x, g, m, v`, what the directions will be given.
      norm_of: how the elements that agree are counted.
    """
    beta_1, beta_2, epsilon, corrected, nesterov = hyper[:5]
    form = LAMB_FORMS[hyper.form]
    hats = corrected and not form.corrects_step

    def divisor(g: Array, v: Array) -> Array:
        both, squared = nesterov == "nadam_both", ops.square(g)
        v_hat = moments.estimate(ops, v, squared, beta_2, step, hats, both)
        return ops.sqrt(v_hat) + epsilon

    def first_moment(g: Array, m: Array) -> Array:
        ahead = bool(nesterov)
        return moments.estimate(ops, m, g, beta_1, step, hats, ahead)

    def forward(*arrays: Array) -> Array:
        _, g, m, _ = (widen(ops, array) for array in arrays)
        return agrees(ops, first_moment(g, m), g)

    # Before the direction, which stays a function by element.
    longer = None
    if hyper.cautious:
        longer = 1.0 / agreement(ops, forward, arrays, norm_of)

    def decayed(adam: Array, x: Array) -> Array:
        return adam if form.decoupled_decay else adam + weight_decay * x

    # Of the moments as stored: so a compiler can compute it twice instead of
    # keeping it.
    def of_moment(*arrays: Array) -> Array:
        x, g, m, v = (widen(ops, array) for array in arrays)
        adam = first_moment(g, m) / divisor(g, v)
        if longer is not None:
            adam = longer * adam
            adam = ops.where(forward(*arrays), adam, ops.zeros_like(adam))
        return decayed(adam, x)

    def of_gradient(*arrays: Array) -> Array:
        x, g, _, v = (widen(ops, array) for array in arrays)
        return decayed(g / divisor(g, v), x)

    if not form.two_directions:
        return (Part(1.0, of_moment),)
    return Part(beta_1, of_moment), Part(1 - beta_1, of_gradient)
