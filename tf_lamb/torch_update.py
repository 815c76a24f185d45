"""The update on torch: lists of small variables, large ones block by block.

Eager torch stores what every operation gives. So variables with the same rule
are lists that one call of the rule updates (`torch_lists`), of so many elements
that what is stored for a moment stays in a processor's cache; a larger variable
is cut into blocks, over which the rule runs twice: first only for the norms of
the whole, then, with these, for the new values. On other devices than a
processor there are no blocks, and lists are longer.

Whatever needs more than that (moments in bfloat16, whose rounding depends on an
element's place; a trust ratio of slices or of several variables; clipping by
unit; values that are not the variable's own memory) is updated variable by
variable, by `update.Loop`.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, NamedTuple, Sequence

import keras
import torch

from tf_lamb import arithmetic, keras3_loop, rules, torch_lists
from tf_lamb.arithmetic import Array
from tf_lamb.bundles import Bundle
from tf_lamb.hyperparameters import LAMB_FORMS, Hyper, Lamb
from tf_lamb.torch_lists import Tensors

# Elements of a list or block: of float32, 1 MiB an array. Shorter ones cost
# calls, longer ones leave the cache.
ON_PROCESSOR = 2**18
# On other devices, where only the memory of a moment is a limit.
ELSEWHERE = 2**26


# Keras exports the scope alone: beside it is whether one is entered.
_in_stateless_scope: Callable[[], bool] = sys.modules[
    keras.StatelessScope.__module__
].in_stateless_scope
# A module is no `Ops` for mypy.
_OPS: Any = torch_lists


class _Member(NamedTuple):
    """A variable as one vector each, all of them in its own memory.

    Attributes:
      place: among the bundles.
      arrays: parameter and moments, `[n]`.
      grad: `[n]`, any floating dtype.
      scale: that multiplies the gradient; None for 1.
    """

    place: int
    arrays: Sequence[torch.Tensor]
    grad: torch.Tensor
    scale: torch.Tensor | None


class Loop(keras3_loop.Loop):
    """The executor of torch."""

    def squared_norms(self, grads: Sequence[Array], dtype: str) -> Array:
        """Sums of squares, `[len(grads)]`, in `dtype`."""
        wide = [arithmetic.widen(self._ops, g).detach() for g in grads]
        if torch.compiler.is_compiling() or not all(map(_is_plain, wide)):
            return super().squared_norms(grads, dtype)
        to = getattr(torch, dtype)
        norms = [torch_lists.norm_of("l2", g).to(to) for g in wide]
        return torch.square(torch.stack(norms))

    def apply(self, parts: Sequence[Bundle]) -> Sequence[Array]:
        """Applies the rule to each bundle; returns their trust ratios."""
        # A compiled graph is fused anyway; values within a scope are others.
        if torch.compiler.is_compiling() or _in_stateless_scope():
            return super().apply(parts)
        trained = [id(row.variable) for part in parts for row in part.rows]
        if len(set(trained)) < len(trained):  # one after the other, as Keras
            return super().apply(parts)
        ratios: list[Any] = [None] * len(parts)
        alike: dict[Any, list[_Member]] = {}
        with torch.no_grad():
            for place, bundle in enumerate(parts):
                member = _member(place, bundle)
                if member is None:
                    ratios[place] = self._apply(bundle)
                else:
                    alike.setdefault(_key(bundle, member), []).append(member)
            for members in alike.values():
                self._together(parts[members[0].place], members, ratios)
        return ratios

    def _together(
        self, bundle: Bundle, members: list[_Member], ratios: list[Any]
    ) -> None:
        """Updates variables of one rule; puts their ratios in place."""
        first = members[0].arrays[0]
        wide = arithmetic.wide_dtype(arithmetic.dtype_name(first))
        now, proceed = bundle.scalars[0], bundle.scalars[0].proceed
        if first.device.type == "cpu":
            if not bool(proceed):  # no wait for a device
                for member in members:
                    ratios[member.place] = torch_lists.ones((), wide)
                return
            proceed = None
        ops = self._ops
        step, rate = (ops.cast(x, wide) for x in (now.step, now.learning_rate))
        decay = arithmetic.in_dtype(ops, now.weight_decay, wide)

        def rule(chunk: Sequence[_Member], norm_of: Any) -> rules.Step:
            param, *slots = (
                Tensors(x) for x in zip(*(m.arrays for m in chunk))
            )
            grad = arithmetic.widen(_OPS, Tensors([m.grad for m in chunk]))
            if any(m.scale is not None for m in chunk):
                grad = grad * Tensors([m.scale for m in chunk])
            return rules.update(
                _OPS,
                bundle.hyper,
                param,
                slots,
                grad,
                step,
                learning_rate=rate,
                weight_decay=decay,
                adapt=bundle.adapt,
                proceed=proceed,
                norm_of=norm_of,
            )

        limit = ON_PROCESSOR if first.device.type == "cpu" else ELSEWHERE
        for chunk in _chunks(members, limit):
            length = chunk[0].grad.numel()
            if len(chunk) == 1 and length > limit and _has_blocks(bundle.hyper):
                found = _by_block(chunk[0], rule, limit)
            else:
                result = rule(chunk, _norm)
                _store(chunk, result)
                found = result.trust_ratio
            each = found.parts if isinstance(found, Tensors) else None
            for i, member in enumerate(chunk):
                ratios[member.place] = (
                    each[i] if each else found.to(first.device)
                )


def _is_plain(x: Any) -> bool:
    """Whether it is a tensor of numbers in one piece of memory."""
    return (
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.device.type != "meta"
        and x.is_contiguous()
    )


def _member(place: int, bundle: Bundle) -> _Member | None:
    """A bundle as a member of a list; None for one that cannot be."""
    if len(bundle.rows) > 1 or bundle.norm_of or bundle.hyper.clip_by_unit:
        return None
    (variables,), (grad,) = bundle.variables, bundle.grads
    arrays: list[Any] = [variable.value for variable in variables]
    if not all(map(_is_plain, arrays)) or not isinstance(grad, torch.Tensor):
        return None
    # A copy in another dtype, under Keras' autocast.
    if any(x is not getattr(v, "_value", x) for x, v in zip(arrays, variables)):
        return None
    if any(x.dtype == torch.bfloat16 for x in arrays[1:]):
        return None
    wide = arithmetic.wide_dtype(arithmetic.dtype_name(grad))
    scale = bundle.scalars[0].scale.to(getattr(torch, wide))
    is_one = scale.device.type == "cpu" and float(scale) == 1
    return _Member(
        place,
        [x.detach().view(-1) for x in arrays],
        grad.detach().reshape(-1),
        None if is_one else scale,
    )


def _key(bundle: Bundle, member: _Member) -> Any:
    """What is equal for the variables of a list."""
    dtypes = [x.dtype for x in (*member.arrays, member.grad)]
    treatment = bundle.rows[0].treatment
    return (
        bundle.hyper,
        bundle.adapt,
        treatment.decay,
        treatment.group,
        member.scale is None,
        member.arrays[0].device,
        *dtypes,
    )


def _chunks(members: list[_Member], limit: int) -> list[list[_Member]]:
    """Lists of `limit` elements at most, or of one variable."""
    chunks: list[list[_Member]] = []
    left = 0
    for member in members:
        length = member.grad.numel()
        if not chunks or length > left:
            chunks.append([])
            left = limit
        chunks[-1].append(member)
        left -= length
    return chunks


def _store(chunk: Sequence[_Member], step: rules.Step) -> None:
    new = [x for x in (step.param, step.m, step.v) if x is not None]
    for i, values in enumerate(new):
        torch._foreach_copy_([m.arrays[i] for m in chunk], values.parts)


def _norm(
    ops: Any,
    kind: str,
    x: Tensors,
    function: Any = None,
    arrays: Sequence[Any] = (),
    /,
) -> Tensors:
    """`NormOf`: the norm of each whole tensor."""
    return torch_lists.norm(kind, arithmetic.widen(ops, x))


def _has_blocks(hyper: Hyper) -> bool:
    """Whether no norm depends on another one, so that one pass finds all."""
    if not isinstance(hyper, Lamb):
        return True
    return not (hyper.cautious or LAMB_FORMS[hyper.form].two_directions)


class _Norms:
    """Norms of a whole vector, from those of its blocks, in their order."""

    def __init__(self) -> None:
        self._kinds: list[str] = []
        self._of_blocks: list[list[torch.Tensor]] = []
        self._call = 0

    def restart(self) -> None:
        """The next block's first norm comes next."""
        self._call = 0

    def of_block(self, ops: Any, kind: str, x: Tensors, *rest: Any) -> Tensors:
        """`NormOf` of the first pass: that of the block."""
        if self._call == len(self._kinds):
            self._kinds.append(kind)
            self._of_blocks.append([])
        found = _norm(ops, kind, x)
        self._of_blocks[self._call].append(found.parts[0])
        self._call += 1
        return found

    def finish(self) -> None:
        """Puts the blocks' norms together."""
        self._whole = [
            torch_lists.norm(kind, Tensors([torch.stack(norms)]))
            for kind, norms in zip(self._kinds, self._of_blocks)
        ]

    def of_whole(self, ops: Any, kind: str, x: Tensors, *rest: Any) -> Tensors:
        """`NormOf` of the second pass: that of the whole."""
        self._call += 1
        return self._whole[self._call - 1]


def _by_block(
    member: _Member, rule: Callable[..., rules.Step], size: int
) -> Array:
    """Updates a long vector; gives its trust ratio."""
    pieces = [x.split(size) for x in (*member.arrays, member.grad)]
    blocks = [
        [_Member(member.place, arrays, grad, member.scale)]
        for *arrays, grad in zip(*pieces)
    ]
    norms = _Norms()
    for block in blocks:
        norms.restart()
        step = rule(block, norms.of_block)
        if not norms._kinds:  # nothing depends on the others
            _store(block, step)
    if not norms._kinds:
        return step.trust_ratio
    norms.finish()
    for block in blocks:
        norms.restart()
        step = rule(block, norms.of_whole)
        _store(block, step)
    return step.trust_ratio
