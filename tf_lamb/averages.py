"""Averages of the weights (EMA): how an update moves them."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

from tf_lamb import arithmetic
from tf_lamb.arithmetic import Array

# A variable of any Keras, or TensorFlow's own.
Variable = Any


class Averages(NamedTuple):
    """The averages of all variables of an optimizer.

    Attributes:
      pairs: `(variable, average)`.
      momentum: `d`, in [0, 1].
      overwrite_frequency: after how many updates the weights are set to their
        averages; None for never.
      due: updates before this one, skipped ones among them.
    """

    pairs: Sequence[tuple[Variable, Variable]]
    momentum: float
    overwrite_frequency: int | None
    due: Array

    def update(
        self, ops: Any, each: Callable[..., Any], proceed: Array, step: Array
    ) -> None:
        r"""Averages the weights after an update.

        $$a_1 = x_1,\qquad a_t = d\, a_{t-1} + (1 - d)\, x_t$$

        Averages of narrower variables are float32: a bfloat16 would not move by
        a thousandth. Every `overwrite_frequency` updates the weights are set to
        their averages.

        Args:
          ops: array functions.
          each: `each` of the executor (`update.Executor`).
          proceed: bool scalar; a skipped step (False) changes neither.
          step: `t`.
        """
        first = ops.equal(step, 1.0)
        overwrite = ops.convert_to_tensor(False)
        if self.overwrite_frequency:
            due = (self.due + 1) % self.overwrite_frequency == 0
            overwrite = ops.logical_and(due, proceed)

        def average(
            variable: Variable,
            mean: Variable,
            first: Array,
            proceed: Array,
            overwrite: Array,
        ) -> Array:
            value = ops.convert_to_tensor(variable)
            old = ops.convert_to_tensor(mean)
            wide = arithmetic.dtype_name(mean)
            momentum = ops.where(
                first,
                ops.convert_to_tensor(0.0, wide),
                ops.convert_to_tensor(self.momentum, wide),
            )
            x = ops.cast(value, wide)
            # In this form the average of a weight that stays is that weight, to
            # the bit.
            moved = ops.where(first, x, old + (1 - momentum) * (x - old))
            moved = ops.where(proceed, moved, old)
            mean.assign(moved)
            if self.overwrite_frequency:
                moved = arithmetic.narrow(ops, moved, value)
                variable.assign(ops.where(overwrite, moved, value))
            return momentum

        each(average, self.pairs, [first, proceed, overwrite])
