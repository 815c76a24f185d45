"""LAMB and LARS as `tf.compat.v1.train.Optimizer`, for Estimator and its like.

They work in graph mode (`Session`, `MonitoredTrainingSession`, an Estimator's
`model_fn`), in `tf.function`, and inside `CrossShardOptimizer` or a wrapper
that scales the loss. Nothing here imports Keras.

The arguments are those of `tf_lamb.LAMB` and `tf_lamb.LARS` up to
`jit_compile` (`form`, `cautious`, `clip_by_unit` too), in the same order, and
`use_locking`, for the base class. Keras' own are not among them: clip gradients
by `tf.clip_by_global_norm` before they are applied. `learning_rate` may be a
tensor too, and a function of no arguments is called when the update is made, as
is `weight_decay`. Exclusions are resolved, and hyperparameters fixed, by the
first `apply_gradients`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Hashable, Iterable, Sequence

import tensorflow as tf

from tf_lamb import exclusion, optimizers, tf_contexts, tf_ops, tf_update
from tf_lamb.bundles import Row
from tf_lamb.known_variables import check_gradients
from tf_lamb.layer_adaptive import LayerAdaptive
from tf_lamb.v1_variables import after, check_resource, constrain, identity

__all__ = ["LAMBOptimizer", "LARSOptimizer"]


class _Replicas(tf_update.Devices):
    """Calls kernels across replicas, in a graph too; keeps the operations.

    Args:
      distribution: the strategy, outside whose replicas it is called.
      jit_compile: whether the update is compiled.
    """

    def __init__(
        self, distribution: tf.distribute.Strategy, jit_compile: bool
    ) -> None:
        super().__init__(distribution, jit_compile)
        self.operations: list[Any] = []

    def squared_norms(
        self, grads: Sequence[tf.Tensor], dtype: str
    ) -> tf.Tensor:
        """Sums of squares, `[len(grads)]`, of the first device's gradients."""
        grads = [_first(self._strategy, g) for g in grads]
        return super().squared_norms(grads, dtype)

    def _merged(self, function: Any, *columns: Any) -> Any:
        return function(self._strategy, *columns)

    def _update(
        self,
        distribution: tf.distribute.Strategy,
        function: Any,
        variable: tf.Variable,
        *rest: Any,
    ) -> tf.Tensor:
        def in_graph(variable: tf.Variable, *rest: Any) -> tf.Tensor:
            place, rows, grads, scalars = rest
            # A session's graph does not order side effects by itself; a
            # function does. (And a compiled kernel that is placed directly in
            # the branch of a condition does not run.)
            call = tf.function(
                lambda *tensors: function(variable, place, rows, *tensors),
                autograph=False,
            )
            return call(grads, scalars)

        eager = tf.compat.v1.executing_eagerly_outside_functions()
        results = distribution.extended.update(
            variable, function if eager else in_graph, args=rest, group=False
        )
        self.operations.append(results)
        return tf.nest.flatten(results)[0]


