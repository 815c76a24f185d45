"""Dtypes, rounding and norms: the arithmetic that the rules are written in.

Every function takes `ops` first, as those of `rules.py` do. The arithmetic is
in float32 for every narrower dtype, and in float64 for float64.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, Callable, Protocol, Sequence, cast

# An array, tensor or variable of any framework, or a Python number where it is
# combined with one. No type covers NumPy, TensorFlow, JAX and torch.
Array = Any

NORMS = ("l2", "l1", "linf")
# Odd 32-bit constants (signed) that mix bits: the first comes from the golden
# ratio, the other two from MurmurHash3.
_MIX = (-1640531535, -2048144789, -1028477387)


class Ops(Protocol):
    """The array functions that the rules call, under NumPy's names.

    `numpy`, `keras.ops` and `tf_lamb.tf_ops` have them.
    """

    def abs(self, x: Array, /) -> Array:
        """Absolute value, by element."""

    def array(self, x: Array, /, *, dtype: str) -> Array:
        """`x` in another dtype."""

    def expm1(self, x: Array, /) -> Array:
        """`exp(x) - 1`, by element."""

    def broadcast_to(self, x: Array, shape: Sequence[int], /) -> Array:
        """`x`, repeated along its axes of length 1."""

    def max(self, x: Array, /) -> Array:
        """Largest element, a scalar; over `axis`, with `keepdims`."""

    def maximum(self, x: Array, y: Array, /) -> Array:
        """The larger one, by element."""

    def minimum(self, x: Array, y: Array, /) -> Array:
        """The smaller one, by element."""

    def ones(self, shape: Sequence[int], /, *, dtype: str) -> Array:
        """Ones of a shape and dtype."""

    def ones_like(self, x: Array, /) -> Array:
        """Ones of the shape and dtype of `x`."""

    def reshape(self, x: Array, shape: list[int], /) -> Array:
        """`x` in another shape."""

    def sqrt(self, x: Array, /) -> Array:
        """Square root, by element."""

    def square(self, x: Array, /) -> Array:
        """Square, by element."""

    def sum(self, x: Array, /, *, axis: int | None = None) -> Array:
        """Sum of all elements, a scalar; or along one axis."""

    def where(self, condition: Array, x: Array, y: Array, /) -> Array:
        """`x` where the condition holds, else `y`; by element."""

    def zeros_like(self, x: Array, /) -> Array:
        """Zeros of the shape and dtype of `x`."""


class BitOps(Protocol):
    """What `round_by_chance` calls: functions of the bits of int32 arrays.

    `keras.ops` and `tf_lamb.tf_ops` have them; NumPy has no `view`.
    """

    def arange(self, stop: int, /, *, dtype: str) -> Array:
        """`0, 1, ..., stop - 1`."""

    def reshape(self, x: Array, shape: list[int], /) -> Array:
        """`x` in another shape."""

    def right_shift(self, x: Array, bits: int, /) -> Array:
        """`x >> bits`, by element; the sign is kept."""

    def view(self, x: Array, dtype: str, /) -> Array:
        """The same bits, read as another dtype of the same width."""


def dtype_name(x: Array) -> str:
    """The dtype's NumPy name, whichever framework `x` belongs to.

    Args:
      x: array, tensor or variable.

    Returns:
      "float32", "bfloat16", ...
    """
    return _name_in(str(x.dtype))


@functools.cache
def _name_in(text: str) -> str:
    found = re.search(r"[a-z]+\d*(?='|$)", text)
    assert found, f"{text}: no name of a dtype"
    return found.group()


def wide_dtype(name: str) -> str:
    """The dtype of the arithmetic for arrays of a dtype.

    Args:
      name: of a floating dtype, as from `dtype_name`.

    Returns:
      "float64" for float64, else "float32".
    """
    return "float64" if name == "float64" else "float32"


def widen(ops: Ops, x: Array) -> Array:
    """`x` in the dtype of the arithmetic.

    Args:
      ops: array functions.
      x: `[*shape]`, any floating dtype.

    Returns:
      `[*shape]`: `x` itself if it is float32 or float64, else a float32 copy.
    """
    if dtype_name(x) in ("float32", "float64"):
        return x
    return ops.array(x, dtype="float32")


def narrow(ops: Ops, value: Array, like: Array) -> Array:
    """`value` in the dtype of `like`.

    Args:
      ops: array functions.
      value: `[*shape]`, a result of the arithmetic.
      like: array or variable that it replaces.

    Returns:
      `[*shape]`, rounded to nearest where the dtype of `like` is narrower.
    """
    name = dtype_name(like)
    return value if dtype_name(value) == name else ops.array(value, dtype=name)


def in_dtype(ops: Any, x: Array, dtype: str) -> Array:
    """A tensor or Python number in a dtype; a number is rounded once.

    Args:
      ops: array functions.
      x: a tensor, or a Python number.
      dtype: of the result.
    """
    if isinstance(x, (int, float)):
        return ops.convert_to_tensor(x, dtype)
    return ops.cast(x, dtype)


def unless_skipped(
    ops: Ops, proceed: Array | None, new: Array, old: Array
) -> Array:
    """`new`, or `old` if the step is skipped.

    Args:
      ops: array functions.
      proceed: bool scalar, False for a skipped step; None if none is skipped.
      new: `[*shape]`.
      old: `[*shape]`, the dtype of `new`.

    Returns:
      `[*shape]`.
    """
    if proceed is None or new is old:
        return new
    return ops.where(proceed, new, old)


def _mix(ops: BitOps, bits: Array, shift: int, factor: int) -> Array:
    return (bits ^ ops.right_shift(bits, shift)) * _MIX[factor]


def round_by_chance(ops: BitOps, x: Array, step: Array) -> Array:
    r"""`x` rounded to 8 significant bits, up or down by chance.

    With the neighbours `a <= x < b` in bfloat16,

    $$P(b) = \frac{x - a}{b - a},\qquad E[\text{result}] = x$$

    Rounding to nearest would stop a moment that decays by a thousandth a step,
    because the neighbours of a bfloat16 are 1/256 to 1/128 apart.
    The chance is a hash of `step`, an element's place and its bits: a run
    repeats itself, and replicas agree.

    Args:
      ops: functions of bits.
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


