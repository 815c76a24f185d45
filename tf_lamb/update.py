"""One update of LAMB or LARS: clip, skip, count, rule, trust ratios, averages.

Every front end makes an `Update` of the variables of a step and calls it with
their gradients, summed over replicas and averaged over accumulated
micro-batches. No framework is imported. Array functions are `ops`; an executor
says where the rule runs: `Loop`, below, variable by variable (JAX, torch), or
`tf_update.Devices`, by compiled kernels on each device (TensorFlow).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, NamedTuple, Protocol, Sequence

from tf_lamb import arithmetic, bundles
from tf_lamb.arithmetic import Array
from tf_lamb.averages import Averages, Variable
from tf_lamb.bundles import Bundle, Row, Scalars, Values, group_of
from tf_lamb.groups import Setting

# A power of two: the squares of any float32, times it, add up to a float32.
_SMALL = 2.0**-96
_SMALLEST_NORMAL = 2.0**-126


class Clipping(NamedTuple):
    """How gradients are clipped, as Keras has it; at most one is not None.

    Attributes:
      clipnorm: limit of each gradient's norm.
      global_clipnorm: limit of the norm of all gradients together.
      clipvalue: limit of each element's absolute value.
    """

    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None


class Memory(NamedTuple):
    """What an optimizer of Keras remembers of its updates.

    Attributes:
      trust_ratios: variable `[n]`, of all `n` variables of the optimizer.
      indices: places of the updated variables among them.
      skipped_steps: variable, int32 scalar.
      skipped_before: its value before this step.
      averages: None without EMA.
    """

    trust_ratios: Variable
    indices: Sequence[int]
    skipped_steps: Variable
    skipped_before: Array
    averages: Averages | None


class Executor(Protocol):
    """Where the rule runs, and the other functions of each variable."""

    # Whether `ops.cond` runs one branch only. If not, both cost less in one
    # loop than a condition.
    has_branches: bool

    def squared_norms(self, grads: Sequence[Array], dtype: str) -> Array:
        """Sums of squares, `[len(grads)]`, in `dtype`."""

    def apply(self, parts: Sequence[Bundle]) -> Sequence[Array]:
        """Applies the rule to each bundle; returns their trust ratios."""

    def each(
        self,
        function: Callable[..., Any],
        rows: Sequence[Sequence[Variable]],
        scalars: Sequence[Array],
    ) -> None:
        """Calls `function(*row, *scalars)` for each row of variables."""


class Loop:
    """Variable by variable, with the array functions `ops`.

    Args:
      ops: array functions.
      has_branches: of `Executor`.
    """

    def __init__(self, ops: Any, has_branches: bool = True) -> None:
        self._ops = ops
        self.has_branches = has_branches

    def dense(self, grads: Sequence[Array]) -> Sequence[Array]:
        """The gradients as dense arrays."""
        return grads

    def sum_over_replicas(self, grads: Sequence[Array]) -> Sequence[Array]:
        """The gradients: there is one replica."""
        return grads

    def assign(self, variable: Variable, value: Variable) -> None:
        """Sets a variable to another one, rounded to nearest."""
        x = self._ops.convert_to_tensor(value)
        variable.assign(arithmetic.narrow(self._ops, x, variable))

    def squared_norms(self, grads: Sequence[Array], dtype: str) -> Array:
        """Sums of squares, `[len(grads)]`, in `dtype`."""
        ops = self._ops
        sums = [ops.sum(ops.square(arithmetic.widen(ops, g))) for g in grads]
        return ops.stack([ops.cast(x, dtype) for x in sums])

    def apply(self, parts: Sequence[Bundle]) -> Sequence[Array]:
        """Applies the rule to each bundle; returns their trust ratios."""
        return list(map(self._apply, parts))

    def _apply(self, bundle: Bundle) -> Array:
        ops = self._ops
        first = bundle.rows[0].variable
        wide = arithmetic.wide_dtype(arithmetic.dtype_name(first))

        def values(row: Row, grad: Array, now: Scalars) -> Values:
            grad = arithmetic.widen(ops, grad)
            scale = ops.cast(now.scale, arithmetic.dtype_name(grad))
            return Values(
                row.variable.value,
                [slot.value for slot in row.slots],
                grad * scale,
                arithmetic.in_dtype(ops, now.weight_decay, wide),
            )

        now = bundle.scalars[0]
        new, ratio = bundles.update(
            ops,
            bundle.hyper,
            list(map(values, bundle.rows, bundle.grads, bundle.scalars)),
            ops.cast(now.step, wide),
            learning_rate=ops.cast(now.learning_rate, wide),
            adapt=bundle.adapt,
            proceed=now.proceed,
            norm_of=bundle.norm_of or arithmetic.whole_norm,
        )
        for variables, arrays in zip(bundle.variables, new):
            for variable, value in zip(variables, arrays):
                variable.assign(value)
        return ratio

    def each(
        self,
        function: Callable[..., Any],
        rows: Sequence[Sequence[Variable]],
        scalars: Sequence[Array],
    ) -> None:
        """Calls `function(*row, *scalars)` for each row of variables."""
        for row in rows:
            function(*row, *scalars)


@dataclasses.dataclass(frozen=True)
class Update:
    """One update of some variables; it is called with their gradients.

    Attributes:
      ops: array functions.
      executor: where the rule runs.
      rows: the variables, their moments and treatments.
      made: updates before this one, without skipped ones, an integer scalar.
      settings: constants, rate and weight decay of each group, and last those
        of variables of no group.
      clipping: how gradients are clipped.
      skip_nonfinite: whether a step with a non-finite gradient is skipped.
      wide: dtype of what all variables share: "float64" if one of them is.
      memory: what is remembered of the update; None for nothing.
    """

    ops: Any
    executor: Executor
    rows: Sequence[Row]
    made: Array
    settings: Sequence[Setting]
    clipping: Clipping = Clipping()
    skip_nonfinite: bool = True
    wide: str = "float32"
    memory: Memory | None = None

    def __call__(self, grads: Sequence[Array]) -> tuple[Array, Sequence[Array]]:
        """Updates variables and moments.

        Args:
          grads: dense gradients, one a row.

        Returns:
          A bool scalar, False if the step was skipped, and the trust ratios,
          scalars, one a row.
        """
        ops = self.ops
        trained = [i for i in range(len(grads)) if not self._is_frozen(i)]
        rows = [self.rows[i] for i in trained]
        grads, scales, proceed = self._clip([grads[i] for i in trained])
        # t counts updates that were made; in float32, exact up to 2^24. Below
        # 1, where the count was set by hand, the bias correction has no value.
        step = ops.maximum(ops.cast(self.made + 1, "float32"), 1.0)
        rates = list(map(self._rate, self.settings))
        decays = [setting.weight_decay for setting in self.settings]
        scalars = [
            Scalars(
                rates[group_of(row.treatment)],
                decays[group_of(row.treatment)] if row.treatment.decay else 0.0,
                step,
                scale,
                proceed,
            )
            for row, scale in zip(rows, scales)
        ]
        found = bundles.bundles(self.settings, rows, grads, scalars)
        computed = self.executor.apply([bundle for _, bundle in found])
        ratios = [ops.ones((), "float32")] * len(self.rows)
        for (places, _), ratio in zip(found, computed):
            # Of a bundle with several ratios, the mean is shown.
            ratio = ops.mean(ratio) if len(ratio.shape) else ratio
            for i in places:
                ratios[trained[i]] = ratio
        if self.memory:
            self._remember(self.memory, ratios, proceed, step)
        return proceed, ratios

    def _is_frozen(self, i: int) -> bool:
        return self.settings[group_of(self.rows[i].treatment)].frozen

    def _rate(self, setting: Setting) -> Array:
        """A group's learning rate, in the dtype that all variables share."""
        # Of what Keras gives: a float32 tensor, or a function's Python number.
        rate = arithmetic.in_dtype(self.ops, setting.learning_rate, self.wide)
        return rate if setting.multiplier == 1 else rate * setting.multiplier

    def _remember(
        self,
        memory: Memory,
        ratios: Sequence[Array],
        proceed: Array,
        step: Array,
    ) -> None:
        ops = self.ops
        old = ops.convert_to_tensor(memory.trust_ratios)
        new = self._ratio_vector(memory, old, ratios)
        memory.trust_ratios.assign(ops.where(proceed, new, old))
        memory.skipped_steps.assign(
            memory.skipped_before + 1 - ops.cast(proceed, "int32")
        )
        if memory.averages:
            memory.averages.update(ops, self.executor.each, proceed, step)

    def _ratio_vector(
        self, memory: Memory, old: Array, ratios: Sequence[Array]
    ) -> Array:
        """The ratios in the order of all variables, old ones in the gaps."""
        ops, n = self.ops, old.shape[0]
        ratios = [ops.cast(ratio, "float32") for ratio in ratios]
        if list(memory.indices) == list(range(n)):
            return ops.stack(ratios)
        updated = dict(zip(memory.indices, ratios))
        return ops.stack([updated.get(i, old[i]) for i in range(n)])

    def _clip(
        self, grads: Sequence[Array]
    ) -> tuple[Sequence[Array], Sequence[Array], Array]:
        r"""How gradients are clipped, and whether the step is made.

        The factor of gradient `i` is

        $$s_i = \frac{c}{\max(\|g_i\|, c)}\ \text{(clipnorm)}\quad
          \text{or}\quad s = \frac{c}{\max(\sqrt{\sum_j \|g_j\|^2}, c)}\
          \text{(global\_clipnorm)}$$

        and 1 for `clipvalue`, which changes the gradients themselves.

        Returns:
          The gradients; their factors, scalars, float32 (float64 if a variable
          of the optimizer is); a bool scalar, False if the step has to be
          skipped: without clipping because the sum of squares is not finite,
          else because a gradient is not, or its factor is below float32's
          normal numbers.
        """
        ops = self.ops
        if not grads:  # all of them are frozen
            return [], [], ops.convert_to_tensor(True)
        each, together, limit = self.clipping
        by_norm = each or together
        scales = [ops.ones((), "float32")] * len(grads)
        if not (self.skip_nonfinite or by_norm):
            proceed = ops.convert_to_tensor(True)
            return self._clip_values(grads), scales, proceed
        squares = self.executor.squared_norms(grads, self.wide)
        finite = ops.isfinite(ops.sum(squares))
        if by_norm or limit:
            small = self._small_squares(grads, squares, finite)
            finite = ops.isfinite(ops.sum(small))
        if by_norm:
            if not each:
                squares, small = ops.sum(squares), ops.sum(small)
            factors = _clip_factors(ops, by_norm, squares, small)
            in_range = ops.all(factors >= _SMALLEST_NORMAL)
            finite = ops.logical_and(finite, in_range)
            scales = (
                ops.unstack(factors, len(grads))
                if each
                else [factors] * len(grads)
            )
        proceed = finite if self.skip_nonfinite else ops.convert_to_tensor(True)
        return self._clip_values(grads), scales, proceed

    def _clip_values(self, grads: Sequence[Array]) -> Sequence[Array]:
        limit = self.clipping.clipvalue
        # Keras 2 takes it beside a norm, and then does not use it.
        if not limit or self.clipping.clipnorm or self.clipping.global_clipnorm:
            return grads
        ops = self.ops

        def clipped(grad: Array) -> Array:
            # As tensors: for torch, Keras makes a Python number a float32.
            dtype = arithmetic.dtype_name(grad)
            lower = ops.convert_to_tensor(-limit, dtype)
            upper = ops.convert_to_tensor(limit, dtype)
            return ops.clip(grad, lower, upper)

        return [clipped(g) for g in grads]

    def _small_squares(
        self, grads: Sequence[Array], squares: Array, finite: Array
    ) -> Array:
        """Squared norms of the gradients times `_SMALL`, `[len(grads)]`.

        Zeros where the plain ones (`squares`) will do: `finite` is True.
        """
        ops = self.ops

        # Always `_SMALL`, but XLA must not know it: it would square a constant
        # by itself, and that square is 0 in float32.
        # As tensors: Keras makes a number one of `floatx`; in float16 it is 0.
        one = ops.convert_to_tensor(1.0, "float32")
        small = ops.where(self.made < -1, one, _SMALL * one)

        def scaled() -> Array:
            wide = (arithmetic.widen(ops, g) for g in grads)
            return self.executor.squared_norms(
                [g * ops.cast(small, arithmetic.dtype_name(g)) for g in wide],
                self.wide,
            )

        if not self.executor.has_branches:
            return scaled()
        return ops.cond(finite, lambda: ops.zeros_like(squares), scaled)


def _clip_factors(
    ops: Any, limit: float, squares: Array, small: Array
) -> Array:
    """`limit / max(norm, limit)`, of norms whose squares may overflow.

    Args:
      ops: array functions.
      limit: what norms are clipped to.
      squares: squared norms.
      small: the same of gradients times `_SMALL`, for where `squares` are
        infinite.

    Returns:
      The factors, the shape of `squares`.
    """
    fits = ops.isfinite(squares)
    one = ops.ones_like(squares)
    unit = ops.where(fits, one, _SMALL * one)
    norms = ops.sqrt(ops.where(fits, squares, small))
    return limit / ops.maximum(norms, limit * unit) * unit
