"""TensorFlow's part of the road: replicas, their gradients and variables.

Under a distribution strategy a variable has a component on each device and a
gradient a value in each replica. Gradients are summed over replicas before
anything is computed of them; the compiled update (`fused.py`) is called with
each device's own components.
"""

from typing import Callable, List, Sequence

import tensorflow as tf

from tf_lamb import fused
from tf_lamb.layer_adaptive import LayerAdaptive

_TPU_STRATEGIES = (
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.TPUStrategy,
)


class Replicated(LayerAdaptive):
    """LAMB and LARS on TensorFlow, under any strategy.

    The Keras' side provides `_distribution_strategy` and `_native`.
    """

    def _native(self, variable) -> tf.Variable:
        """TensorFlow's own variable."""
        return variable

    def _apply_sum_over_replicas(self, grads, variables, aggregate=True):
        """All-reduces the gradients, then updates; returns `proceed`."""
        if aggregate:
            replica = tf.distribute.get_replica_context()
            # For one replica it would add an operation a gradient.
            if replica.num_replicas_in_sync > 1:
                grads = replica.all_reduce(
                    tf.distribute.ReduceOp.SUM, list(grads)
                )
        return self._apply_update(grads, variables)

    def _squared_norms(self, grads):
        halves = [fused.half_squared_norm(g) for g in grads]
        return 2 * tf.stack([tf.cast(half, tf.float32) for half in halves])

    def _update_all(self, grads, variables, scales, proceed, step, rate):
        indices = [self._index(v) for v in variables]
        treatments = [self._treatments[i] for i in indices]
        slots = [
            [self._native(slot[i]) for i in indices] for slot in self._slots
        ]
        packed = {}

        def scalars(treatment, scale):
            key = treatment.decay, id(scale)
            if key not in packed:
                decay = self.weight_decay if treatment.decay else 0.0
                now = fused.Scalars(rate, decay, step, scale, proceed)
                packed[key] = now.packed()
            return packed[key]

        return update_each(
            self._distribution_strategy,
            self._fused_update,
            list(map(self._native, variables)),
            [treatments, *slots],
            [grads, list(map(scalars, treatments, scales))],
        )

    def _fused_update(self, variable, treatment, *rest):
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

    def _each(self, update, rows, replica_columns):
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


def update_each(
    strategy: tf.distribute.Strategy,
    update: Callable,
    variables: Sequence[tf.Variable],
    columns: Sequence[Sequence],
    replica_columns: Sequence[Sequence] = (),
) -> List:
    """Calls `update(variable, *row)` on every device that holds the variable.

    Args:
      strategy: the strategy under which the variables were made.
      update: called with the device's own component of every variable.
      variables: one a row.
      columns: what does not differ between replicas (variables, constants).
      replica_columns: tensors that each replica computed for itself.

    Returns:
      What the first device's calls returned, one a row.
    """

    # Otherwise `extended.update` has AutoGraph convert its every call.
    update = tf.autograph.experimental.do_not_convert(update)

    def across_replicas(distribution, *replica_columns):
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
    update: Callable,
    sums: Sequence[tf.Variable],
    grads: Sequence[tf.Tensor],
) -> None:
    """Adds each replica's gradients to its own sums, or calls `update()`.

    A condition whose branch synchronises replicas is not allowed inside a
    replica that is a thread, so there it is taken above them and `update` runs
    in each below it. A step that accumulates reads and writes the sums and
    reads the gradients; no replica waits for another.

    Args:
      strategy: the strategy under which the variables were made.
      is_update_step: bool scalar.
      update: function of the gradients, run in every replica.
      sums: accumulators, the variables that `grads` are added to.
      grads: this replica's gradients.
    """

    def add(total, grad):
        total.assign_add(tf.cast(grad, total.dtype))

    def reset(total):
        total.assign(tf.zeros_like(total))

    if _conditions_below_replicas(strategy):

        def accumulate_here():
            for total, grad in zip(sums, grads):
                add(total, grad)

        def update_here():
            update(*grads)
            for total in sums:
                reset(total)

        tf.cond(is_update_step, update_here, accumulate_here)
        return

    def across_replicas(distribution, is_update_step, *grads):
        flag = distribution.experimental_local_results(is_update_step)[0]
        extended = distribution.extended

        def accumulate():
            for total, grad in zip(sums, grads):
                extended.update(total, add, args=(grad,), group=False)

        def run_update():
            extended.call_for_each_replica(update, args=grads)
            for total in sums:
                extended.update(total, reset, group=False)

        tf.cond(flag, run_update, accumulate)

    tf.distribute.get_replica_context().merge_call(
        across_replicas, args=(is_update_step, *grads)
    )
