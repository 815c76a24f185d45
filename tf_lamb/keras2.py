"""LAMB and LARS for tf_keras, and for `tf.keras` up to TensorFlow 2.15.

`optimizers.py` has their arguments; here is what Keras 2 asks of an optimizer.
The arguments of Keras 3 that Keras 2 lacks work here too:
`gradient_accumulation_steps`, `loss_scale_factor`; averages (EMA) begin with
the first updated weights, as in Keras 3.

A run of `tfa.optimizers.LAMB` goes on: `LAMB.from_config(its config)`, and
`tf.train.Checkpoint` or `load_weights` of its checkpoints, with the moments.
The `.keras` format and checkpoints keep the optimizer's state; of a SavedModel
folder, Keras 2 restores no optimizer's.
"""

import numpy as np
import tensorflow as tf

from tf_lamb import check, fused, optimizers, schedule_classes
from tf_lamb.replicated import Replicated, accumulate_or_update

if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
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
_Schedule = keras.optimizers.schedules.LearningRateSchedule
# What tfa's optimizer calls the variables that have another name here.
_ADDONS_NAMES = {"iter": "_iterations", "learning_rate": "_learning_rate"}


class _Keras2Arguments(keras.optimizers.Optimizer):
    """Keras 2's optimizer with the arguments that Keras 3 has more."""

    def __init__(
        self,
        learning_rate,
        name=None,
        weight_decay=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        **kwargs,
    ):
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
        if callable(learning_rate) and not isinstance(learning_rate, _Schedule):
            learning_rate = learning_rate()
        super().__init__(name=name, weight_decay=None, **kwargs)
        # Moments of a checkpoint that was read before `build`.
        self._waiting_slots = self._no_dependency([])
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.loss_scale_factor = loss_scale_factor
        self._learning_rate = self._build_learning_rate(learning_rate)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # The base class changes the dict that it is given.
        return super().from_config(dict(config), custom_objects)

    def get_config(self):
        config = super().get_config()
        config.update(
            learning_rate=self._serialize_hyperparameter(self._learning_rate),
            loss_scale_factor=self.loss_scale_factor,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
        )
        return config


