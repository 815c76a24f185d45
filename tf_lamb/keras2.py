"""LAMB and LARS for tf_keras, and for `tf.keras` up to TensorFlow 2.15.

`optimizers.py` has their arguments; this module has the methods that Keras 2
expects of an optimizer. Two arguments that only Keras 3 has work here too:
`gradient_accumulation_steps` and `loss_scale_factor`. Averages (EMA) begin with
the first updated weights, as in Keras 3. A learning rate that is a function is
called at each step; where the step is compiled by `tf.function`, as in `fit`,
it is called while the step is traced, so it has to read what changes from a
variable. Its value, not the function, is in `get_config`. `apply_gradients`
divides by `loss_scale_factor`: a loop of one's own differentiates
`optimizer.scale_loss(loss)`, which `fit` and `minimize` do by themselves.

A run of `tfa.optimizers.LAMB` can be resumed: `LAMB.from_config(its config)`
takes its settings, and `tf.train.Checkpoint` or `load_weights` reads its
checkpoints, moments included (`addons_checkpoints.py`). The `.keras` format and
checkpoints keep the optimizer's state; from a SavedModel folder, Keras 2
restores no optimizer's state.
"""

from __future__ import annotations

import warnings
from typing import Any, Iterable, Mapping, Sequence

import tensorflow as tf

from tf_lamb import (
    arithmetic,
    known_variables,
    optimizers,
    schedules,
    tf_contexts,
    tf_ops,
    tf_update,
)
from tf_lamb.addons_checkpoints import AddonsCheckpoints
from tf_lamb.averages import Variable
from tf_lamb.keras2_arguments import Keras2Arguments, keras
from tf_lamb.keras_optimizer import KerasOptimizer
from tf_lamb.legacy_names import no_legacy_optimizer

__all__ = ["LAMB", "LARS", "Rewarmup", "WarmupPolynomial"]

