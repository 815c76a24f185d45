"""The update on JAX and torch: variable by variable, by `keras.ops`."""

from __future__ import annotations

import types
from typing import Any, Callable, Sequence

import keras
from keras import ops

from tf_lamb import update
from tf_lamb.arithmetic import Array
from tf_lamb.averages import Variable

BACKEND = keras.config.backend()


class Loop(update.Loop):
    """The executor of JAX and torch, with Keras' conditions."""

    def dense(self, grads: Sequence[Array]) -> Sequence[Array]:
        """The gradients as dense arrays; rows of equal index are added up."""
        if BACKEND == "torch":
            return [
                g.to_dense()
                if hasattr(g, "to_dense")
                else ops.convert_to_tensor(g)
                for g in grads
            ]
        return [ops.convert_to_tensor(g, sparse=False) for g in grads]

    def shaped(
        self, grads: Sequence[Array], variables: Sequence[Variable]
    ) -> list[Array]:
        """The gradients: outside TensorFlow a shape is always known."""
        return list(grads)

    def accumulate_or_update(
        self,
        is_update_step: Array,
        function: Callable[..., None],
        sums: Sequence[Variable],
        grads: Sequence[Array],
        state: Sequence[Variable] = (),
    ) -> None:
        """As `KerasExecutor` says."""

        def accumulate() -> None:
            for total, g in zip(sums, grads):
                total.assign(total + g)

        def update_and_reset() -> None:
            function(*grads)
            for total in sums:
                total.assign(ops.zeros(total.shape, total.dtype))

        if BACKEND != "jax":
            ops.cond(is_update_step, update_and_reset, accumulate)
            return

        # JAX traces both: the values they assign have to be their output.
        def branch(assign: Callable[[], None]) -> Callable[[], list[Array]]:
            def run() -> list[Array]:
                before = [(v, v.value) for v in state]
                with keras.StatelessScope(state_mapping=before) as scope:
                    assign()
                return [scope.get_current_value(v) for v in state]

            return run

        values = ops.cond(
            is_update_step, branch(update_and_reset), branch(accumulate)
        )
        for variable, value in zip(state, values):
            variable.assign(value)


def stateless_apply_to(
    optimizer: Any,
    variables: Sequence[Variable],
    optimizer_variables: Sequence[Array],
    grads: Sequence[Array],
    values: Sequence[Array],
) -> tuple[list[Array], list[Array]]:
    """`stateless_apply` after a part was frozen.

    Args:
      optimizer: of Keras 3, built.
      variables: those of its variables that the step trains.
      optimizer_variables: values of `optimizer.variables`.
      grads: gradients, one for each of `variables`.
      values: their values.

    Returns:
      New values of `variables`, and of `optimizer.variables`.
    """
    state = [*zip(variables, values)]
    state += zip(optimizer.variables, optimizer_variables, strict=True)
    trained = frozenset(map(id, variables))
    every = frozenset(map(id, optimizer._trainable_variables))
    optimizer._absent = every - trained
    try:
        with keras.StatelessScope(state_mapping=state) as scope:
            optimizer.apply(grads, variables)
    finally:
        optimizer._absent = frozenset()
    new = scope.get_current_value
    return list(map(new, variables)), list(map(new, optimizer.variables))


def array_functions() -> Any:
    """`keras.ops`; on torch, without its rounding of float64 to float32."""
    if BACKEND != "torch":
        return ops
    import torch

    def exact(function: Callable[..., Array]) -> Callable[..., Array]:
        def of_two(x: Array, y: Array) -> Array:
            y = torch.as_tensor(y, dtype=x.dtype, device=x.device)
            return function(x, y)

        return of_two

    functions = {n: f for n, f in vars(ops).items() if n[0] != "_"}
    functions["maximum"] = exact(torch.maximum)
    functions["minimum"] = exact(torch.minimum)
    return types.SimpleNamespace(**functions)
