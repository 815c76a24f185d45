"""Adaptive gradient clipping: each unit's gradient against its weights."""

from __future__ import annotations

import math

from tf_lamb.arithmetic import Array, NormOf, Ops, widen
from tf_lamb.hyperparameters import Hyper

__all__ = ["clip_by_unit", "norm_of_clipped"]

_LEAST_NORM = 1e-3
_BLOCKS = 4  # of rows, to which a sum along them is reduced first


def clip_by_unit(
    ops: Ops, param: Array, grad: Array, limit: float | None
) -> Array:
    r"""The gradient, each unit's norm at most a share of its weights' norm.

    $$g_i \leftarrow g_i \min\Big(1,
      \frac{c \max(\|x_i\|_2, 10^{-3})}{\|g_i\|_2}\Big)$$

    A unit `i` is what leads to one output: a place on the last axis, with all
    others. Of a variable with at most one axis longer than 1 (a bias, a scale)
    it is the whole.

    Args:
      ops: array functions.
      param: `x`, `[*shape]`, any floating dtype.
      grad: `g`, `[*shape]`. A unit that is finite but whose norm is not, in the
        dtype of the arithmetic, becomes 0; one that is not finite stays so.
      limit: `c` > 0; None for the gradient as it is.

    Returns:
      `[*shape]`, float32 (float64 for a float64 gradient).

    References:
      Brock et al. 2021 (arXiv:2102.06171), equation 3; which axes a unit has,
      and that of vectors the whole is one, is that of the authors' code and of
      `optax.adaptive_grad_clip`.
    """
    g = widen(ops, grad)
    if limit is None:
        return g
    most = _norm_of_units(ops, widen(ops, param))
    most = limit * ops.maximum(most, _LEAST_NORM * ops.ones_like(most))
    norms = _norm_of_units(ops, g)
    one = ops.ones_like(norms)
    # Not of a NaN: what is not finite stays so.
    over = norms > most
    return g * ops.where(over, most / ops.where(over, norms, one), one)


def norm_of_clipped(
    ops: Ops, hyper: Hyper, grad: Array, norm_of: NormOf
) -> Array:
    """`|g|` of what `clip_by_unit` returned, without storing it.

    Args:
      ops: array functions.
      hyper: the constants of the run, among them the limit and the norm.
      grad: `g`, `[*shape]`.
      norm_of: how the norm is taken.
    """
    if hyper.clip_by_unit is None:
        return norm_of(ops, hyper.norm, grad)
    return norm_of(ops, hyper.norm, grad, lambda g: g, (grad,))


def _norm_of_units(ops: Ops, x: Array) -> Array:
    """l2 norms, a scalar or `[1, ..., 1, n]`."""
    if sum(length != 1 for length in x.shape) <= 1:
        return ops.sqrt(ops.sum(ops.square(x)))
    *above, width = x.shape
    rows = ops.reshape(x, [math.prod(above), width])
    height = math.prod(above) // _BLOCKS
    blocks = [
        ops.square(rows[i * height : (i + 1) * height]) for i in range(_BLOCKS)
    ]
    # Added to each other first, a loop over elements: XLA's CPU compiler stores
    # all of what it adds up along the first axis.
    squares = ops.sum(sum(blocks[1:], blocks[0]), axis=0)
    rest = ops.sum(ops.square(rows[_BLOCKS * height :]), axis=0)
    norms = ops.sqrt(squares + rest)
    return ops.reshape(norms, [1] * len(above) + [width])