_register = keras.utils.register_keras_serializable(package="tf_lamb")
_Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class _Keras2Optimizer(KerasOptimizer, AddonsCheckpoints, Keras2Arguments):
    """The methods of `KerasOptimizer` that are Keras 2's own."""

    _distribution_strategy: tf.distribute.Strategy
    _ops = tf_ops
    _SCHEDULE = _Schedule
    _held = staticmethod(tf_update.held)
    _serialize = staticmethod(keras.optimizers.schedules.serialize)
    _deserialize = staticmethod(keras.optimizers.schedules.deserialize)
    _schedules = keras.optimizers.schedules
    _registered = staticmethod(keras.utils.get_registered_object)
    _init_scope = staticmethod(tf_contexts.outside_graphs)

    @property
    def built(self) -> bool:
        """Whether the optimizer knows its variables."""
        return getattr(self, "_built", False)

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Resolves the exclusions and makes the slots.

        Args:
          variables: all that the optimizer will update.

        Raises:
          ValueError: a regex matches none of them, or one of them is not of a
            floating dtype.
        """
        if self.built:
            return
        variables = list(variables)
        self._take_strategy_of(variables)
        super().build(variables)
        if not variables:
            return
        self._averaged = self._no_dependency(variables)
        # Updates that were made. Below 0: as many as `iterations` says, which
        # may come from a checkpoint of another optimizer.
        self._updates = self._add_state("updates", (), "int64", -1)
        if self.gradient_accumulation_steps:
            self._micro_batches = self._add_state("micro_batches", (), "int64")
            self._sums = [self._add_sum(v) for v in variables]
        self._built = True
        self._restore_waiting_slots()
        self._restore_waiting()

    def _take_strategy_of(self, variables: Sequence[tf.Variable]) -> None:
        """The strategy of the model, of an optimizer that has none."""
        strategy = self._distribution_strategy
        if tf_contexts.is_default(strategy):
            strategy = tf_contexts.strategy_of(variables) or strategy
            self._distribution_strategy = strategy
        tf_contexts.require_scope(strategy, self.name, variables)

    def _add_variable(
        self, value: tf.Tensor, dtype: Any, name: str, **kwargs: Any
    ) -> tf.Variable:
        variable = tf.Variable(
            value, dtype=dtype, name=name, trainable=False, **kwargs
        )
        self._variables.append(variable)
        return variable

    def _add_state(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        initializer: Any = 0,
    ) -> tf.Variable:
        value = {"zeros": 0, "ones": 1}.get(initializer, initializer)
        return self._add_variable(
            tf.fill(shape, tf.cast(value, dtype)),
            dtype,
            name,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _add_slot(self, variable: tf.Variable, name: str) -> tf.Variable:
        dtype = tf.as_dtype(self._slot_dtype(_dtype(variable).name))
        if dtype == _dtype(variable):
            return self.add_variable_from_reference(variable, name)
        return self._add_like(variable, name, dtype)

    def add_variable_from_reference(
        self,
        model_variable: tf.Variable,
        variable_name: str,
        shape: Any = None,
        initial_value: Any = None,
    ) -> tf.Variable:
        """Makes a variable like another one.

        An average of weights (EMA) is float32 where the weights' dtype is
        narrower.

        Args:
          model_variable: the variable whose shape and dtype it has.
          variable_name: name of the slot.
          shape: in place of the variable's.
          initial_value: zeros by default.

        Returns:
          A `tf.Variable`.
        """
        wide = _wide(model_variable)
        if variable_name == "average" and wide != _dtype(model_variable):
            value = tf.cast(initial_value, wide)
            return self._add_like(model_variable, variable_name, wide, value)
        return super().add_variable_from_reference(
            model_variable, variable_name, shape, initial_value
        )

    def _add_sum(self, variable: tf.Variable) -> tf.Variable:
        """Each replica's own sum of gradients; the sum of all is saved.

        It is float32 where the variable's dtype is narrower.
        """
        return self._add_like(
            variable,
            "gradient_accumulator",
            _wide(variable),
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    def _add_like(
        self,
        variable: tf.Variable,
        name: str,
        dtype: tf.DType,
        value: tf.Tensor | None = None,
        **kwargs: Any,
    ) -> tf.Variable:
        strategy = tf.distribute.get_strategy()
        with strategy.extended.colocate_vars_with(variable):
            return self._add_variable(
                tf.zeros(variable.shape, dtype) if value is None else value,
                dtype,
                f"{name}/{variable._shared_name}",
                **kwargs,
            )

    def _index(self, variable: tf.Variable) -> int:
        key = self._var_key(variable)
        if key not in self._index_dict:
            count = len(self._treatments)
            raise ValueError(
                known_variables.unknown(self, variable.name, count)
            )
        return self._index_dict[key]

    def _executor(self) -> tf_update.Devices:
        strategy = self._distribution_strategy
        return tf_update.Devices(strategy, self.jit_compile)

    def _schedule_step(self) -> tf.Tensor:
        return self.iterations

    def _updates_due(self) -> tf.Tensor:
        return self._updates_made() + tf.cast(self._skipped_steps, tf.int64)

    def _updates_made(self) -> tf.Tensor:
        updates = tf.convert_to_tensor(self._updates)
        iterations = tf.cast(self.iterations, tf.int64)  # it may be int32
        k = self.gradient_accumulation_steps or 1
        updates = tf.where(updates < 0, iterations // k, updates)
        return tf.maximum(updates, 0)  # `iterations` may be set to anything

    def _averaged_variables(self) -> Sequence[tf.Variable]:
        variables: Sequence[tf.Variable] = self._averaged
        return variables

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Any, tf.Variable]],
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Accumulates, or clips and applies; replaces the base class' own.

        Args:
          grads_and_vars: `(gradient, variable)` pairs; a gradient may be None
            or `tf.IndexedSlices`.
          name: name scope.
          skip_gradients_aggregation: True if the gradients are summed over
            replicas already.
          **kwargs: `experimental_aggregate_gradients`, an older argument that
            means the opposite.

        Returns:
          `iterations`, the count of calls.

        Raises:
          ValueError: no variable has a gradient, the optimizer was not built
            with one of them, or a gradient is of another shape.
          NotImplementedError: under DTensor.
          RuntimeError: it was called outside the replicas of a strategy.
        """
        if self._mesh or self._run_with_dtensor:
            raise NotImplementedError(
                "tf_lamb: DTensor is not supported; use a tf.distribute "
                "strategy, or Keras 3 on JAX with keras.distribution."
            )
        aggregate = not skip_gradients_aggregation and kwargs.pop(
            "experimental_aggregate_gradients", True
        )
        pairs = list(grads_and_vars)
        if not pairs:
            return self._iterations
        if not self.built:
            self._take_strategy_of([v for _, v in pairs])
        tf_contexts.require_replica(self._distribution_strategy, self.name)
        self._compute_current_learning_rate()
        with tf.name_scope(name or self.name or "optimizer"):
            with tf.init_scope():
                self.build([v for _, v in pairs])
            missing = [v.name for g, v in pairs if g is None]
            pairs = [(g, v) for g, v in pairs if g is not None]
            if not pairs:
                raise ValueError(
                    f"{self.name}: no variable has a gradient; does the loss "
                    "depend on the model's trainable variables?"
                )
            if missing:
                warnings.warn(
                    f"Gradients do not exist for variables {missing}: they stay"
                    " as they are; does the loss depend on them?",
                    stacklevel=2,
                )
            executor = self._executor()
            grads = executor.dense([g for g, _ in pairs])
            variables = [v for _, v in pairs]
            known_variables.check_gradients(self, grads, variables)
            grads = executor.shaped(grads, variables)
            if self.loss_scale_factor:
                # In float16, what is left could be 0.
                wide = [arithmetic.widen(self._ops, g) for g in grads]
                grads = [g / self.loss_scale_factor for g in wide]
            self._accumulate_or_apply(grads, variables, aggregate)
            for variable in variables:
                if known_variables.is_constrained(self, variable):
                    variable.assign(variable.constraint(variable))
            return self._count_call()

    def _count_call(self) -> tf.Tensor:
        return tf.__internal__.distribute.interim.maybe_merge_call(
            lambda distribution: self.iterations.assign_add(1),
            self._distribution_strategy,
        )

    def _accumulate_or_apply(
        self,
        grads: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        aggregate: bool,
    ) -> None:
        k = self.gradient_accumulation_steps
        if not k:
            self._apply_once(grads, variables, aggregate)
            return
        grads = [arithmetic.widen(self._ops, g) for g in grads]
        sums = [self._sums[self._index(v)] for v in variables]

        def update(*grads: tf.Tensor) -> None:
            means = [
                (tf.convert_to_tensor(total) + g) / k
                for total, g in zip(sums, grads)
            ]
            self._apply_once(means, variables, aggregate)

        is_update_step = (self._micro_batches + 1) % k == 0
        self._executor().accumulate_or_update(
            is_update_step, update, sums, grads
        )
        self._micro_batches.assign_add(1)

    def _apply_once(
        self,
        grads: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        aggregate: bool,
    ) -> None:
        """One update, of gradients that are averaged over micro-batches."""
        before = self._updates_made()
        if aggregate:
            grads = self._executor().sum_over_replicas(grads)
        proceed, _ = self._update_of(variables)(grads)
        self._updates.assign(before + tf.cast(proceed, tf.int64))

    def __reduce__(self) -> Any:
        # For copy and pickle, as Keras 3 does it: config and state.
        state: dict[str, Any] = {}
        self.save_own_variables(state)
        return _copy_of, (type(self), self.get_config(), state)


