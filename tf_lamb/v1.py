"""LAMB and LARS as `tf.compat.v1.train.Optimizer`, for Estimator and its like.

Graph mode (`Session`, `MonitoredTrainingSession`, an Estimator's `model_fn`),
`tf.function`, and inside `CrossShardOptimizer` or a loss-scaling wrapper, on
the compiled update of `fused.py`. Nothing here imports Keras.
"""

from typing import Callable, Dict, Optional, Sequence, Tuple, Union

import tensorflow as tf

from tf_lamb import exclusion, fused, rules
from tf_lamb import hyperparameters as check

__all__ = ["LAMBOptimizer", "LARSOptimizer"]

_Rate = Union[float, tf.Tensor, Callable]
_COMMON = """
      exclude_from_weight_decay: regexes of variables without weight decay,
        searched in the full name without `:0`; each has to match one of the
        variables of the first `apply_gradients`. None and `[]`: all decay.
      exclude_from_layer_adaptation: regexes of variables whose trust ratio is
        1. None: the same as `exclude_from_weight_decay`; `[]`: all are adapted.
      norm: "l2", "l1" or "linf".
      phi_bounds: bounds of phi, or None for `phi(z) = z`.
      skip_nonfinite: a step whose gradients' sum of squares is not finite in
        float32 changes nothing but `global_step`, and is counted.
      moment_dtype: None or "float32", or "bfloat16" (`tf_lamb.LAMB` has what
        that means; published checkpoints have float32).
      jit_compile: compile the update by XLA, one kernel a signature.
      use_locking: for the base class; updates are ordered anyway.
      name: name of the optimizer.

    Clipping is the caller's, by `tf.clip_by_global_norm`.

    Raises:
      ValueError: a hyperparameter outside its range, or a regex that matches no
        variable.
"""


class _LayerAdaptiveOptimizer(tf.compat.v1.train.Optimizer):
    """What the two share: everything but the rule."""

    # slot name -> name of the variable beside the model's variable
    _SLOTS: Dict[str, Optional[str]] = {}

    def __init__(
        self,
        learning_rate: _Rate,
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


class LAMBOptimizer(_LayerAdaptiveOptimizer):
    r"""LAMB, Algorithm 2: `tf_lamb.rules.lamb` has the equations.

    The count `t` of the bias correction is the optimizer's own, of updates that
    were made; `global_step` is only incremented.

    With `bias_correction=False` it is the LAMB of ALBERT's code; with
    `exclude_from_layer_adaptation=[""]` (every name) on top, the AdamW of
    BERT's. Moments are named as there, so that such a run can be continued.

    Args:
      learning_rate: >= 0, a tensor, or a function of no arguments.
      beta_1: decay of the first moment, in [0, 1).
      beta_2: decay of the second moment, in [0, 1).
      epsilon: > 0, added to the root of the second moment.
      weight_decay: `lambda` >= 0, inside the trust ratio.
      bias_correction: False drops it, as ALBERT's and BERT's code do.
      nesterov: None, "nadam" or "nadam_both" (`tf_lamb.rules.lamb`).
    {common}
    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2; google-research/albert
      `lamb_optimizer.py`; google-research/bert `optimization.py`.
    """

    _SLOTS = {"m": "adam_m", "v": "adam_v"}

    def __init__(
        self,
        learning_rate: _Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float = 0.0,
        exclude_from_weight_decay: Optional[Sequence[str]] = None,
        exclude_from_layer_adaptation: Optional[Sequence[str]] = None,
        name: str = "LAMBOptimizer",
        *,
        bias_correction: bool = True,
        nesterov: Optional[str] = None,
        norm: str = "l2",
        phi_bounds: Optional[Tuple[float, float]] = None,
        skip_nonfinite: bool = True,
        moment_dtype: Optional[str] = None,
        jit_compile: bool = True,
        use_locking: bool = False,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            norm=norm,
            phi_bounds=phi_bounds,
            skip_nonfinite=skip_nonfinite,
            moment_dtype=moment_dtype,
            jit_compile=jit_compile,
            use_locking=use_locking,
            name=name,
        )
        self._lamb = fused.LambOptions(
            check.decay_rate("beta_1", beta_1),
            check.decay_rate("beta_2", beta_2),
            check.positive("epsilon", epsilon),
            bool(bias_correction),
            check.one_of("nesterov", nesterov, rules.NESTEROV_FORMS),
            self._norm,
            self._phi_bounds,
        )

    def _rule(self, variable, grad, m, v, scalars, adapt):
        return fused.lamb(
            variable,
            grad,
            m,
            v,
            scalars,
            adapt=adapt,
            options=self._lamb,
            jit_compile=self._jit_compile,
        )


class LARSOptimizer(_LayerAdaptiveOptimizer):
    r"""LARS, in any of the forms in use: `tf_lamb.rules.lars` has them.

    Args:
      learning_rate: >= 0, a tensor, or a function of no arguments.
      momentum: `mu`, in [0, 1).
      weight_decay: `lambda` >= 0; leave L2 out of the loss then.
      trust_coefficient: `c` > 0.
      epsilon: >= 0, added to the denominator.
      form: one of `tf_lamb.rules.LARS_FORMS`.
      nesterov: Nesterov momentum; not defined for "you2020".
    {common}
    References:
      You, Gitman, Ginsburg 2017 (arXiv:1708.03888), Algorithm 1.
    """

    _SLOTS = {"momentum": None}

    def __init__(
        self,
        learning_rate: _Rate = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        exclude_from_weight_decay: Optional[Sequence[str]] = None,
        exclude_from_layer_adaptation: Optional[Sequence[str]] = None,
        name: str = "LARSOptimizer",
        *,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        form: str = "you2017",
        nesterov: bool = False,
        norm: str = "l2",
        phi_bounds: Optional[Tuple[float, float]] = None,
        skip_nonfinite: bool = True,
        moment_dtype: Optional[str] = None,
        jit_compile: bool = True,
        use_locking: bool = False,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            norm=norm,
            phi_bounds=phi_bounds,
            skip_nonfinite=skip_nonfinite,
            moment_dtype=moment_dtype,
            jit_compile=jit_compile,
            use_locking=use_locking,
            name=name,
        )
        if nesterov and form == "you2020":
            raise ValueError(
                "nesterov: not defined for form='you2020'; expected False, or "
                "another form."
            )
        self._lars = fused.LarsOptions(
            check.decay_rate("momentum", momentum),
            check.positive("trust_coefficient", trust_coefficient),
            check.non_negative("epsilon", epsilon),
            check.one_of("form", form, rules.LARS_FORMS),
            bool(nesterov),
            self._norm,
            self._phi_bounds,
        )

    def _rule(self, variable, grad, m, scalars, adapt):
        return fused.lars(
            variable,
            grad,
            m,
            scalars,
            adapt=adapt,
            options=self._lars,
            jit_compile=self._jit_compile,
        )


for _optimizer in (LAMBOptimizer, LARSOptimizer):
    if _optimizer.__doc__:  # python -OO strips docstrings
        _optimizer.__doc__ = _optimizer.__doc__.replace(
            "    {common}", _COMMON.strip("\n")
        )
