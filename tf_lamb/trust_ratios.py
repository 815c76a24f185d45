"""The trust ratio of a layer, from norms: what LAMB and LARS have in common."""

from __future__ import annotations

from tf_lamb.arithmetic import Array, NormOf, Ops, widen

__all__ = ["scaled_norm", "trust_ratio"]


def trust_ratio(
    ops: Ops,
    param_norm: Array,
    update_norm: Array,
    *,
    phi_bounds: tuple[float, float] | None = None,
    bounds: tuple[float, float] | None = None,
    coefficient: float = 1.0,
    divisor: Array | None = None,
) -> Array:
    r"""Ratio of a layer's norm to that of its update.

    $$\min\Big(\max\Big(\frac{c\,\phi(\|x\|)}{\|u\|},
      \rho_l\Big), \rho_u\Big),\qquad
      \phi(z) = \min(\max(z, \gamma_l), \gamma_u)$$

    and 1, whatever the bounds, where `|x|` or `|u|` is 0.

    Args:
      ops: array functions.
      param_norm: `|x|` >= 0, a scalar (or the norms of parts).
      update_norm: `|u|` >= 0, the same shape.
      phi_bounds: `(gamma_l, gamma_u)`, or None for `phi(z) = z`.
      bounds: `(rho_l, rho_u)`, or None for a ratio without bounds.
      coefficient: `c`, LARS' trust coefficient; 1 for LAMB.
      divisor: replaces `|u|` as the divisor (LARS adds terms to it).

    Returns:
      The ratio, the shape of `update_norm`.

    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2.
    """
    divisor = update_norm if divisor is None else divisor
    one = ops.ones_like(divisor)
    applies = (param_norm > 0) & (update_norm > 0)
    safe = ops.where(applies, divisor, one)
    ratio = coefficient * _between(ops, param_norm, phi_bounds) / safe
    return ops.where(applies, _between(ops, ratio, bounds), one)


def _between(ops: Ops, x: Array, bounds: tuple[float, float] | None) -> Array:
    if bounds is None:
        return x
    # For torch, Keras makes a Python number a float32.
    lower, upper = (bound * ops.ones_like(x) for bound in bounds)
    return ops.minimum(ops.maximum(x, lower), upper)


def scaled_norm(
    ops: Ops, kind: str, x: Array, x_norm: Array, factor: Array, norm_of: NormOf
) -> Array:
    """`|factor x|`, from `|x|` unless the factor differs by element.

    Args:
      ops: array functions.
      kind: one of `arithmetic.NORMS`.
      x: `[*shape]`.
      x_norm: `|x|`, as `norm_of` takes it.
      factor: a scalar, or `[*shape]`.
      norm_of: how the norm is taken.
    """
    if len(getattr(factor, "shape", ())):
        return norm_of(ops, kind, factor * widen(ops, x))
    return abs(factor) * x_norm