def _copy_of(
    cls: type[Any], config: Mapping[str, Any], state: Mapping[str, Any]
) -> Any:
    """The optimizer that was copied or pickled."""
    optimizer = cls.from_config(config)
    optimizer.load_own_variables(state)
    return optimizer


def _dtype(variable: Variable) -> tf.DType:
    """The dtype that is stored, under a mixed-precision policy too."""
    return getattr(variable, "true_dtype", variable.dtype)


def _wide(variable: Variable) -> tf.DType:
    """The dtype of the arithmetic on a variable."""
    return tf.as_dtype(arithmetic.wide_dtype(_dtype(variable).name))


@_register
class LAMB(optimizers.LAMB, _Keras2Optimizer):
    __doc__ = optimizers.LAMB.__doc__


# What `.h5` files and configs of tfa call its own; if tfa is there, it counts.
keras.utils.get_custom_objects().setdefault("Addons>LAMB", LAMB)


@_register
class LARS(optimizers.LARS, _Keras2Optimizer):
    __doc__ = optimizers.LARS.__doc__


for _name in ("LAMB", "LARS"):
    keras.utils.get_custom_objects().setdefault(
        _name.lower(), no_legacy_optimizer(_name)
    )


@_register
class WarmupPolynomial(schedules.WarmupPolynomial, _Schedule):
    __doc__ = schedules.WarmupPolynomial.__doc__
    _ops = tf_ops


@_register
class Rewarmup(schedules.Rewarmup, _Schedule):
    __doc__ = schedules.Rewarmup.__doc__
    _ops = tf_ops
    _serialize = staticmethod(keras.optimizers.schedules.serialize)
    _deserialize = staticmethod(keras.optimizers.schedules.deserialize)
