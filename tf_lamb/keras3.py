"""LAMB and LARS for Keras 3, on its TensorFlow, JAX and torch backends.

`optimizers.py` has their arguments; here is what Keras 3 asks of an optimizer.
"""

import keras
from keras import ops

from tf_lamb import optimizers, rules, schedule_classes
from tf_lamb.layer_adaptive import LayerAdaptive

BACKEND = keras.config.backend()
if BACKEND == "tensorflow":
    from tf_lamb import fused, loss_scaling
    from tf_lamb.replicated import Replicated, accumulate_or_update

    _Road = Replicated
else:
    _Road = LayerAdaptive

__all__ = ["LAMB", "LARS", "Rewarmup", "WarmupPolynomial"]

_register = keras.saving.register_keras_serializable(package="tf_lamb")


def _cond(predicate, true_fn, false_fn, variables):
    """Runs one of two functions that assign to `variables`."""
    if BACKEND != "jax":
        ops.cond(predicate, true_fn, false_fn)
        return

    # JAX traces both branches: what they assign has to be their output.
    def branch(fn):
        def run():
            state = [(v, v.value) for v in variables]
            with keras.StatelessScope(state_mapping=state) as scope:
                fn()
            return [scope.get_current_value(v) for v in variables]

        return run

    values = ops.cond(predicate, branch(true_fn), branch(false_fn))
    for variable, value in zip(variables, values):
        variable.assign(value)


class _Keras3Optimizer(_Road, keras.optimizers.Optimizer):
    """Keras 3's side of `LayerAdaptive`."""

    _ops = ops

    def build(self, variables):
        """Resolves the exclusions and makes the slots."""
        super().build(variables)
        if (
            BACKEND == "tensorflow"
            and self._distribution_strategy.num_replicas_in_sync > 1
        ):
            # A loss scaler builds what it wraps before its first check.
            loss_scaling.share_overflows(of=_Keras3Optimizer)

    def _add_state(self, name, shape, dtype, initializer="zeros"):
        return self.add_variable(
            shape, initializer, dtype, "only_first_replica", name=name
        )

    def _add_slot(self, variable, name):
        if self._overwrite_variable_with_gradient(variable):
            return None
        dtype = self._slot_dtype(rules.dtype_name(variable))
        if dtype == rules.dtype_name(variable):
            return self.add_variable_from_reference(variable, name)
        path = getattr(variable, "path", variable.name)
        return self.add_variable(
            variable.shape,
            "zeros",
            dtype,
            layout=getattr(variable, "_layout", None),
            name=f"{path.replace('/', '_').replace(':', '_')}_{name}",
        )

    def add_variable_from_reference(
        self, reference_variable, name=None, initializer="zeros"
    ):
        if BACKEND != "tensorflow" or name != "gradient_accumulator":
            return super().add_variable_from_reference(
                reference_variable, name, initializer
            )
        # Each replica has its own sum; what is saved is the sum of them all.
        total = keras.Variable(
            initializer,
            shape=reference_variable.shape,
            dtype=reference_variable.dtype,
            trainable=False,
            aggregation="sum",
            synchronization="on_read",
            name=f"{reference_variable.path.replace('/', '_')}_{name}",
        )
        self._track_variable(total)
        return total

    def _native(self, variable):
        # Custom loops may pass TensorFlow's own variables.
        is_keras = isinstance(variable, keras.Variable)
        return variable.value if is_keras else variable

    def _index(self, variable):
        return self._get_variable_index(variable)

    def _updates_due(self):
        return self.iterations

    def _updates_made(self):
        return self.iterations - self._skipped_steps

    def _averaged_variables(self):
        return self._trainable_variables

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        if BACKEND == "jax" and self.use_ema:
            # Weights and averages are one buffer now, which the next `fit`
            # could not donate twice (Keras 3.15's own optimizers fail there).
            for mean in self._model_variables_moving_average:
                if mean is not None:
                    mean.assign(ops.copy(mean))

    def _backend_apply_gradients(self, grads, trainable_variables):
        """Accumulates, or clips and applies; replaces the base class' own.

        The stock version clips before the all-reduce, decays outside the trust
        ratio and averages (EMA) on accumulating steps too.
        """
        if BACKEND == "tensorflow":
            grads = [fused.dense(g) for g in grads]
        k = self.gradient_accumulation_steps
        if not k:
            self._apply_once(grads, trainable_variables)
            return
        indices = [self._get_variable_index(v) for v in trainable_variables]
        sums = [self._accumulated_gradients[i] for i in indices]

        def update(*grads):
            means = [(total + g) / k for total, g in zip(sums, grads)]
            self._apply_once(means, trainable_variables)

        is_update_step = (self._iterations + 1) % k == 0
        if BACKEND == "tensorflow":
            accumulate_or_update(
                self._distribution_strategy,
                is_update_step,
                update,
                [total.value for total in sums],
                grads,
            )
            return

        def accumulate():
            for total, g in zip(sums, grads):
                total.assign(total + g)

        def update_and_reset():
            update(*grads)
            for total in sums:
                total.assign(ops.zeros(total.shape, total.dtype))

        state = [*trainable_variables, *self.variables]
        _cond(is_update_step, update_and_reset, accumulate, state)

    def _apply_once(self, grads, variables):
        """One update by gradients that are averaged over micro-batches."""
        if BACKEND == "tensorflow":
            self._apply_sum_over_replicas(grads, variables)
        else:
            self._apply_update(grads, variables)


@_register
class LAMB(optimizers.LAMB, _Keras3Optimizer):
    __doc__ = optimizers.LAMB.__doc__


@_register
class LARS(optimizers.LARS, _Keras3Optimizer):
    __doc__ = optimizers.LARS.__doc__


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    _ops = ops
    _serialize = staticmethod(keras.saving.serialize_keras_object)
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)


@_register
class WarmupPolynomial(schedule_classes.WarmupPolynomial, _Schedule):
    __doc__ = schedule_classes.WarmupPolynomial.__doc__


@_register
class Rewarmup(schedule_classes.Rewarmup, _Schedule):
    __doc__ = schedule_classes.Rewarmup.__doc__