class _Optimizer(LayerAdaptive, tf.compat.v1.train.Optimizer):
    """The slots and their names, the update in every replica, the counts."""

    _ops = tf_ops
    # A graph has the weight decay as a constant.
    _FIXED = LayerAdaptive._FIXED | {"weight_decay"}
    # slot name -> last part of the slot variable's name; None: the optimizer's
    _SLOT_NAMES: ClassVar[dict[str, str | None]] = {}

    built = False

    def _init_base(
        self,
        learning_rate: Any,
        name: str,
        use_locking: bool = False,
        **kwargs: Any,
    ) -> None:
        clips = kwargs.pop("global_clipnorm", None) is not None
        if clips or kwargs:
            more = ", ".join(["global_clipnorm"] * clips + list(kwargs))
            raise ValueError(
                f"{name}: expected the arguments up to jit_compile, name and "
                f"use_locking, got {more} too; clip gradients before "
                "apply_gradients; if a form clips, say global_clipnorm=None."
            )
        base: Any = super(LayerAdaptive, self)
        use_locking = self._checks["use_locking"]("use_locking", use_locking)
        base.__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._counters: Sequence[tf.Variable] = []
        # By `identity` of the variable, since names may be equal.
        self._known: dict[Hashable, exclusion.Treatment] = {}
        self._trust_ratios: dict[Hashable, tf.Tensor] = {}

    def _checked_rate(self, learning_rate: Any) -> Any:
        tensor = tf.is_tensor(learning_rate)  # it may change
        return learning_rate if tensor else super()._checked_rate(learning_rate)

    @property
    def name(self) -> str:
        """Name of the optimizer."""
        return str(self.get_name())

    @property
    def trust_ratios(self) -> dict[str, tf.Tensor]:
        """{variable name: trust ratio} of the last apply, of adapted variables.

        They are outputs of the update in its graph: fetched in a run without
        the train operation, they make an update. For LARS they are the local
        rates. After a skipped step they have no meaning. Repeated names, which
        eager execution allows, are numbered (`exclusion.unique_keys`).
        """
        keys = dict(zip(self._known, self.treatments))
        return {keys[x]: ratio for x, ratio in self._trust_ratios.items()}

    @property
    def updates(self) -> tf.Variable | None:
        """How many updates were made, int32; None before the first apply."""
        return self._counters[0] if self._counters else None

    @property
    def skipped_steps(self) -> tf.Variable | None:
        """How many were skipped for a non-finite gradient, int32."""
        return self._counters[1] if self._counters else None

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Resolves the exclusions when a variable is new.

        `apply_gradients` calls it; `describe` can be called after it.

        Args:
          variables: all that the optimizer will update.

        Raises:
          ValueError: a regex matches none of them.
        """
        if all(identity(v) in self._known for v in variables):
            return
        for treatment, variable in zip(self._resolve(variables), variables):
            if identity(variable) not in self._known:
                self._known[identity(variable)] = treatment
                self._shapes = (*self._shapes, tuple(variable.shape))
        self._treatments = tuple(self._known.values())
        self.built = True

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
        tf_contexts.require_replica(tf.distribute.get_strategy(), self.name)
        pairs = list(grads_and_vars)
        variables = [v for _, v in pairs]
        for variable in variables:
            check_resource(variable)
        pairs = [(g, v) for g, v in pairs if g is not None]
        if not pairs:
            names = [v.name for v in variables]
            raise ValueError(
                f"No gradients provided for any variable: {names}."
            )
        self._check_dtypes([v for _, v in pairs])
        grads = [tf.convert_to_tensor(g) for g, _ in pairs]
        of_grads = [v for _, v in pairs]
        check_gradients(self, grads, of_grads)
        grads = tf_update.Devices.shaped(grads, of_grads)
        self.build(variables)
        return tf.distribute.get_replica_context().merge_call(
            self._across_replicas,
            args=(grads, of_grads, global_step),
            kwargs={"name": name},
        )

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        self._make_slots(var_list)

    def _make_slots(
        self, variables: Sequence[tf.Variable]
    ) -> list[list[tf.Variable]]:
        """The moments of each variable, made if they are not there yet."""
        rows = []
        for variable in variables:
            dtype = self._slot_dtype(variable.dtype.base_dtype.name)
            row = [
                self._get_or_make_slot_with_initializer(
                    variable,
                    tf.compat.v1.zeros_initializer(),
                    variable.shape,
                    tf.as_dtype(dtype),
                    slot,
                    suffix or self._name,
                )
                for slot, suffix in self._SLOT_NAMES.items()
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
        treatments = [self._known[identity(v)] for v in variables]
        wide = {tf_update.wide_dtype(v) for v in variables}
        self._wide_dtype = "float64" if tf.float64 in wide else "float32"

        def add(variable: tf.Variable, amount: Any) -> Any:
            return extended.update(variable, _add, args=(amount,), group=False)

        with tf.name_scope(name or self._name):
            grads = extended.batch_reduce_to(
                tf.distribute.ReduceOp.SUM, list(zip(grads, variables))
            )
            replicas = _Replicas(distribution, self.jit_compile)
            update = self._update(
                replicas,
                list(map(Row, variables, slots, treatments)),
                _first(distribution, self._counters[0]),
                self._call_if_callable(self._learning_rate),
            )
            proceed, ratios = update(grads)
            self._trust_ratios = {
                identity(variable): ratio
                for variable, treatment, ratio in zip(
                    variables, treatments, ratios
                )
                if treatment.adapt
            }
            fixed = map(self._is_frozen, treatments)
            with after(replicas.operations):
                replicas.operations += constrain(distribution, variables, fixed)
            with after(replicas.operations):
                done = tf.cast(proceed, tf.int32)
                last = list(map(add, self._counters, (done, 1 - done)))
            if global_step is not None:
                with after(last):
                    last = [add(global_step, 1)]
            return self._train_op(last)

    def _train_op(self, updates: Sequence[Any]) -> tf.Operation | None:
        """The operation that runs all updates, in the collection TRAIN_OP."""
        if tf.executing_eagerly():
            return None
        with after(updates):
            operation = tf.no_op(name="train")
        if not tf.inside_function():
            collection = tf.compat.v1.get_collection_ref(
                tf.compat.v1.GraphKeys.TRAIN_OP
            )
            if operation not in collection:
                collection.append(operation)
        return operation

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

        Raises:
          ValueError: two of them have one name, which eager execution allows.
        """
        if var_list is None:
            var_list = tf.compat.v1.trainable_variables()
        found: dict[str, tf.Variable] = {}
        for variable in var_list:
            name = exclusion.normalize_path(variable.name)
            if found.get(name, variable) is not variable:
                raise ValueError(
                    f"checkpoint_names: the name {name!r} is that of two "
                    "variables; expected different ones; leave one out of "
                    "var_list, or give it another name."
                )
            found[name] = variable
            for slot, suffix in self._SLOT_NAMES.items():
                moment = self.get_slot(variable, slot)
                if moment is not None:
                    found[f"{name}/{suffix or self._name}"] = moment
        return found


