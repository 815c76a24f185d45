"""Dtypes, rounding and norms: the arithmetic that the rules are written in.

Every function takes `ops` first, as those of `rules.py` do. Arithmetic is
carried out in float32 for every narrower dtype, and in float64 for float64.
"""

import re
from typing import Any, Optional

Array = Any

NORMS = ("l2", "l1", "linf")
# Odd 32-bit numbers (as signed ones), to mix bits by: the golden ratio's, and
# those of MurmurHash3.
_MIX = (-1640531535, -2048144789, -1028477387)


def dtype_name(x: Array) -> str:
    """The dtype's NumPy name, whichever framework `x` belongs to."""
    return re.search(r"[a-z]+\d*(?='|$)", str(x.dtype)).group()


def widen(ops, x: Array) -> Array:
    """`x` in float32, or as it is if it is float32 or float64."""
    if dtype_name(x) in ("float32", "float64"):
        return x
    return ops.array(x, dtype="float32")


def narrow(ops, value: Array, like: Array) -> Array:
    """`value` in the dtype of `like`."""
    name = dtype_name(like)
    return value if dtype_name(value) == name else ops.array(value, dtype=name)


def unless_skipped(ops, proceed: Optional[Array], new: Array, old: Array):
    """`new`, or `old` if the step is skipped."""
    if proceed is None or new is old:
        return new
    return ops.where(proceed, new, old)


def _mix(ops, bits, shift, factor):
    return (bits ^ ops.right_shift(bits, shift)) * _MIX[factor]


def round_by_chance(ops, x: Array, step: Array) -> Array:
    r"""`x` rounded to 8 significant bits, up or down by chance; mean is `x`.

    A second moment that decays by a thousandth would stand still if it were
    rounded to the nearest bfloat16, whose neighbours are 1/256 to 1/128 apart.
    The chance is a hash of `step`, an element's place and its bits: a run
    repeats itself, and replicas agree.

    Args:
      ops: array functions; `arange`, `reshape`, `right_shift` and `view` (the
        same bits, another dtype) among them.
      x: float32, `[*shape]`.
      step: `t`, float32 scalar.

    Returns:
      float32, `[*shape]`, which bfloat16 represents exactly.

    References:
      Gupta et al. 2015 (arXiv:1502.02551), section 3, stochastic rounding; the
      mixing of the hash is the finaliser of MurmurHash3.
    """
    bits = ops.view(x, "int32")
    mixed = bits ^ (ops.view(step, "int32") * _MIX[0])
    n = len(x.shape)
    for axis, length in enumerate(x.shape):
        # One axis at a time: nothing of the size of `x` is stored.
        place = ops.arange(length, dtype="int32") * _MIX[axis % 3]
        shape = [1] * axis + [length] + [1] * (n - axis - 1)
        mixed = _mix(ops, mixed ^ ops.reshape(place, shape), 16, 1)
    mixed = _mix(ops, _mix(ops, mixed, 16, 1), 13, 2)
    chance = (mixed ^ ops.right_shift(mixed, 16)) & 0xFFFF
    return ops.view((bits + chance) & ~0xFFFF, "float32")


def norm(ops, x: Array, kind: str = "l2") -> Array:
    r"""Norm of a whole tensor, accumulated in float32 or wider.

    $$\|x\|_2 = \sqrt{\sum x_i^2},\quad \|x\|_1 = \sum |x_i|,\quad
      \|x\|_\infty = \max |x_i|$$

    Args:
      ops: array functions.
      x: tensor of any shape and floating dtype.
      kind: one of `NORMS`.

    Returns:
      A scalar, float32 (float64 for a float64 `x`): a float16 sum of 70,000
      ones would be infinite.
    """
    x = widen(ops, x)
    if kind == "l2":
        return ops.sqrt(ops.sum(ops.square(x)))
    if kind == "l1":
        return ops.sum(ops.abs(x))
    return ops.max(ops.abs(x))