class _Keras2Optimizer(Replicated, _Keras2Arguments):
    """Keras 2's side of `LayerAdaptive`."""

    _ops = fused.ops

    @property
    def built(self) -> bool:
        """Whether the optimizer knows its variables."""
        return getattr(self, "_built", False)

    def build(self, variables):
        """Resolves the exclusions and makes the slots."""
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        self._averaged = self._no_dependency(variables)
        # Updates made; below 0: as many as `iterations` says, which may come
        # from a checkpoint of another optimizer.
        self._updates = self._add_state("updates", (), "int64", -1)
        if self.gradient_accumulation_steps:
            self._micro_batches = self._add_state("micro_batches", (), "int64")
            self._sums = [self._add_sum(v) for v in variables]
        self._built = True
        for slot, key, position in self._waiting_slots:
            variable = self._slot_of(slot, key)
            if variable is not None:
                position.restore(variable)
        self._waiting_slots.clear()

    def _add_variable(self, value, dtype, name, **kwargs):
        variable = tf.Variable(
            value, dtype=dtype, name=name, trainable=False, **kwargs
        )
        self._variables.append(variable)
        return variable

    def _add_state(self, name, shape, dtype, initializer=0):
        value = {"zeros": 0, "ones": 1}.get(initializer, initializer)
        return self._add_variable(
            tf.fill(shape, tf.cast(value, dtype)),
            dtype,
            name,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _add_slot(self, variable, name):
        dtype = tf.as_dtype(self._slot_dtype(_dtype(variable).name))
        if dtype == _dtype(variable):
            return self.add_variable_from_reference(variable, name)
        return self._add_like(variable, name, dtype)

    def _add_sum(self, variable):
        """Each replica's own sum of gradients; saved is the sum of all."""
        return self._add_like(
            variable,
            "gradient_accumulator",
            _dtype(variable),
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    def _add_like(self, variable, name, dtype, **kwargs):
        strategy = tf.distribute.get_strategy()
        with strategy.extended.colocate_vars_with(variable):
            return self._add_variable(
                tf.zeros(variable.shape, dtype),
                dtype,
                f"{name}/{variable._shared_name}",
                **kwargs,
            )

    def _index(self, variable):
        key = self._var_key(variable)
        if key not in self._index_dict:
            raise ValueError(
                f"{self.name}: variable {variable.name!r} is not one of the "
                f"{len(self._paths)} that the optimizer was built with; call "
                "optimizer.build(all trainable variables) before training."
            )
        return self._index_dict[key]

    def _updates_due(self):
        return self._updates_made() + tf.cast(self._skipped_steps, tf.int64)

    def _updates_made(self):
        updates = tf.convert_to_tensor(self._updates)
        iterations = tf.convert_to_tensor(self.iterations)
        k = self.gradient_accumulation_steps or 1
        return tf.where(updates < 0, iterations // k, updates)

    def _averaged_variables(self):
        return self._averaged

    def apply_gradients(
        self,
        grads_and_vars,
        name=None,
        skip_gradients_aggregation=False,
        **kwargs,
    ):
        """Accumulates, or clips and applies; replaces the base class' own.

        Args:
          grads_and_vars: `(gradient, variable)` pairs; a gradient may be None
            or `tf.IndexedSlices`.
          name: name scope.
          skip_gradients_aggregation: the gradients are summed over replicas
            already.
          **kwargs: `experimental_aggregate_gradients`, the old name of the
            opposite.

        Returns:
          `iterations`, the count of calls.

        Raises:
          ValueError: no variable has a gradient, or one is not known.
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
            grads = [fused.dense(g) for g, _ in pairs]
            if self.loss_scale_factor:
                grads = [g / self.loss_scale_factor for g in grads]
            variables = [v for _, v in pairs]
            self._accumulate_or_apply(grads, variables, aggregate)
            for variable in variables:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
            return self._count_call()

    def _count_call(self):
        return tf.__internal__.distribute.interim.maybe_merge_call(
            lambda distribution: self.iterations.assign_add(1),
            self._distribution_strategy,
        )

    def _accumulate_or_apply(self, grads, variables, aggregate):
        k = self.gradient_accumulation_steps
        if not k:
            self._apply_once(grads, variables, aggregate)
            return
        sums = [self._sums[self._index(v)] for v in variables]

        def update(*grads):
            means = [
                (tf.convert_to_tensor(total) + g) / k
                for total, g in zip(sums, grads)
            ]
            self._apply_once(means, variables, aggregate)

        is_update_step = (self._micro_batches + 1) % k == 0
        accumulate_or_update(
            self._distribution_strategy, is_update_step, update, sums, grads
        )
        self._micro_batches.assign_add(1)

    def _apply_once(self, grads, variables, aggregate):
        """One update by gradients that are averaged over micro-batches."""
        before = self._updates_made()
        proceed = self._apply_sum_over_replicas(grads, variables, aggregate)
        self._updates.assign(before + tf.cast(proceed, tf.int64))

    def load_own_variables(self, store):
        """Loads the state from a `.keras` file."""
        # A sum of which each replica has a part takes no HDF5 data set.
        super().load_own_variables(
            {name: np.asarray(value) for name, value in store.items()}
        )

    # Checkpoints of tfa.optimizers.LAMB, a Keras optimizer of the older kind:
    # moments are slots of the variables, the count is called `iter`.

    def _slot_of(self, name, key):
        i = self._index_dict.get(key)
        if i is None or name not in self._SLOTS:
            return None
        return self._slots[self._SLOTS.index(name)][i]

    def _create_or_restore_slot_variable(
        self, slot_variable_position, slot_name, variable, **kwargs
    ):
        key = self._var_key(variable)
        if self.built:
            slot = self._slot_of(slot_name, key)
            if slot is not None:
                slot_variable_position.restore(slot)
            return
        self._waiting_slots.append((slot_name, key, slot_variable_position))

    def _lookup_dependency(self, name, *args, **kwargs):
        found = super()._lookup_dependency(name, *args, **kwargs)
        if found is None and name in _ADDONS_NAMES:
            found = getattr(self, _ADDONS_NAMES[name], None)
            if not isinstance(found, tf.Variable):
                return None
        return found


def _dtype(variable) -> tf.DType:
    """The dtype that is stored, under a mixed-precision policy too."""
    return getattr(variable, "true_dtype", variable.dtype)


@_register
class LAMB(optimizers.LAMB, _Keras2Optimizer):
    __doc__ = optimizers.LAMB.__doc__


@_register
class LARS(optimizers.LARS, _Keras2Optimizer):
    __doc__ = optimizers.LARS.__doc__


class _ScheduleSide(_Schedule):
    _ops = fused.ops
    _serialize = staticmethod(keras.optimizers.schedules.serialize)
    _deserialize = staticmethod(keras.optimizers.schedules.deserialize)


@_register
class WarmupPolynomial(schedule_classes.WarmupPolynomial, _ScheduleSide):
    __doc__ = schedule_classes.WarmupPolynomial.__doc__


@_register
class Rewarmup(schedule_classes.Rewarmup, _ScheduleSide):
    __doc__ = schedule_classes.Rewarmup.__doc__
