"""LAMB and LARS for Keras 3, on its TensorFlow, JAX and torch backends.

`optimizers.py` has their arguments; this module has the methods that Keras 3
expects of an optimizer.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

import keras
from keras import ops

from tf_lamb import (
    arithmetic,
    keras3_loop,
    known_variables,
    optimizers,
    schedules,
)
from tf_lamb.arithmetic import Array
from tf_lamb.averages import Variable
from tf_lamb.keras_optimizer import KerasExecutor, KerasOptimizer

BACKEND = keras3_loop.BACKEND
if TYPE_CHECKING or BACKEND == "tensorflow":
    from tf_lamb import (
        addons_checkpoints,
        loss_scaling,
        tf_contexts,
        tf_update,
    )
if TYPE_CHECKING or BACKEND == "torch":
    from tf_lamb import torch_update

__all__ = ["LAMB", "LARS", "Rewarmup", "WarmupPolynomial"]

_register = keras.saving.register_keras_serializable(package="tf_lamb")
_Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class _Keras3Optimizer(KerasOptimizer, keras.optimizers.Optimizer):
    """The methods of `KerasOptimizer` that are Keras 3's own."""

    _ops = keras3_loop.array_functions()
    _SCHEDULE = _Schedule
    _serialize = staticmethod(keras.saving.serialize_keras_object)
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)
    _schedules = keras.optimizers.schedules
    _registered = staticmethod(keras.saving.get_registered_object)
    if BACKEND == "tensorflow":
        _held = staticmethod(tf_update.held)
        _init_scope = staticmethod(tf_contexts.outside_graphs)
    _absent: frozenset[int] = frozenset()  # ids of what a step has not
    if BACKEND == "jax":
        # `fit` compiles it into the step, as a constant.
        _FIXED = KerasOptimizer._FIXED | {"weight_decay"}

    def _default_name(self) -> str:
        # As Keras' own: variables of two optimizers have different paths.
        name = super()._default_name()
        number = keras.backend.get_uid(name)
        return name if number == 1 else f"{name}_{number - 1}"

    def build(self, variables: Sequence[Variable]) -> None:
        """Resolves the exclusions and makes the slots.

        Args:
          variables: all that the optimizer will update.

        Raises:
          ValueError: a regex matches none of them, or one of them is not of a
            floating dtype.
        """
        if BACKEND == "tensorflow" and not self.built:
            self._check_scope(variables)
        super().build(variables)
        if (
            BACKEND == "tensorflow"
            and self._distribution_strategy.num_replicas_in_sync > 1
        ):
            # A loss scaler builds its inner optimizer before its first check.
            loss_scaling.share_overflows(of=_Keras3Optimizer)
        if self.built:
            self._restore_waiting()

    def _check_scope(self, variables: Sequence[Variable]) -> None:
        """Checks that variables of TensorFlow were made in our scope."""
        native = list(map(self._native, variables))
        tf_contexts.require_scope(
            self._distribution_strategy, self.name, native
        )

    def _lookup_dependency(self, name: str, *args: Any, **kwargs: Any) -> Any:
        # Of TensorFlow's checkpoints, on TensorFlow.
        addons_checkpoints.refuse_keras_2(self.name, name)
        return super()._lookup_dependency(name, *args, **kwargs)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        custom_objects: Mapping[str, Any] | None = None,
    ) -> Any:
        """The optimizer that `get_config` describes."""
        # The base class puts a schedule into the dict that it is given.
        return super().from_config(dict(config), custom_objects)

    def _add_state(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        initializer: Any = "zeros",
    ) -> Variable:
        return self.add_variable(
            shape, initializer, dtype, "only_first_replica", name=name
        )

    def _add_slot(self, variable: Variable, name: str) -> Variable:
        if self._overwrite_variable_with_gradient(variable):
            return None
        dtype = self._slot_dtype(arithmetic.dtype_name(variable))
        return self._add_like(variable, name, dtype)

    def _add_like(
        self,
        variable: Variable,
        name: str,
        dtype: str,
        initializer: Any = "zeros",
    ) -> Variable:
        """A variable of another one's shape and layout, and of `dtype`."""
        path = getattr(variable, "path", variable.name)
        where: Any = contextlib.nullcontext()
        if BACKEND == "tensorflow":  # on the same parameter server
            extended = self._distribution_strategy.extended
            where = extended.colocate_vars_with(self._native(variable))
        with where:
            return self.add_variable(
                variable.shape,
                initializer,
                dtype,
                layout=self._state_layout(variable),
                name=f"{path.replace('/', '_').replace(':', '_')}_{name}",
            )

    def _state_layout(self, variable: Variable) -> Any:
        """Where its state lies; `sharding.shard_state` puts another here."""
        return getattr(variable, "_layout", None)

    def add_variable_from_reference(
        self,
        reference_variable: Variable,
        name: str | None = None,
        initializer: Any = "zeros",
    ) -> Variable:
        """Makes a variable like another one.

        An average of weights (EMA) and an accumulator of gradients are float32
        where the weights' dtype is narrower. On TensorFlow each replica has its
        own value of an accumulator; the stock optimizer has one for all.

        Args:
          reference_variable: the variable whose shape and dtype it has.
          name: name of the slot.
          initializer: of Keras.

        Returns:
          A `keras.Variable`.
        """
        if name not in ("average", "gradient_accumulator"):
            return super().add_variable_from_reference(
                reference_variable, name, initializer
            )
        dtype = arithmetic.wide_dtype(arithmetic.dtype_name(reference_variable))
        if BACKEND != "tensorflow" or name == "average":
            return self._add_like(reference_variable, name, dtype, initializer)
        # Each replica has its own sum; the sum of them all is saved.
        total = keras.Variable(
            initializer,
            shape=reference_variable.shape,
            dtype=dtype,
            trainable=False,
            aggregation="sum",
            synchronization="on_read",
            name=f"{reference_variable.path.replace('/', '_')}_{name}",
        )
        self._track_variable(total)
        return total

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[Any, Variable]]
    ) -> Variable:
        """Applies gradients to their variables.

        Args:
          grads_and_vars: `(gradient, variable)` pairs; none do nothing.

        Returns:
          `iterations`, the count of calls.
        """
        pairs = list(grads_and_vars)
        return super().apply_gradients(pairs) if pairs else self._iterations

    def apply(
        self,
        grads: Sequence[Array],
        trainable_variables: Sequence[Variable] | None = None,
    ) -> None:
        """Applies gradients, one update or a micro-batch of it.

        Args:
          grads: a gradient for each variable, dense or sparse (rows of equal
            index are added up); None leaves its variable as it is.
          trainable_variables: those that the optimizer was built with by
            default.

        Raises:
          RuntimeError: it was called outside the replicas of a strategy.
          ValueError: gradients are not as many, or not of the shapes.
        """
        if BACKEND == "tensorflow" and not self.built:
            self._check_scope(trainable_variables or ())
        if BACKEND == "tensorflow":
            tf_contexts.require_replica(self._distribution_strategy, self.name)
        # A sparse gradient cannot be divided by `loss_scale_factor`.
        grads, variables = known_variables.with_dense_gradients(
            self, grads, trainable_variables
        )
        if self.loss_scale_factor:  # in float16, what is left could be 0
            wide = functools.partial(arithmetic.widen, self._ops)
            grads = [g if g is None else wide(g) for g in grads]
        super().apply(grads, variables)

    def _executor(self) -> KerasExecutor:
        if BACKEND == "tensorflow":
            strategy = self._distribution_strategy
            return tf_update.Devices(strategy, self.jit_compile)
        if BACKEND == "torch":
            return torch_update.Loop(self._ops)
        # XLA reads a gradient once for two sums, but again for a condition.
        return keras3_loop.Loop(self._ops, has_branches=BACKEND != "jax")

    def _schedule_step(self) -> Array:
        return self._iterations

    def _native(self, variable: Variable) -> Variable:
        if BACKEND != "tensorflow":
            return variable
        # Custom loops may pass TensorFlow's own variables.
        is_keras = isinstance(variable, keras.Variable)
        return variable.value if is_keras else variable

    def _index(self, variable: Variable) -> int:
        try:
            return int(self._get_variable_index(variable))
        except KeyError:
            path = getattr(variable, "path", variable.name)
            count = len(self._trainable_variables)
            text = known_variables.unknown(self, path, count)
            raise ValueError(text) from None

    def _check_variables_are_known(self, variables: Sequence[Variable]) -> None:
        for variable in variables:
            self._index(variable)

    def stateless_apply(
        self,
        optimizer_variables: Sequence[Array],
        grads: Sequence[Array],
        trainable_variables: Sequence[Array],
    ) -> Any:
        """One update without side effects, for JAX.

        Args:
          optimizer_variables: values of `variables`.
          grads: gradients, of all variables, or of those still trainable.
          trainable_variables: values of these.

        Returns:
          New values of the trainable variables, and of `variables`.

        Raises:
          ValueError: the optimizer is not built, or the values are not those
            of its variables.
        """
        if not trainable_variables and not self.built:
            # A loss scaler passes variables for their values.
            return [], [ops.convert_to_tensor(x) for x in optimizer_variables]
        arguments = optimizer_variables, grads, trainable_variables
        if BACKEND == "jax" and self.built:
            trained = known_variables.of_values(self, trainable_variables)
            if len(trained) < len(self._trainable_variables):
                return keras3_loop.stateless_apply_to(self, trained, *arguments)
        return super().stateless_apply(*arguments)

    def _updates_due(self) -> Array:
        return self.iterations

    def _skipped_before(self) -> Array:
        skipped = super()._skipped_before()
        iterations = ops.cast(self.iterations, "int32")
        # Where `iterations` was set back, none of them was skipped.
        return ops.where(skipped > iterations, ops.zeros_like(skipped), skipped)

    def _updates_made(self) -> Array:
        # Under floatx float64, `iterations` is int64 on TensorFlow.
        return ops.cast(self.iterations, "int32") - self._skipped_before()

    def _averaged_variables(self) -> Sequence[Variable | None]:
        every, absent = self._trainable_variables, self._absent
        return [None if id(v) in absent else v for v in every]

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Sets the weights to their averages at the end of training (EMA).

        Args:
          var_list: variables of the model.
        """
        if BACKEND == "jax" and self.built and self.iterations._value is None:
            # An error ended a step, to which `fit` had handed the variables.
            return
        if self.built:
            self._check_variables_are_known(var_list)
        super().finalize_variable_values(var_list)
        if BACKEND == "jax" and self.use_ema:
            # Weights and averages now share a buffer, which the next `fit`
            # could not donate twice (Keras 3.15's own optimizers fail there).
            for mean in self._model_variables_moving_average:
                if mean is not None:
                    mean.assign(ops.copy(mean))

    def _backend_apply_gradients(
        self, grads: Sequence[Array], trainable_variables: Sequence[Variable]
    ) -> None:
        """Accumulates, or clips and applies; replaces the base class' own.

        The stock version clips before the all-reduce, decays outside the trust
        ratio and averages (EMA) on accumulating steps too.
        """
        executor = self._executor()
        k = self.gradient_accumulation_steps
        if not k:
            self._apply_once(grads, trainable_variables)
            return
        grads = [arithmetic.widen(ops, g) for g in grads]
        indices = [self._get_variable_index(v) for v in trainable_variables]
        sums = [self._accumulated_gradients[i] for i in indices]

        def apply(*grads: Array) -> None:
            # Without `value`, Keras would add an empty array as a layer's bias.
            means = [(total.value + g) / k for total, g in zip(sums, grads)]
            self._apply_once(means, trainable_variables)

        # All weights: the averages are of those without gradient, too.
        weights = [v for v in self._averaged_variables() if v is not None]
        executor.accumulate_or_update(
            (self._iterations + 1) % k == 0,
            apply,
            list(map(self._native, sums)),
            grads,
            [*weights, *self.variables],
        )

    def _apply_once(
        self, grads: Sequence[Array], variables: Sequence[Variable]
    ) -> None:
        """One update, of gradients that are averaged over micro-batches."""
        self._update_of(variables)(self._executor().sum_over_replicas(grads))


@_register
class LAMB(optimizers.LAMB, _Keras3Optimizer):
    __doc__ = optimizers.LAMB.__doc__


# What `.h5` files and configs of tfa call its own; if tfa is there, it counts.
keras.saving.get_custom_objects().setdefault("Addons>LAMB", LAMB)


@_register
class LARS(optimizers.LARS, _Keras3Optimizer):
    __doc__ = optimizers.LARS.__doc__


@_register
class WarmupPolynomial(schedules.WarmupPolynomial, _Schedule):
    __doc__ = schedules.WarmupPolynomial.__doc__
    _ops = ops


@_register
class Rewarmup(schedules.Rewarmup, _Schedule):
    __doc__ = schedules.Rewarmup.__doc__
    _ops = ops
    _serialize = staticmethod(keras.saving.serialize_keras_object)
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)
