"""The `tf.compat.v1` LAMB and LARS but for their rule.

It holds the slots and their names, the update in every replica, skipped steps,
and the public properties.
"""

from __future__ import annotations

from typing import (
    Any,
    Callable,
    ClassVar,
    ContextManager,
    Iterable,
    Sequence,
    Union,
)

import tensorflow as tf

from tf_lamb import arithmetic, check, exclusion, fused, rules

Rate = Union[float, tf.Tensor, Callable[[], Any]]


class LayerAdaptiveOptimizer(tf.compat.v1.train.Optimizer):
    """LAMB and LARS but for `_SLOTS` and `_rule`."""

    # slot name -> last part of the slot variable's name; None: the optimizer's
    _SLOTS: ClassVar[dict[str, str | None]] = {}

    def __init__(
        self,
        learning_rate: Rate,
        *,
        weight_decay: float,
        exclude_from_weight_decay: Sequence[str] | None,
        exclude_from_layer_adaptation: Sequence[str] | None,
        norm: str,
        phi_bounds: Sequence[float] | None,
        skip_nonfinite: bool,
        moment_dtype: str | None,
        jit_compile: bool,
        use_locking: bool,
        name: str,
    ) -> None:
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
        self._norm = check.one_of("norm", norm, arithmetic.NORMS)
        self._phi_bounds = check.bounds("phi_bounds", phi_bounds)
        self._skip_nonfinite = bool(skip_nonfinite)
        self._moment_dtype = check.one_of(
            "moment_dtype", moment_dtype, rules.MOMENT_DTYPES
        )
        self._jit_compile = bool(jit_compile)
        self._treatments: dict[str, exclusion.Treatment] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._counters: Sequence[tf.Variable] = []
        self._trust_ratios: dict[str, tf.Tensor] = {}

    @property
    def trust_ratios(self) -> dict[str, tf.Tensor]:
        """{variable name: trust ratio} of the last apply, of adapted variables.

        They are scalars of the graph in which `apply_gradients` was called; for
        LARS they are the local rates. After a skipped step they have no
        meaning.
        """
        return dict(self._trust_ratios)

    @property
    def treatments(self) -> dict[str, exclusion.Treatment]:
        """{variable name: Treatment(decay, adapt)}, after the first apply."""
        return dict(self._treatments)

    def describe(self) -> str:
        """A table of all variables: name, shape, weight decay, adaptation.

        Raises:
          ValueError: nothing was applied yet.
        """
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
    def updates(self) -> tf.Variable | None:
        """How many updates were made, int32; None before the first apply."""
        return self._counters[0] if self._counters else None

    @property
    def skipped_steps(self) -> tf.Variable | None:
        """How many were skipped for a non-finite gradient, int32."""
        return self._counters[1] if self._counters else None

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Any, tf.Variable]],
        global_step: tf.Variable | None = None,
        name: str | None = None,
    ) -> tf.Operation | None:
        """Applies gradients, summed over replicas, in one update.

        Args:
          grads_and_vars: `(gradient, variable)` pairs; a gradient may be None
            or `tf.IndexedSlices`.
          global_step: variable that is incremented by one.
          name: name of the operation.

        Returns:
          The training operation (in graph mode).

        Raises:
          ValueError: no variable has a gradient; a variable is not a resource
            variable, or has a gradient and no floating dtype; a regex matches
            no variable.
          RuntimeError: it was not called in a replica.
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
        trained = [v for _, v in pairs]
        check.floating_variables(
            self.get_name(),
            [exclusion.normalize_path(v.name) for v in trained],
            [v.dtype.base_dtype.name for v in trained],
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

    def _resolve(self, variables: Sequence[tf.Variable]) -> None:
        """Resolves the exclusions when a variable is new."""
        paths = [exclusion.normalize_path(v.name) for v in variables]
        if set(paths) <= set(self._treatments):
            return
        treatments = exclusion.resolve(paths, self._no_decay, self._no_adapt)
        self._treatments.update(zip(paths, treatments))
        self._shapes.update(
            (p, tuple(v.shape)) for p, v in zip(paths, variables)
        )

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        self._make_slots(var_list)

    def _make_slots(
        self, variables: Sequence[tf.Variable]
    ) -> list[list[tf.Variable]]:
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
        self,
        distribution: tf.distribute.Strategy,
        grads: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        global_step: tf.Variable | None,
        name: str | None = None,
    ) -> tf.Operation | None:
        """Sums the gradients, updates all variables, counts the update.

        The counters, then `global_step`, change after the last variable has.
        """
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
            # At least 1, whatever `updates` was set to.
            step = tf.cast(_first(distribution, made[0]) + 1, tf.float32)
            step = tf.maximum(step, 1.0)
            rate = self._call_if_callable(self._learning_rate)
            if not tf.is_tensor(rate):
                rate = tf.constant(rate, tf.float64)
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

    def _remember(
        self, variables: Sequence[tf.Variable], updates: Sequence[Any]
    ) -> None:
        """Keeps the trust ratios that the updates returned."""
        paths = [exclusion.normalize_path(v.name) for v in variables]
        self._trust_ratios = {
            path: tf.nest.flatten(ratio)[0]
            for path, ratio in zip(paths, updates)
            if self._treatments[path].adapt
        }

    def _train_op(self, updates: Sequence[Any]) -> tf.Operation | None:
        """The operation that runs all updates, in the collection TRAIN_OP."""
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

    def _all_finite(
        self, distribution: tf.distribute.Strategy, grads: Sequence[Any]
    ) -> tf.Tensor:
        """Whether the sum of squares of the summed gradients is finite."""
        if not self._skip_nonfinite:
            return tf.constant(True)
        halves = [
            fused.half_squared_norm(_first(distribution, g)) for g in grads
        ]
        wide = tf.float32
        if any(half.dtype == tf.float64 for half in halves):
            wide = tf.float64
        return tf.math.is_finite(tf.add_n([tf.cast(h, wide) for h in halves]))

    def _update(
        self, variable: tf.Variable, grad: tf.Tensor, *rest: Any
    ) -> tf.Tensor:
        """Updates one device's component of a variable.

        Returns the trust ratio, which depends on all side effects.
        """
        *slots, step, rate, proceed, treatment = rest
        decay = self._weight_decay if treatment.decay else 0.0

        def update(
            grad: tf.Tensor,
            step: tf.Tensor,
            rate: tf.Tensor,
            proceed: tf.Tensor,
        ) -> tf.Tensor:
            scalars = fused.Scalars(rate, decay, step, 1.0, proceed)
            packed = scalars.packed(fused.wide_dtype(variable))
            return self._rule(variable, grad, slots, packed, treatment.adapt)

        if not tf.compat.v1.executing_eagerly_outside_functions():
            # A session's graph does not order side effects by itself; a
            # function does. (And a compiled kernel that is placed directly in
            # the branch of a condition does not run.)
            update = tf.function(update, autograph=False)
        return update(grad, step, rate, proceed)

    def checkpoint_names(
        self, var_list: Sequence[tf.Variable] | None = None
    ) -> dict[str, tf.Variable]:
        """Variables and their moments, as {name in a checkpoint: variable}.

        For `tf.compat.v1.train.Saver(var_list=...)` and `init_from_checkpoint`.
        The names of LAMB's moments are those of the published BERT and ALBERT
        checkpoints with optimizer state, `<variable>/adam_m` and
        `<variable>/adam_v`. The counters of this class are not among them.

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

    def _rule(
        self,
        variable: tf.Variable,
        grad: tf.Tensor,
        slots: Sequence[tf.Variable],
        scalars: tf.Tensor,
        adapt: bool,
    ) -> tf.Tensor:
        """Updates the variable and its slots; returns the trust ratio."""
        raise NotImplementedError


def _check_resource(variable: tf.Variable) -> None:
    handle = getattr(variable, "handle", None)
    if handle is None and not hasattr(variable, "values"):
        raise ValueError(
            f"variable {variable.name!r} is of the old reference kind; make "
            "it a resource variable: tf.compat.v1.enable_resource_variables() "
            "before the model, or use_resource=True."
        )


def _first(distribution: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    """The first device's part of a value."""
    value = distribution.experimental_local_results(value)[0]
    return tf.convert_to_tensor(value)


def _add(variable: tf.Variable, amount: tf.Tensor) -> tf.Tensor:
    return variable.assign_add(tf.cast(amount, variable.dtype))


def _after(updates: Sequence[Any]) -> ContextManager[Any]:
    """Control dependencies on all that `extended.update` returned."""
    if tf.executing_eagerly():
        return tf.control_dependencies([])
    flat = [u for u in tf.nest.flatten(updates) if u is not None]
    return tf.control_dependencies(flat)