class LAMBOptimizer(optimizers.LAMB, _Optimizer):
    r"""LAMB, Algorithm 2: `tf_lamb.rules.lamb` has the equations.

    The count `t` of the bias correction is the optimizer's own count of updates
    that were made; `global_step` is incremented but not read.

    With `form="albert"` it is the LAMB of ALBERT's code, and with
    `exclude_from_layer_adaptation=[""]` (every name) too the AdamW of BERT's.
    Moments are called as there, so that such a run can be resumed.

    The arguments are those of `tf_lamb.LAMB` up to `jit_compile`, in its order,
    and `use_locking`.

    Raises:
      ValueError: a hyperparameter outside its range, an argument of Keras, or a
        regex that matches no variable of the first `apply_gradients`.

    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2; google-research/albert
      `lamb_optimizer.py`; google-research/bert `optimization.py`.
    """

    _SLOT_NAMES: ClassVar[dict[str, str | None]] = {
        "m": "adam_m",
        "v": "adam_v",
    }


class LARSOptimizer(optimizers.LARS, _Optimizer):
    r"""LARS, in any of the forms in use: `tf_lamb.rules.lars` lists them.

    The arguments are those of `tf_lamb.LARS` up to `jit_compile`, in its order,
    and `use_locking`. Model Garden's default is `form="optax"` here.

    Raises:
      ValueError: a hyperparameter outside its range, an argument of Keras, or a
        regex that matches no variable of the first `apply_gradients`.

    References:
      You, Gitman, Ginsburg 2017 (arXiv:1708.03888), Algorithm 1.
    """

    _SLOT_NAMES: ClassVar[dict[str, str | None]] = {"momentum": None}


def _first(distribution: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    """The first device's part of a value."""
    value = distribution.experimental_local_results(value)[0]
    return tf.convert_to_tensor(value)


def _add(variable: tf.Variable, amount: tf.Tensor) -> tf.Tensor:
    return variable.assign_add(tf.cast(amount, variable.dtype))
