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
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lamb import (
    arithmetic,
    check,
    optimizers,
    schedules,
    tf_accumulation,
    tf_ops,
    tf_update,
)
from tf_lamb.addons_checkpoints import AddonsCheckpoints
from tf_lamb.averages import Variable
from tf_lamb.keras_optimizer import KerasOptimizer

if TYPE_CHECKING:
    keras: Any = None
elif tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
    keras = tf.keras
else:
    try:
        import tf_keras as keras
    except ImportError:
        raise ImportError(
            "tf_lamb.keras2 needs tf_keras beside TensorFlow "
            f"{tf.__version__}: pip install tf_keras. With Keras 3, unset "
            "TF_USE_LEGACY_KERAS."
        ) from None

__all__ = ["LAMB", "LARS", "Rewarmup", "WarmupPolynomial"]

_register = keras.utils.register_keras_serializable(package="tf_lamb")
_Optimizer: Any = keras.optimizers.Optimizer
_Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


def _is_function(learning_rate: Any) -> bool:
    """Whether a rate is a function of no arguments, not a schedule."""
    return callable(learning_rate) and not isinstance(learning_rate, _Schedule)


class _Keras2Arguments(_Optimizer):
    """Keras 2's optimizer with the two arguments that only Keras 3 has."""

    def __init__(
        self,
        learning_rate: Any,
        name: str | None = None,
        weight_decay: None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        if gradient_accumulation_steps is not None:
            gradient_accumulation_steps = check.count(
                "gradient_accumulation_steps",
                gradient_accumulation_steps,
                minimum=2,
            )
        if loss_scale_factor is not None:
            loss_scale_factor = check.positive(
                "loss_scale_factor", loss_scale_factor
            )
        decay = kwargs.pop("decay", 0.0)
        if decay:
            learning_rate = keras.optimizers.schedules.InverseTimeDecay(
                learning_rate, decay_steps=1, decay_rate=decay
            )
        super().__init__(name=name, weight_decay=None, **kwargs)
        # Moments of a checkpoint that was restored before `build`.
        self._waiting_slots = self._no_dependency([])
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.loss_scale_factor = loss_scale_factor
        self._learning_rate = self._build_learning_rate(learning_rate)

    def _build_learning_rate(self, learning_rate: Any) -> Any:
        if _is_function(learning_rate):
            return learning_rate
        return super()._build_learning_rate(learning_rate)

    @property
    def learning_rate(self) -> Any:
        """The rate: a variable, or what the function returns now."""
        if _is_function(self._learning_rate):
            rate = self._learning_rate()
            return rate if tf.is_tensor(rate) else tf.constant(rate, tf.float64)
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if _is_function(learning_rate):
            self._learning_rate = learning_rate
        elif not _is_function(self._learning_rate):
            _Optimizer.learning_rate.fset(self, learning_rate)
        elif isinstance(learning_rate, _Schedule):
            self._learning_rate = self._build_learning_rate(learning_rate)
        else:
            raise TypeError(
                "learning_rate: this optimizer's rate is a function, which a "
                f"number cannot replace, got {learning_rate!r}; let the "
                "function read a variable, and set that."
            )

    def scale_loss(self, loss: Any) -> Any:
        """The loss times `loss_scale_factor`, for custom loops.

        `apply_gradients` divides by the factor. `fit`, `minimize` and
        `compute_gradients` multiply by it on their own.

        Args:
          loss: tensor of any shape.
        """
        factor = self.loss_scale_factor
        return loss if factor is None else loss * factor

    def compute_gradients(
        self, loss: Any, var_list: Any, tape: tf.GradientTape | None = None
    ) -> Any:
        """Gradients of the loss times `loss_scale_factor`; `minimize` calls it.

        Args:
          loss: tensor that `tape` recorded, or function that returns one.
          var_list: variables, or (for a function) function that returns them.
          tape: a `tf.GradientTape`, for a tensor.

        Returns:
          `(gradient, variable)` pairs, for `apply_gradients`.
        """
        if callable(loss):
            return super().compute_gradients(
                lambda: self.scale_loss(loss()), var_list, tape
            )
        if self.loss_scale_factor is None or tape is None:
            return super().compute_gradients(loss, var_list, tape)
        # The same as the gradients of the scaled loss, which was not recorded.
        seed = self.scale_loss(tf.ones_like(loss))
        grads = tape.gradient(loss, var_list, output_gradients=seed)
        return list(zip(grads, var_list))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as `from_config` takes them."""
        config: dict[str, Any] = super().get_config()
        rate = self._serialize_hyperparameter(self._learning_rate)
        if _is_function(self._learning_rate):
            rate = float(tf.convert_to_tensor(rate))
            warnings.warn(
                "learning_rate: a config cannot hold a function; it holds its "
                f"value, {rate!r}. Pass the function again after loading.",
                stacklevel=2,
            )
        config.update(
            learning_rate=rate,
            loss_scale_factor=self.loss_scale_factor,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
        )
        return config


class _Keras2Optimizer(KerasOptimizer, AddonsCheckpoints, _Keras2Arguments):
    """The methods of `KerasOptimizer` that are Keras 2's own."""

    _ops = tf_ops
    _SCHEDULE = _Schedule
    _held = staticmethod(tf_update.held)
    _serialize = staticmethod(keras.optimizers.schedules.serialize)
    _deserialize = staticmethod(keras.optimizers.schedules.deserialize)

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
        super().build(variables)
        self._averaged = self._no_dependency(variables)
        # Updates that were made. Below 0: as many as `iterations` says, which
        # may come from a checkpoint of another optimizer.
        self._updates = self._add_state("updates", (), "int64", -1)
        if self.gradient_accumulation_steps:
            self._micro_batches = self._add_state("micro_batches", (), "int64")
            self._sums = [self._add_sum(v) for v in variables]
        self._built = True
        self._restore_waiting_slots()

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
            raise ValueError(
                f"{self.name}: variable {variable.name!r} is not one of the "
                f"{len(self._treatments)} that the optimizer was built with; "
                "call optimizer.build(all trainable variables) before training."
            )
        return self._index_dict[key]

    def _executor(self) -> tf_update.Devices:
        strategy = self._distribution_strategy
        return tf_update.Devices(strategy, self.jit_compile)

    def _schedule_step(self) -> tf.Tensor:
        return self.iterations

    def _set(self, variable: tf.Variable, mean: tf.Variable) -> None:
        # Called by `fit` outside the replicas.
        tf_update.assign(self._distribution_strategy, variable, mean)

    def _updates_due(self) -> tf.Tensor:
        return self._updates_made() + tf.cast(self._skipped_steps, tf.int64)

    def _updates_made(self) -> tf.Tensor:
        updates = tf.convert_to_tensor(self._updates)
        iterations = tf.convert_to_tensor(self.iterations)
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
          ValueError: no variable has a gradient, or the optimizer was not
            built with one of them.
          NotImplementedError: under DTensor.
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
        self._compute_current_learning_rate()
        with tf.name_scope(name or self.name or "optimizer"):
            with tf.init_scope():
                self.build([v for _, v in pairs])
            pairs = [(g, v) for g, v in pairs if g is not None]
            if not pairs:
                raise ValueError(
                    f"{self.name}: no variable has a gradient; does the loss "
                    "depend on the model's trainable variables?"
                )
            grads = [tf_update.dense(g) for g, _ in pairs]
            if self.loss_scale_factor:
                grads = [g / self.loss_scale_factor for g in grads]
            variables = [v for _, v in pairs]
            self._accumulate_or_apply(grads, variables, aggregate)
            for variable in variables:
                if variable.constraint is not None:
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
        tf_accumulation.accumulate_or_update(
            self._distribution_strategy, is_update_step, update, sums, grads
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
            grads = tf_update.sum_over_replicas(grads)
        proceed, _ = self._update_of(variables)(grads)
        self._updates.assign(before + tf.cast(proceed, tf.int64))

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the state from a `.keras` file.

        Args:
          store: {name: HDF5 data set or array}.
        """
        # A sum of which each replica has a part cannot be set to a data set.
        super().load_own_variables(
            {name: np.asarray(value) for name, value in store.items()}
        )


def _dtype(variable: Variable) -> tf.DType:
    """The dtype that is stored, under a mixed-precision policy too."""
    return getattr(variable, "true_dtype", variable.dtype)


def _wide(variable: Variable) -> tf.DType:
    """The dtype of the arithmetic on a variable."""
    return tf.as_dtype(arithmetic.wide_dtype(_dtype(variable).name))


@_register
class LAMB(optimizers.LAMB, _Keras2Optimizer):
    __doc__ = optimizers.LAMB.__doc__


@_register
class LARS(optimizers.LARS, _Keras2Optimizer):
    __doc__ = optimizers.LARS.__doc__


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
