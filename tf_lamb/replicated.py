"""The update under TensorFlow's distribution strategies.

Under a strategy a variable has a component on each device, and a gradient has a
value in each replica. Gradients are summed over replicas before anything is
computed from them; the compiled update (`fused.py`) is called with each
device's own components.
"""

from __future__ import annotations

import types
from typing import Any, Callable, Hashable, Sequence

import tensorflow as tf

from tf_lamb import fused
from tf_lamb.exclusion import Treatment
from tf_lamb.layer_adaptive import LayerAdaptive, Variable

_TPU_STRATEGIES = (
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.TPUStrategy,
)


class Replicated(LayerAdaptive):
    """LAMB and LARS on TensorFlow, under any strategy.

    The Keras optimizer into which this is mixed provides
    `_distribution_strategy`; `optimizers.py` provides the rule's name and its
    constants.
    """

    _distribution_strategy: tf.distribute.Strategy
    _RULE_NAME: str
    _options: Callable[[], tuple[Any, ...]]

    # Weight decay as compiled steps read it. It is no state: a checkpoint does
    # not have it, and loading one leaves it as it is.
    _decay: types.SimpleNamespace | None = None

    def _set_decay(self) -> None:
        if self._decay is not None:
            self._decay.variable.assign(self.weight_decay)
            return
        with tf.init_scope():
            variable = tf.Variable(
                self.weight_decay,
                dtype=self._wide_dtype,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        # In a namespace TensorFlow does not track it.
        self._decay = types.SimpleNamespace(variable=variable)

    def _native(self, variable: Variable) -> tf.Variable:
        """TensorFlow's own variable."""
        return variable

    def _apply_sum_over_replicas(
        self,
        grads: Sequence[tf.Tensor],
        variables: Sequence[Variable],
        aggregate: bool = True,
    ) -> tf.Tensor:
        """All-reduces the gradients, then updates; False if it was skipped."""
        if aggregate:
            replica = tf.distribute.get_replica_context()
            # With one replica it would add an operation for each gradient.
            if replica.num_replicas_in_sync > 1:
                grads = replica.all_reduce(
                    tf.distribute.ReduceOp.SUM, list(grads)
                )
        return self._apply_update(grads, variables)

    def _squared_norms(self, grads: Sequence[tf.Tensor]) -> tf.Tensor:
        halves = [fused.half_squared_norm(g) for g in grads]
        return 2 * tf.stack([tf.cast(h, self._wide_dtype) for h in halves])

    def _update_all(
        self,
        grads: Sequence[tf.Tensor],
        variables: Sequence[Variable],
        scales: Sequence[tf.Tensor],
        proceed: tf.Tensor,
        step: tf.Tensor,
        rate: tf.Tensor,
    ) -> Sequence[tf.Tensor]:
        """The compiled rule on each variable, on every device that holds it.

        What changes from step to step is packed once for all variables that
        share it, not once for each variable.
        """
        indices = [self._index(v) for v in variables]
        treatments = [self._treatments[i] for i in indices]
        slots = [
            [self._native(slot[i]) for i in indices] for slot in self._slots
        ]
        packed: dict[Hashable, tf.Tensor] = {}
        assert self._decay is not None
        weight_decay = tf.convert_to_tensor(self._decay.variable)

        def scalars(
            variable: tf.Variable, treatment: Treatment, scale: tf.Tensor
        ) -> tf.Tensor:
            dtype = fused.wide_dtype(variable)
            key = treatment.decay, id(scale), dtype
            if key not in packed:
                decay = weight_decay if treatment.decay else 0.0
                now = fused.Scalars(rate, decay, step, scale, proceed)
                packed[key] = now.packed(dtype)
            return packed[key]

        targets = list(map(self._native, variables))
        return update_each(
            self._distribution_strategy,
            self._fused_update,
            targets,
            [treatments, *slots],
            [grads, list(map(scalars, targets, treatments, scales))],
        )

    def _fused_update(
        self, variable: tf.Variable, treatment: Treatment, *rest: Any
    ) -> tf.Tensor:
        """The compiled rule on one device's component of a variable."""
        *slots, grad, scalars = rest
        rule, options = fused.RULES[self._RULE_NAME]
        return rule(
            variable,
            grad,
            *slots,
            scalars,
            adapt=treatment.adapt,
            options=options(*self._options()),
            jit_compile=self.jit_compile,
        )

    def _each(
        self,
        update: Callable[..., Any],
        rows: Sequence[Sequence[Variable]],
        replica_columns: Sequence[Sequence[tf.Tensor]],
    ) -> None:
        variables, *columns = (
            list(map(self._native, column)) for column in zip(*rows)
        )
        update_each(
            self._distribution_strategy,
            update,
            variables,
            columns,
            replica_columns,
        )

    def _set(self, variable: Variable, mean: Variable) -> None:
        # Called by `fit` outside the replicas.
        self._distribution_strategy.extended.update(
            self._native(variable),
            lambda x, mean: x.assign(tf.cast(mean, x.dtype)),
            args=(self._native(mean),),
        )


def update_each(
    strategy: tf.distribute.Strategy,
    update: Callable[..., Any],
    variables: Sequence[tf.Variable],
    columns: Sequence[Sequence[Any]],
    replica_columns: Sequence[Sequence[tf.Tensor]] = (),
) -> list[Any]:
    """Calls `update(variable, *row)` on every device that holds the variable.

    Args:
      strategy: the strategy under which the variables were made.
      update: called with the device's own component of every variable.
      variables: the first argument, one for each row.
      columns: further arguments that do not differ between replicas (variables,
        constants); each column has one value a row.
      replica_columns: the last arguments, tensors that each replica has
        computed for itself.

    Returns:
      The results on the first device, one for each row.
    """

    # Otherwise `extended.update` has AutoGraph convert its every call.
    update = tf.autograph.experimental.do_not_convert(update)

    def across_replicas(
        distribution: tf.distribute.Strategy, *replica_columns: Any
    ) -> list[Any]:
        results = []
        for variable, *row in zip(variables, *columns, *replica_columns):
            result = distribution.extended.update(
                variable, update, args=tuple(row), group=False
            )
            results.append(result[0])
        return results

    return tf.__internal__.distribute.interim.maybe_merge_call(
        across_replicas, strategy, *replica_columns
    )


def _conditions_below_replicas(strategy: tf.distribute.Strategy) -> bool:
    """Whether a replica may take a condition whose branch synchronises."""
    # On a TPU all replicas are one program; without merge_call (GPUs under
    # XLA) collectives are plain operations.
    return (
        isinstance(strategy, _TPU_STRATEGIES)
        or tf.__internal__.distribute.strategy_supports_no_merge_call()
    )


def accumulate_or_update(
    strategy: tf.distribute.Strategy,
    is_update_step: tf.Tensor,
    update: Callable[..., Any],
    sums: Sequence[tf.Variable],
    grads: Sequence[tf.Tensor],
) -> None:
    """Adds each replica's gradients to its own sums, or calls `update()`.

    A condition whose branch synchronises replicas is not allowed inside a
    replica that is a thread. There the condition is evaluated outside the
    replicas, and `update` runs in each of them. A step that accumulates reads
    the gradients and reads and writes the sums; no replica waits for another.

    Args:
      strategy: the strategy under which the variables were made.
      is_update_step: bool scalar.
      update: function of the gradients, run in every replica.
      sums: accumulators, the variables that `grads` are added to.
      grads: this replica's gradients.
    """

    def add(total: tf.Variable, grad: tf.Tensor) -> None:
        total.assign_add(tf.cast(grad, total.dtype))

    def reset(total: tf.Variable) -> None:
        total.assign(tf.zeros_like(total))

    if _conditions_below_replicas(strategy):

        def accumulate_here() -> None:
            for total, grad in zip(sums, grads):
                add(total, grad)

        def update_here() -> None:
            update(*grads)
            for total in sums:
                reset(total)

        tf.cond(is_update_step, update_here, accumulate_here)
        return

    def across_replicas(
        distribution: tf.distribute.Strategy,
        is_update_step: tf.Tensor,
        *grads: tf.Tensor,
    ) -> None:
        flag = distribution.experimental_local_results(is_update_step)[0]
        extended = distribution.extended

        def accumulate() -> None:
            for total, grad in zip(sums, grads):
                extended.update(total, add, args=(grad,), group=False)

        def run_update() -> None:
            extended.call_for_each_replica(update, args=grads)
            for total in sums:
                extended.update(total, reset, group=False)

        tf.cond(flag, run_update, accumulate)

    tf.distribute.get_replica_context().merge_call(
        across_replicas, args=(is_update_step, *grads)
    )
