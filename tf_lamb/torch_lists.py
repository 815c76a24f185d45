"""Lists of torch tensors as arrays of the rule, by torch's own list functions.

`Tensors` stands for an array in `rules.py`: one call of a rule updates a list
of parameters, each operation being one call of `torch._foreach_*` where there
is one. Numbers and tensors without axes are shared by all of a list.
"""

from __future__ import annotations

import operator
from typing import Any, Callable, Sequence

import torch

__all__ = ["Tensors", "norm", "norm_of"]


class Tensors:
    """Tensors of one dtype and device, each of any shape.

    Arithmetic with another list of the same length goes tensor by tensor, where
    one of two may have no axes; with a number or a tensor, each with it.

    Args:
      parts: the tensors, at least one.
    """

    __slots__ = ("parts",)
    # A tensor leaves arithmetic with a list to the list.
    __torch_function__ = None

    def __init__(self, parts: Sequence[torch.Tensor]) -> None:
        self.parts = parts

    @property
    def dtype(self) -> torch.dtype:
        """Of every one."""
        return self.parts[0].dtype

    def _with(self, name: str, other: Any, reflected: bool = False) -> Tensors:
        function = _FUNCTIONS[name]
        together = getattr(torch, f"_foreach_{name}", None)
        others = other.parts if isinstance(other, Tensors) else None
        if together and not reflected:
            if others is not None:
                return Tensors(together(self.parts, others))
            if name in _TAKES_TENSOR or not isinstance(other, torch.Tensor):
                return Tensors(together(self.parts, other))
        pairs = zip(self.parts, others or [other] * len(self.parts))
        if reflected:
            return Tensors([function(b, a) for a, b in pairs])
        return Tensors([function(a, b) for a, b in pairs])

    def __add__(self, other: Any) -> Tensors:
        return self._with("add", other)

    def __mul__(self, other: Any) -> Tensors:
        return self._with("mul", other)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Any) -> Tensors:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Tensors:
        return self._with("sub", other, reflected=True)

    def __truediv__(self, other: Any) -> Tensors:
        return self._with("div", other)

    def __rtruediv__(self, other: Any) -> Tensors:
        return self._with("div", other, reflected=True)

    def __gt__(self, other: Any) -> Tensors:
        return self._with("gt", other)

    def __ge__(self, other: Any) -> Tensors:
        return self._with("ge", other)

    def __eq__(self, other: object) -> Tensors:  # type: ignore[override]
        return self._with("eq", other)

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: Any) -> Tensors:
        return self._with("and", other)

    def __neg__(self) -> Tensors:
        return Tensors(torch._foreach_neg(self.parts))

    def __abs__(self) -> Tensors:
        return Tensors(torch._foreach_abs(self.parts))


_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "and": operator.and_,
}
# Whose list function takes one tensor for all.
_TAKES_TENSOR = ("add", "mul", "div")


def _each(
    function: Callable[..., torch.Tensor], together: Any = None
) -> Callable[..., Any]:
    """A function of one array: of a tensor, or of each tensor of a list."""

    def of(x: Any) -> Any:
        if not isinstance(x, Tensors):
            return function(x)
        if together is not None:
            return Tensors(together(x.parts))
        return Tensors([function(part) for part in x.parts])

    return of


def _of_several(function: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """A function of arrays, some of which are lists of one length."""

    def of(*arrays: Any) -> Any:
        lists = [x.parts for x in arrays if isinstance(x, Tensors)]
        if not lists:
            return function(*arrays)
        n = len(lists[0])
        rows = zip(
            *(x.parts if isinstance(x, Tensors) else [x] * n for x in arrays)
        )
        return Tensors([function(*row) for row in rows])

    return of


def array(x: Any, dtype: str) -> Any:
    """`x` in another dtype."""
    return _each(lambda part: part.to(getattr(torch, dtype)))(x)


def ones(shape: Sequence[int], dtype: str) -> torch.Tensor:
    """Ones, on the processor."""
    return torch.ones(tuple(shape), dtype=getattr(torch, dtype))


def _as_tensor(x: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(x, dtype=like.dtype, device=like.device)


abs = _each(torch.abs, torch._foreach_abs)
expm1 = _each(torch.expm1, torch._foreach_expm1)
ones_like = _each(torch.ones_like)
sqrt = _each(torch.sqrt, torch._foreach_sqrt)
square = _each(torch.square)
sum = _each(torch.sum)
zeros_like = _each(torch.zeros_like)
maximum = _of_several(lambda x, y: torch.maximum(x, _as_tensor(y, x)))
minimum = _of_several(lambda x, y: torch.minimum(x, _as_tensor(y, x)))
where = _of_several(torch.where)

_ORDERS = {"l2": 2.0, "l1": 1.0, "linf": float("inf")}
# Elements of which a processor adds up at once: what it stores of them for that
# stays in its cache.
_PIECE = 2**18


def norm(kind: str, x: Tensors) -> Tensors:
    """The norm of each tensor, 0 of an empty one.

    Args:
      kind: one of `arithmetic.NORMS`.
      x: float32 or float64.
    """
    return Tensors([norm_of(kind, part) for part in x.parts])


def norm_of(kind: str, x: torch.Tensor) -> torch.Tensor:
    """The norm of one tensor, to some 3e-7 of itself in float32.

    On a processor `torch.linalg.vector_norm` adds up one number after another:
    of 2^25 ones it finds a sum of 2^24. `torch.sum` adds up pairs of sums.

    Args:
      kind: one of `arithmetic.NORMS`.
      x: float32 or float64, of any shape.

    Returns:
      A scalar.
    """
    if not x.numel():
        return x.new_zeros(())
    if kind == "linf" or x.device.type != "cpu":
        return torch.linalg.vector_norm(x, _ORDERS[kind])
    sums = [
        torch.sum(torch.square(piece) if kind == "l2" else torch.abs(piece))
        for piece in x.reshape(-1).split(_PIECE)
    ]
    found = sums[0] if len(sums) == 1 else torch.sum(torch.stack(sums))
    return torch.sqrt(found) if kind == "l2" else found
