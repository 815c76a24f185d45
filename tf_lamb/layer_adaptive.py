"""What Keras 3's LAMB and LARS share: the road from gradients to the rule.

Which gradients, how they are summed over replicas, accumulated, clipped and
skipped, what is read and kept, what a config holds. The road is the same on
every backend; where TensorFlow differs (distribution strategies, compiled
kernels) it goes through `fused.py`.
"""

from typing import Dict, Optional, Sequence, Tuple

import keras
from keras import ops

from tf_lamb import exclusion, rules
from tf_lamb import hyperparameters as check

BACKEND = keras.config.backend()
if BACKEND == "tensorflow":
    from tf_lamb import fused


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


class LayerAdaptive(keras.optimizers.Optimizer):
    """What LAMB and LARS share: everything but the rule."""

    _SLOTS: Tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate,
        *,
        weight_decay,
        exclude_from_weight_decay,
        exclude_from_layer_adaptation,
        norm,
        phi_bounds,
        skip_nonfinite,
        jit_compile,
        **kwargs,
    ):
        if isinstance(learning_rate, (int, float)):
            learning_rate = check.non_negative("learning_rate", learning_rate)
        for name in ("clipnorm", "clipvalue", "global_clipnorm"):
            if kwargs.get(name) is not None:
                kwargs[name] = check.positive(name, kwargs[name])
        if kwargs.get("gradient_accumulation_steps") == 1:
            kwargs["gradient_accumulation_steps"] = None
        super().__init__(learning_rate, weight_decay=None, **kwargs)
        self.weight_decay = check.non_negative(
            "weight_decay", 0.0 if weight_decay is None else weight_decay
        )
        self.norm = check.one_of("norm", norm, rules.NORMS)
        self.phi_bounds = check.bounds("phi_bounds", phi_bounds)
        self.skip_nonfinite = bool(skip_nonfinite)
        self.jit_compile = bool(jit_compile)
        # `exclude_from_weight_decay` is a method of the base class.
        self._no_decay = exclusion.check_patterns(
            "exclude_from_weight_decay", exclude_from_weight_decay
        )
        self._no_adapt = exclusion.check_patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )
        self._no_decay_keys = frozenset()

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Excludes more variables from weight decay, before `build`.

        Args:
          var_list: variables to exclude.
          var_names: regexes, added to those of the constructor.
        """
        if self.built:
            raise ValueError(
                "exclude_from_weight_decay: the optimizer is built already; "
                "call it before training, or pass the constructor argument."
            )
        self._no_decay_keys |= {self._var_key(v) for v in var_list or ()}
        if var_names:
            self._no_decay = (self._no_decay or ()) + exclusion.check_patterns(
                "exclude_from_weight_decay", var_names
            )

    def build(self, variables):
        """Resolves the exclusions and makes the slots."""
        if self.built:
            return
        variables = list(variables)
        paths = [getattr(v, "path", v.name) for v in variables]
        treatments = exclusion.resolve(paths, self._no_decay, self._no_adapt)
        super().build(variables)
        self._paths = tuple(map(exclusion.normalize_path, paths))
        self._treatments = tuple(
            treatment._replace(decay=False)
            if self._var_key(v) in self._no_decay_keys
            else treatment
            for v, treatment in zip(variables, treatments)
        )
        self._skipped_steps = self.add_variable(
            (), "zeros", "int32", "only_first_replica", name="skipped_steps"
        )
        self._trust_ratios = self.add_variable(
            (len(variables),),
            "ones",
            "float32",
            "only_first_replica",
            name="trust_ratio",
        )
        self._slots = [
            [self._add_slot(v, name) for v in variables] for name in self._SLOTS
        ]

    def _add_slot(self, variable, name):
        """A moment; float32 if the variable is narrower than that."""
        if self._overwrite_variable_with_gradient(variable):
            return None
        if rules.dtype_name(variable) in ("float32", "float64"):
            return self.add_variable_from_reference(variable, name)
        path = getattr(variable, "path", variable.name)
        return self.add_variable(
            variable.shape,
            "zeros",
            "float32",
            layout=getattr(variable, "_layout", None),
            name=f"{path.replace('/', '_').replace(':', '_')}_{name}",
        )

    @property
    def trust_ratios(self) -> Dict[str, float]:
        """{variable path: trust ratio of its last update}; 1 if not adapted."""
        if not self.built:
            return {}
        values = ops.convert_to_numpy(self._trust_ratios)
        return dict(zip(self._paths, map(float, values)))

    @property
    def skipped_steps(self) -> int:
        """How many updates were skipped for a non-finite gradient."""
        if not self.built:
            return 0
        return int(ops.convert_to_numpy(self._skipped_steps))

    @property
    def treatments(self) -> Dict[str, exclusion.Treatment]:
        """{variable path: Treatment(decay, adapt)}, once built."""
        return dict(zip(self._paths, self._treatments)) if self.built else {}

    def describe(self) -> str:
        """A table of all variables: path, shape, weight decay, adaptation."""
        if not self.built:
            raise ValueError(
                "describe: the optimizer knows no variables yet; call "
                "optimizer.build(model.trainable_variables) first."
            )
        shapes = [tuple(v.shape) for v in self._trainable_variables]
        return exclusion.describe(self._paths, shapes, self._treatments)

    def _backend_apply_gradients(self, grads, trainable_variables):
        """Accumulates, or clips and applies; replaces the base class' own.

        The stock version clips before the all-reduce, decays outside the trust
        ratio and averages (EMA) on accumulating steps too.
        """
        grads = [self._dense(g) for g in grads]
        k = self.gradient_accumulation_steps
        if not k:
            self._apply_update(grads, trainable_variables)
            return
        indices = [self._get_variable_index(v) for v in trainable_variables]
        sums = [self._accumulated_gradients[i] for i in indices]

        def update(*grads):
            means = [(total + g) / k for total, g in zip(sums, grads)]
            self._apply_update(means, trainable_variables)

        is_update_step = (self._iterations + 1) % k == 0
        if BACKEND == "tensorflow":
            fused.accumulate_or_update(
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

    def _dense(self, grad):
        return fused.dense(grad) if BACKEND == "tensorflow" else grad

    def _apply_update(self, grads, variables):
        """One update by gradients that are averaged over micro-batches."""
        if BACKEND == "tensorflow":
            pairs = self._all_reduce_sum_gradients(list(zip(grads, variables)))
            grads = [g for g, _ in pairs]
        grads, scales, proceed = self._clip(grads)
        # t counts updates that were made; in float32, exact up to 2^24.
        step = ops.cast(self.iterations - self._skipped_steps + 1, "float32")
        rate = ops.cast(self.learning_rate, "float32")
        ratios = self._update_all(grads, variables, scales, proceed, step, rate)

        old = ops.convert_to_tensor(self._trust_ratios)
        self._trust_ratios.assign(
            ops.where(proceed, self._ratio_vector(old, variables, ratios), old)
        )
        self._skipped_steps.assign_add(1 - ops.cast(proceed, "int32"))
        if self.use_ema:
            self._update_averages(proceed, step)

    def _ratio_vector(self, old, variables, ratios):
        """The ratios in the order of all variables, old ones in the gaps."""
        ratios = [ops.cast(ratio, "float32") for ratio in ratios]
        indices = [self._get_variable_index(v) for v in variables]
        if indices == list(range(len(self._paths))):
            return ops.stack(ratios)
        updated = dict(zip(indices, ratios))
        return ops.stack(
            [updated.get(i, old[i]) for i in range(len(self._paths))]
        )

    def _clip(self, grads):
        """Gradients, a factor for each, and whether to update at all."""
        one = ops.ones((), "float32")
        proceed = ops.convert_to_tensor(True)
        if self.skip_nonfinite or self.clipnorm or self.global_clipnorm:
            squares = self._squared_norms(grads)
            total = ops.sum(squares)
        if self.skip_nonfinite:
            proceed = ops.isfinite(total)
        scales = [one] * len(grads)
        if self.clipnorm:
            limit = self.clipnorm
            factors = limit / ops.maximum(ops.sqrt(squares), limit)
            scales = ops.unstack(factors, len(grads))
        elif self.global_clipnorm:
            limit = self.global_clipnorm
            scales = [limit / ops.maximum(ops.sqrt(total), limit)] * len(grads)
        elif self.clipvalue:
            limit = self.clipvalue
            grads = [ops.clip(g, -limit, limit) for g in grads]
        return grads, scales, proceed

    def _squared_norms(self, grads):
        """Sums of squares, float32 `[len(grads)]`."""
        if BACKEND == "tensorflow":
            halves = [fused.half_squared_norm(g) for g in grads]
        else:
            halves = [
                0.5 * ops.sum(ops.square(rules.widen(ops, g))) for g in grads
            ]
        return 2 * ops.stack([ops.cast(half, "float32") for half in halves])

    def _update_all(self, grads, variables, scales, proceed, step, rate):
        """Applies the rule to each variable; returns the trust ratios."""
        indices = [self._get_variable_index(v) for v in variables]
        treatments = [self._treatments[i] for i in indices]
        slots = [[slot[i] for i in indices] for slot in self._slots]
        n = len(grads)
        if BACKEND == "tensorflow":
            decay, none = (
                ops.convert_to_tensor(value, "float32")
                for value in (self.weight_decay, 0.0)
            )
            decays = [decay if t.decay else none for t in treatments]
            slots = [[v.value for v in slot] for slot in slots]
            return fused.update_each(
                self._distribution_strategy,
                self._fused_update,
                list(map(_native, variables)),
                [treatments, *slots],
                [
                    grads,
                    scales,
                    decays,
                    [proceed] * n,
                    [step] * n,
                    [rate] * n,
                ],
            )
        return [
            self._update_one(
                variable, rules.widen(ops, grad) * scale, slot, treatment, *rest
            )
            for variable, grad, scale, slot, treatment, *rest in zip(
                variables,
                grads,
                scales,
                zip(*slots),
                treatments,
                [proceed] * n,
                [step] * n,
                [rate] * n,
            )
        ]

    def _update_one(
        self, variable, grad, slots, treatment, proceed, step, rate
    ):
        """The rule on one variable, on JAX and torch; returns the ratio."""
        old = [variable.value, *(slot.value for slot in slots)]
        if rules.dtype_name(variable) == "float64":
            step, rate = ops.cast(step, "float64"), ops.cast(rate, "float64")
        param, m, v, ratio = self._rule(*old, grad, treatment, step, rate)
        for target, before, after in zip(
            (variable, *slots), old, (param, m, v)
        ):
            target.assign(ops.where(proceed, after, before))
        return ratio

    def _fused_update(self, variable, treatment, *rest):
        """The compiled rule on one device's component of a variable."""
        *slots, grad, scale, decay, proceed, step, rate = rest
        scalars = fused.Scalars(rate, decay, step, scale, proceed)
        return self._fused_rule(variable, grad, *slots, scalars, treatment)

    def _update_averages(self, proceed, step):
        """EMA of the weights, after an update; then the periodic overwrite."""
        first = ops.equal(step, 1.0)
        momentum = ops.where(first, 0.0, self.ema_momentum)
        overwrite = ops.convert_to_tensor(False)
        if self.ema_overwrite_frequency:
            due = (self.iterations + 1) % self.ema_overwrite_frequency == 0
            overwrite = ops.logical_and(due, proceed)

        def average(variable, mean, momentum, proceed, overwrite):
            momentum = ops.cast(momentum, variable.dtype)
            value = ops.convert_to_tensor(variable)
            old = ops.convert_to_tensor(mean)
            moved = momentum * old + (1 - momentum) * value
            moved = ops.where(proceed, moved, old)
            mean.assign(moved)
            if self.ema_overwrite_frequency:
                variable.assign(ops.where(overwrite, moved, value))
            return momentum

        pairs = [
            (variable, mean)
            for variable, mean in zip(
                self._trainable_variables, self._model_variables_moving_average
            )
            if mean is not None
        ]
        n = len(pairs)
        flags = [[momentum] * n, [proceed] * n, [overwrite] * n]
        if BACKEND == "tensorflow":
            fused.update_each(
                self._distribution_strategy,
                average,
                [_native(v) for v, _ in pairs],
                [[mean.value for _, mean in pairs]],
                flags,
            )
        else:
            for (variable, mean), *row in zip(pairs, *flags):
                average(variable, mean, *row)

    def get_config(self):
        config = super().get_config()
        config.update(
            exclude_from_weight_decay=_as_list(self._no_decay),
            exclude_from_layer_adaptation=_as_list(self._no_adapt),
            norm=self.norm,
            phi_bounds=self.phi_bounds and list(self.phi_bounds),
            skip_nonfinite=self.skip_nonfinite,
            jit_compile=self.jit_compile,
        )
        return config


def _as_list(patterns: Optional[Sequence[str]]):
    return None if patterns is None else list(patterns)


def _native(variable):
    """The framework's own variable; custom loops may pass it themselves."""
    is_keras = isinstance(variable, keras.Variable)
    return variable.value if is_keras else variable