def stored(ops: Ops, moment: Array, old: Array, step: Array | None) -> Array:
    """A moment as it is stored; bfloat16 is rounded by chance.

    Args:
      ops: array functions; of bits too where `old` is bfloat16.
      moment: `[*shape]`, float32 or float64.
      old: `[*shape]`, the moment that it replaces.
      step: `t`, float32 scalar; it may be None where `old` is not bfloat16.

    Returns:
      `[*shape]`, the dtype of `old`.

    Raises:
      ValueError: `old` is bfloat16 and `step` is None.
    """
    if dtype_name(old) == "bfloat16":
        if step is None:
            raise ValueError(
                "step: expected the count of updates, by which a bfloat16 "
                "moment is rounded, got None."
            )
        moment = round_by_chance(cast(BitOps, ops), moment, step)
    return narrow(ops, moment, old)


def norm(
    ops: Ops, x: Array, kind: str = "l2", axes: Sequence[int] | None = None
) -> Array:
    r"""Norm of a tensor, accumulated in float32 or wider.

    $$\|x\|_2 = \sqrt{\sum x_i^2},\quad \|x\|_1 = \sum |x_i|,\quad
      \|x\|_\infty = \max |x_i|$$

    Args:
      ops: array functions.
      x: tensor of any shape and floating dtype.
      kind: one of `NORMS`.
      axes: those that are summed up, and kept with length 1; None: the norm is
        that of the whole tensor.

    Returns:
      A scalar, or the norms of slices; float32 (float64 for a float64 `x`): a
      float16 sum of 70,000 ones would be infinite.
    """
    x = widen(ops, x)
    any_ops: Any = ops  # no protocol covers NumPy's overloads
    over: dict[str, Any] = (
        {} if axes is None else {"axis": tuple(axes), "keepdims": True}
    )
    if kind == "l2":
        return ops.sqrt(any_ops.sum(ops.square(x), **over))
    if kind == "l1":
        return any_ops.sum(ops.abs(x), **over)
    if _is_empty(x):
        return any_ops.sum(x, **over)
    return any_ops.max(ops.abs(x), **over)


def _is_empty(x: Array) -> bool:
    """Whether no element is there, of which JAX and torch have no maximum."""
    try:
        return 0 in tuple(x.shape)
    except ValueError:  # TensorFlow may not know it
        return False


class NormOf(Protocol):
    """How a norm of an array, or of a function of arrays, is taken."""

    def __call__(
        self,
        ops: Ops,
        kind: str,
        x: Array,
        function: Callable[..., Array] | None = None,
        arrays: Sequence[Array] = (),
        /,
    ) -> Array:
        """The norm of `x`.

        Args:
          ops: array functions.
          kind: one of `arithmetic.NORMS`.
          x: `[*shape]`.
          function: None, or a function by element whose value `x` is, so that
            parts of `x` can be computed again in place of being stored.
          arrays: what `function` was given, each `[*shape]`.

        Returns:
          A scalar, or an array that broadcasts against `x` (a norm for each of
          its parts); float32 (float64 for a float64 `x`).
        """


def whole_norm(
    ops: Ops,
    kind: str,
    x: Array,
    function: Callable[..., Array] | None = None,
    arrays: Sequence[Array] = (),
    /,
) -> Array:
    """The norm of the whole array, a scalar: `NormOf` as in the papers."""
    return norm(ops, x, kind)


@dataclasses.dataclass(frozen=True)
class NormOfSlices:
    """Norms of equal parts of an axis: `NormOf` for a trust ratio of each.

    Attributes:
      axis: >= 0.
      parts: how many; as many as the axis is long for each of its slices.
    """

    axis: int
    parts: int

    def __call__(
        self,
        ops: Ops,
        kind: str,
        x: Array,
        function: Callable[..., Array] | None = None,
        arrays: Sequence[Array] = (),
        /,
    ) -> Array:
        """The norms, of length 1 in all axes but one."""
        shape = [int(n) for n in x.shape]
        axis, length = self.axis, shape[self.axis]
        split = [*shape[:axis], self.parts, length // self.parts]
        x = ops.reshape(x, [*split, *shape[axis + 1 :]])
        axes = [i for i in range(len(x.shape)) if i != axis]
        norms = norm(ops, x, kind, axes)
        ends = [1] * axis, [1] * (len(shape) - axis - 1)
        each = ops.broadcast_to(
            norms, [*ends[0], self.parts, length // self.parts, *ends[1]]
        )
        return ops.reshape(each, [*ends[0], length, *ends[1]])
