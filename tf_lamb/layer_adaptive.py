"""What LAMB and LARS share in every Keras: the road from gradients to the rule.

Which gradients, how they are clipped and skipped, what is read and kept, what a
config holds. Here is no framework: array functions are `_ops`, and what Keras 3
(`keras3.py`), tf_keras (`keras2.py`) and TensorFlow's strategies
(`replicated.py`) do differently is a method of theirs.
"""

from typing import Any, Dict, Optional, Sequence, Tuple

from tf_lamb import check, exclusion, rules


class LayerAdaptive:
    """What LAMB and LARS share: everything but the rule. Mixed into a Keras.

    The Keras' side provides `built`, `learning_rate`, `iterations`, `_var_key`
    and the methods that raise NotImplementedError here.
    """

    _ops: Any = None
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
        moment_dtype,
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
        self.moment_dtype = check.one_of(
            "moment_dtype", moment_dtype, rules.MOMENT_DTYPES
        )
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
        self._shapes = tuple(tuple(v.shape) for v in variables)
        self._treatments = tuple(
            treatment._replace(decay=False)
            if self._var_key(v) in self._no_decay_keys
            else treatment
            for v, treatment in zip(variables, treatments)
        )
        self._skipped_steps = self._add_state("skipped_steps", (), "int32")
        self._trust_ratios = self._add_state(
            "trust_ratio", (len(variables),), "float32", "ones"
        )
        self._slots = [
            [self._add_slot(v, name) for v in variables] for name in self._SLOTS
        ]

    def _add_state(self, name, shape, dtype, initializer="zeros"):
        """A variable that is the same on every replica."""
        raise NotImplementedError

    def _add_slot(self, variable, name):
        """A moment, zeros of the variable's shape, `_slot_dtype`."""
        raise NotImplementedError

    def _slot_dtype(self, variable_dtype: str) -> str:
        """float64 for float64, else `moment_dtype`, by default float32."""
        if variable_dtype == "float64":
            return "float64"
        return self.moment_dtype or "float32"

    @property
    def trust_ratios(self) -> Dict[str, float]:
        """{variable path: trust ratio of its last update}; 1 if not adapted."""
        if not self.built:
            return {}
        values = self._ops.convert_to_numpy(self._trust_ratios)
        return dict(zip(self._paths, map(float, values)))

    @property
    def skipped_steps(self) -> int:
        """How many updates were skipped for a non-finite gradient."""
        if not self.built:
            return 0
        return int(self._ops.convert_to_numpy(self._skipped_steps))

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
        return exclusion.describe(self._paths, self._shapes, self._treatments)

    def _apply_update(self, grads, variables):
        """One update by gradients that are summed over everything."""
        ops = self._ops
        grads, scales, proceed = self._clip(grads)
        # t counts updates that were made; in float32, exact up to 2^24.
        step = ops.cast(self._updates_made() + 1, "float32")
        rate = ops.cast(self.learning_rate, "float32")
        ratios = self._update_all(grads, variables, scales, proceed, step, rate)

        old = ops.convert_to_tensor(self._trust_ratios)
        self._trust_ratios.assign(
            ops.where(proceed, self._ratio_vector(old, variables, ratios), old)
        )
        self._skipped_steps.assign_add(1 - ops.cast(proceed, "int32"))
        if self.use_ema:
            self._update_averages(proceed, step)
        return proceed

    def _updates_made(self):
        """Updates before this one, without those that were skipped."""
        raise NotImplementedError

    def _index(self, variable) -> int:
        """Position among the variables that the optimizer was built with."""
        raise NotImplementedError

    def _ratio_vector(self, old, variables, ratios):
        """The ratios in the order of all variables, old ones in the gaps."""
        ops = self._ops
        ratios = [ops.cast(ratio, "float32") for ratio in ratios]
        indices = [self._index(v) for v in variables]
        if indices == list(range(len(self._paths))):
            return ops.stack(ratios)
        updated = dict(zip(indices, ratios))
        return ops.stack(
            [updated.get(i, old[i]) for i in range(len(self._paths))]
        )

    def _clip(self, grads):
        """Gradients, a factor for each, and whether to update at all."""
        ops = self._ops
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
        ops = self._ops
        sums = [ops.sum(ops.square(rules.widen(ops, g))) for g in grads]
        return ops.stack([ops.cast(x, "float32") for x in sums])

    def _update_all(self, grads, variables, scales, proceed, step, rate):
        """Applies the rule to each variable; returns the trust ratios."""
        ratios = []
        for variable, grad, scale in zip(variables, grads, scales):
            i = self._index(variable)
            ratio = self._update_one(
                variable,
                rules.widen(self._ops, grad) * scale,
                [slot[i] for slot in self._slots],
                self._treatments[i],
                proceed,
                step,
                rate,
            )
            ratios.append(ratio)
        return ratios

    def _update_one(
        self, variable, grad, slots, treatment, proceed, step, rate
    ):
        """The rule on one variable; returns the ratio."""
        ops = self._ops
        old = [variable.value, *(slot.value for slot in slots)]
        if rules.dtype_name(variable) == "float64":
            step, rate = ops.cast(step, "float64"), ops.cast(rate, "float64")
        new = self._rule(*old, grad, treatment, proceed, step, rate)
        for target, value in zip((variable, *slots), new):
            target.assign(value)
        return new.trust_ratio

    def _update_averages(self, proceed, step):
        """EMA of the weights, after an update; then the periodic overwrite."""
        ops = self._ops
        first = ops.equal(step, 1.0)
        momentum = ops.where(first, 0.0, self.ema_momentum)
        overwrite = ops.convert_to_tensor(False)
        if self.ema_overwrite_frequency:
            due = (self._updates_due() + 1) % self.ema_overwrite_frequency == 0
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
                self._averaged_variables(), self._model_variables_moving_average
            )
            if mean is not None
        ]
        n = len(pairs)
        self._each(
            average, pairs, [[momentum] * n, [proceed] * n, [overwrite] * n]
        )

    def _updates_due(self):
        """Updates before this one, skipped ones among them."""
        raise NotImplementedError

    def _averaged_variables(self) -> Sequence:
        """All variables, in the order of the slots."""
        raise NotImplementedError

    def _each(self, update, rows, replica_columns):
        """`update(*row, *scalars)` for each row of variables."""
        for row, *scalars in zip(rows, *replica_columns):
            update(*row, *scalars)

    def get_config(self):
        config = super().get_config()
        config.update(
            weight_decay=self.weight_decay,
            exclude_from_weight_decay=_as_list(self._no_decay),
            exclude_from_layer_adaptation=_as_list(self._no_adapt),
            norm=self.norm,
            phi_bounds=self.phi_bounds and list(self.phi_bounds),
            skip_nonfinite=self.skip_nonfinite,
            moment_dtype=self.moment_dtype,
            jit_compile=self.jit_compile,
        )
        return config


def _as_list(patterns: Optional[Sequence[str]]):
    return None if patterns is None else list(patterns)
