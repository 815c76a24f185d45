"""What the `tf.compat.v1` LAMB and LARS share: everything but the rule.

Slots and their names, replicas, skipped steps, what is read of an optimizer.
"""

from typing import Callable, Dict, Optional, Sequence, Tuple, Union

import tensorflow as tf

from tf_lamb import check, exclusion, fused, rules

Rate = Union[float, tf.Tensor, Callable]


class LayerAdaptiveOptimizer(tf.compat.v1.train.Optimizer):
    """LAMB and LARS but for `_SLOTS` and `_rule`."""

    # slot name -> name of the variable beside the model's variable
    _SLOTS: Dict[str, Optional[str]] = {}

    def __init__(
        self,
        learning_rate: Rate,
        *,
        weight_decay: float,
        exclude_from_weight_decay: Optional[Sequence[str]],
        exclude_from_layer_adaptation: Optional[Sequence[str]],
        norm: str,
        phi_bounds: Optional[Tuple[float, float]],
        skip_nonfinite: bool,
        moment_dtype: Optional[str],
        jit_compile: bool,
        use_locking: bool,
        name: str,
    ):
        super().__init__(use_locking, name)
        if isinstance(learning_rate, (int, float)):
            check.non_negative("learning_rate", learning_rate)
        self._learning_rate = learning_rate
        self._weight_decay = check.non_negative("weight_decay", weight_decay)
        self._no_decay = exclusion.check_patterns(
            "exclude_from_weight_decay", exclude_from_weight_decay
        )
        self._no_adapt = exclusion.check_patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )
        self._norm = check.one_of("norm", norm, rules.NORMS)
        self._phi_bounds = check.bounds("phi_bounds", phi_bounds)
        self._skip_nonfinite = bool(skip_nonfinite)
        self._moment_dtype = check.one_of(
            "moment_dtype", moment_dtype, rules.MOMENT_DTYPES
        )
        self._jit_compile = bool(jit_compile)
        self._treatments: Dict[str, exclusion.Treatment] = {}
        self._shapes: Dict[str, tuple] = {}
        self._counters = []
        self._trust_ratios: Dict[str, tf.Tensor] = {}

    @property
    def trust_ratios(self) -> Dict[str, tf.Tensor]:
        """{variable name: trust ratio} of the last apply, of adapted variables.

        Scalars of the graph that `apply_gradients` was called in; LARS's are
        its local rates. Of a step that was skipped they mean nothing.
        """
        return dict(self._trust_ratios)

    @property
    def treatments(self) -> Dict[str, exclusion.Treatment]:
        """{variable name: Treatment(decay, adapt)}, after the first apply."""
        return dict(self._treatments)

    def describe(self) -> str:
        """A table of all variables: name, shape, weight decay, adaptation."""
        if not self._treatments:
            raise ValueError(
                "describe: the optimizer knows no variables yet; call "
                "apply_gradients or minimize first."
            )
        return exclusion.describe(
            list(self._treatments),
            [self._shapes[name] for name in self._treatments],
            list(self._treatments.values()),
        )

    @property
    def updates(self) -> Optional[tf.Variable]:
        """How many updates were made, int32; None before the first apply."""
        return self._counters[0] if self._counters else None

    @property
    def skipped_steps(self) -> Optional[tf.Variable]:
        """How many were skipped for a non-finite gradient, int32."""
        return self._counters[1] if self._counters else None

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Applies gradients, summed over replicas, in one update.

        Args:
          grads_and_vars: `(gradient, variable)` pairs; a gradient may be None
            or `tf.IndexedSlices`.
          global_step: variable that is incremented by one.
          name: name of the operation.

        Returns:
          The training operation (in graph mode).

        Raises:
          ValueError: no variable has a gradient; a variable is none of
            resource kind; a regex matches no variable.
        """
        pairs = list(grads_and_vars)
        variables = [v for _, v in pairs]
        for variable in variables:
            _check_resource(variable)
        pairs = [(g, v) for g, v in pairs if g is not None]
        if not pairs:
            names = [v.name for v in variables]
            raise ValueError(
                f"No gradients provided for any variable: {names}."
            )
        self._resolve(variables)
        context = tf.distribute.get_replica_context()
        if context is None:
            raise RuntimeError(
                "apply_gradients: call it in a replica, inside strategy.run."
            )
        return context.merge_call(
            self._across_replicas,
            args=(
                [fused.dense(g) for g, _ in pairs],
                [v for _, v in pairs],
                global_step,
            ),
            kwargs={"name": name},
        )

    def _resolve(self, variables):
        paths = [exclusion.normalize_path(v.name) for v in variables]
        if set(paths) <= set(self._treatments):
            return
        treatments = exclusion.resolve(paths, self._no_decay, self._no_adapt)
        self._treatments.update(zip(paths, treatments))
        self._shapes.update(
            (p, tuple(v.shape)) for p, v in zip(paths, variables)
        )

    def _create_slots(self, var_list):
        self._make_slots(var_list)

    def _make_slots(self, variables):
        """The moments of each variable, made if they are not there yet."""
        rows = []
        for variable in variables:
            dtype = tf.float64
            if variable.dtype.base_dtype != dtype:
                dtype = tf.as_dtype(self._moment_dtype or "float32")
            row = [
                self._get_or_make_slot_with_initializer(
                    variable,
                    tf.compat.v1.zeros_initializer(),
                    variable.shape,
                    dtype,
                    slot,
                    suffix or self._name,
                )
                for slot, suffix in self._SLOTS.items()
            ]
            rows.append(row)
        first = min(variables, key=lambda v: v.name)
        self._counters = [
            self._create_non_slot_variable(0, counter, first)
            for counter in ("updates", "skipped_steps")
        ]
        return rows

    def _across_replicas(
        self, distribution, grads, variables, global_step, name=None
    ):
        with tf.init_scope():
            # Inside a function a variable has another key: look up here only.
            slots = self._make_slots(variables)
        extended = distribution.extended
        with tf.name_scope(name or self._name):
            grads = extended.batch_reduce_to(
                tf.distribute.ReduceOp.SUM, list(zip(grads, variables))
            )
            proceed = self._all_finite(distribution, grads)
            made = self._counters
            step = tf.cast(_first(distribution, made[0]) + 1, tf.float32)
            rate = tf.cast(
                self._call_if_callable(self._learning_rate), "float32"
            )
            updates = [
                extended.update(
                    variable,
                    self._update,
                    args=(
                        grad,
                        *row,
                        step,
                        rate,
                        proceed,
                        self._treatments[
                            exclusion.normalize_path(variable.name)
                        ],
                    ),
                    group=False,
                )
                for grad, variable, row in zip(grads, variables, slots)
            ]
            self._remember(variables, updates)
            with _after(updates):
                done = tf.cast(proceed, tf.int32)
                updates = [
                    extended.update(v, _add, args=(n,), group=False)
                    for v, n in zip(made, (done, 1 - done))
                ]
            if global_step is not None:
                with _after(updates):
                    updates = [
                        extended.update(
                            global_step, _add, args=(1,), group=False
                        )
                    ]
            return self._train_op(updates)

    def _remember(self, variables, updates):
        paths = [exclusion.normalize_path(v.name) for v in variables]
        self._trust_ratios = {
            path: tf.nest.flatten(ratio)[0]
            for path, ratio in zip(paths, updates)
            if self._treatments[path].adapt
        }

    def _train_op(self, updates):
        if tf.executing_eagerly():
            return None
        with _after(updates):
            operation = tf.no_op(name="train")
        if not tf.inside_function():
            collection = tf.compat.v1.get_collection_ref(
                tf.compat.v1.GraphKeys.TRAIN_OP
            )
            if operation not in collection:
                collection.append(operation)
        return operation

    def _all_finite(self, distribution, grads):
        if not self._skip_nonfinite:
            return tf.constant(True)
        halves = [
            tf.cast(
                fused.half_squared_norm(_first(distribution, g)), tf.float32
            )
            for g in grads
        ]
        return tf.math.is_finite(tf.add_n(halves))

    def _update(self, variable, grad, *rest):
        """One device's component; all side effects hang on what it returns."""
        *slots, step, rate, proceed, treatment = rest
        decay = self._weight_decay if treatment.decay else 0.0

        def update(grad, step, rate, proceed):
            scalars = fused.Scalars(
                rate, tf.constant(decay), step, tf.constant(1.0), proceed
            )
            return self._rule(
                variable, grad, *slots, scalars.packed(), treatment.adapt
            )

        if not tf.compat.v1.executing_eagerly_outside_functions():
            # A session's graph orders nothing by itself; a function does (and
            # a compiled kernel right in a condition's branch does not run).
            update = tf.function(update, autograph=False)
        return update(grad, step, rate, proceed)

    def checkpoint_names(self, var_list=None) -> Dict[str, tf.Variable]:
        """{name in a checkpoint: variable}, of variables and their moments.

        For `tf.compat.v1.train.Saver(var_list=...)` and `init_from_checkpoint`.
        LAMB's names are those of the published BERT and ALBERT checkpoints with
        optimizer state, `<variable>/adam_m` and `<variable>/adam_v`; the
        counters of this class are not among them.

        Args:
          var_list: variables; all trainable ones of the graph by default.
        """
        if var_list is None:
            var_list = tf.compat.v1.trainable_variables()
        found = {}
        for variable in var_list:
            name = exclusion.normalize_path(variable.name)
            found[name] = variable
            for slot, suffix in self._SLOTS.items():
                moment = self.get_slot(variable, slot)
                if moment is not None:
                    found[f"{name}/{suffix or self._name}"] = moment
        return found

    def _rule(self, variable, grad, *rest):
        raise NotImplementedError


def _check_resource(variable) -> None:
    handle = getattr(variable, "handle", None)
    if handle is None and not hasattr(variable, "values"):
        raise ValueError(
            f"variable {variable.name!r} is of the old reference kind; make "
            "it a resource variable: tf.compat.v1.enable_resource_variables() "
            "before the model, or use_resource=True."
        )


def _first(distribution, value):
    """The first device's part of a value."""
    value = distribution.experimental_local_results(value)[0]
    return tf.convert_to_tensor(value)


def _add(variable, amount):
    return variable.assign_add(tf.cast(amount, variable.dtype))


def _after(updates):
    """Control dependencies on all that `extended.update` returned."""
    if tf.executing_eagerly():
        return tf.control_dependencies([])
    flat = [u for u in tf.nest.flatten(updates) if u is not None]
    return tf.control_dependencies(flat)
