"""One update of LAMB or LARS in any Keras: everything but the rule itself.

It clips the gradients, decides whether the step is skipped, applies the rule to
each variable, keeps the trust ratios and averages the weights. No framework is
imported: array functions are `_ops`. What differs in Keras 3 (`keras3.py`), in
tf_keras (`keras2.py`) and under TensorFlow's strategies (`replicated.py`) is a
method that they override.
"""

from __future__ import annotations

import warnings
from typing import Any, Callable, ClassVar, Hashable, Sequence

from tf_lamb import arithmetic, check, exclusion, rules
from tf_lamb.arithmetic import Array

# A variable of any Keras, or TensorFlow's own.
Variable = Any

# A power of two: the squares of any float32, times it, add up to a float32.
_SMALL = 2.0**-96
_SMALLEST_NORMAL = 2.0**-126


class LayerAdaptive:
    """LAMB and LARS but for their rule; mixed into a Keras optimizer.

    That optimizer provides the attributes that are declared here without a
    value, and the methods that raise NotImplementedError here.
    """

    # Of Keras' own optimizer.
    name: str
    built: Any
    learning_rate: Any
    clipnorm: float | None
    global_clipnorm: float | None
    clipvalue: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    gradient_accumulation_steps: int | None
    _model_variables_moving_average: Sequence[Variable]
    _var_key: Callable[[Variable], Hashable]
    _weight_decay: float

    # Made by `build`: one row for each of `_SLOTS`.
    _slots: Sequence[Sequence[Variable]]

    # Of LAMB and LARS: the new arrays and the trust ratio, of the old arrays.
    _rule: Callable[..., rules.Step]

    _ops: Any = None
    _SLOTS: ClassVar[tuple[str, ...]] = ()
    # Whether `_ops.cond` runs one branch only. If not, both cost less in one
    # loop than a condition.
    _HAS_BRANCHES: ClassVar[bool] = True
    # A compiled step holds them, so that another value would do nothing.
    _FIXED: ClassVar[frozenset[str]] = frozenset(
        "beta_1 beta_2 epsilon momentum trust_coefficient form nesterov "
        "bias_correction norm phi_bounds skip_nonfinite moment_dtype clipnorm "
        "clipvalue global_clipnorm use_ema ema_momentum ema_overwrite_frequency"
        " loss_scale_factor gradient_accumulation_steps".split()
    )

    def __init__(
        self,
        learning_rate: float | Callable[..., Any],
        *,
        weight_decay: float | None,
        exclude_from_weight_decay: Sequence[str] | None,
        exclude_from_layer_adaptation: Sequence[str] | None,
        norm: str,
        phi_bounds: Sequence[float] | None,
        skip_nonfinite: bool,
        moment_dtype: str | None,
        jit_compile: bool,
        **kwargs: Any,
    ) -> None:
        if isinstance(learning_rate, (int, float)):
            learning_rate = check.non_negative("learning_rate", learning_rate)
        for name in ("clipnorm", "clipvalue", "global_clipnorm"):
            if kwargs.get(name) is not None:
                kwargs[name] = check.positive(name, kwargs[name])
        if kwargs.get("gradient_accumulation_steps") == 1:
            kwargs["gradient_accumulation_steps"] = None
        # Of the Keras optimizer: its own decay is outside the trust ratio.
        base: Any = super()
        base.__init__(learning_rate, weight_decay=None, **kwargs)
        self.weight_decay = weight_decay
        self.norm = check.one_of("norm", norm, arithmetic.NORMS)
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
        self._no_decay_keys: frozenset[Hashable] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._FIXED and getattr(self, "built", False):
            old = getattr(self, name)
            if value != old:
                raise AttributeError(
                    f"{name}: it stays {old!r} once the optimizer is built, "
                    f"got {value!r}; make a new optimizer with it (from_config "
                    "of a changed get_config) and compile the model again."
                )
        super().__setattr__(name, value)

    @property
    def weight_decay(self) -> float:
        """Weight decay `lambda`; a new value counts from the next step on.

        On JAX it cannot be set once the optimizer is built.
        """
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float | None) -> None:
        self._weight_decay = check.non_negative(
            "weight_decay", 0.0 if value is None else value
        )
        if getattr(self, "built", False):
            self._set_decay()

    def _set_decay(self) -> None:
        """Hands a new weight decay to compiled steps, where there are some."""

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Excludes more variables from weight decay, before `build`.

        Args:
          var_list: variables to exclude.
          var_names: regexes, added to those of the constructor.

        Raises:
          ValueError: the optimizer is built already, or a regex does not
            compile.
        """
        if self.built:
            raise ValueError(
                "exclude_from_weight_decay: the optimizer is built already; "
                "call it before training, or pass the constructor argument."
            )
        self._no_decay_keys |= {self._var_key(v) for v in var_list or ()}
        if var_names:
            more = exclusion.check_patterns(
                "exclude_from_weight_decay", var_names
            )
            self._no_decay = (self._no_decay or ()) + (more or ())

    def build(self, variables: Sequence[Variable]) -> None:
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
        paths = [getattr(v, "path", v.name) for v in variables]
        dtypes = [arithmetic.dtype_name(v) for v in variables]
        check.floating_variables(
            self.name, list(map(exclusion.normalize_path, paths)), dtypes
        )
        treatments = exclusion.resolve(paths, self._no_decay, self._no_adapt)
        base: Any = super()
        base.build(variables)
        self._wide_dtype = "float64" if "float64" in dtypes else "float32"
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
        self._set_decay()

    def _add_state(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        initializer: Any = "zeros",
    ) -> Variable:
        """A variable that is the same on every replica."""
        raise NotImplementedError

    def _add_slot(self, variable: Variable, name: str) -> Variable:
        """A moment, zeros of the variable's shape, `_slot_dtype`."""
        raise NotImplementedError

    def _slot_dtype(self, variable_dtype: str) -> str:
        """float64 for float64, else `moment_dtype`, by default float32."""
        wide = arithmetic.wide_dtype(variable_dtype)
        return wide if wide == "float64" else self.moment_dtype or wide

    @property
    def trust_ratios(self) -> dict[str, float]:
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
    def treatments(self) -> dict[str, exclusion.Treatment]:
        """{variable path: Treatment(decay, adapt)}, once built."""
        return dict(zip(self._paths, self._treatments)) if self.built else {}

    def describe(self) -> str:
        """A table of all variables: path, shape, weight decay, adaptation.

        Raises:
          ValueError: the optimizer is not built.
        """
        if not self.built:
            raise ValueError(
                "describe: the optimizer knows no variables yet; call "
                "optimizer.build(model.trainable_variables) first."
            )
        return exclusion.describe(self._paths, self._shapes, self._treatments)

    def _apply_update(
        self, grads: Sequence[Array], variables: Sequence[Variable]
    ) -> Array:
        """One update, of dense gradients that are summed over replicas.

        Returns a bool scalar: False if the step was skipped.
        """
        ops = self._ops
        grads, scales, proceed = self._clip(grads)
        # t counts updates that were made; in float32, exact up to 2^24. Below
        # 1, where the count was set by hand, the bias correction has no value.
        step = ops.maximum(ops.cast(self._updates_made() + 1, "float32"), 1.0)
        # Of what Keras gives: a float32 tensor, or a function's Python number.
        rate = _as_dtype(ops, self.learning_rate, self._wide_dtype)
        ratios = self._update_all(grads, variables, scales, proceed, step, rate)

        old = ops.convert_to_tensor(self._trust_ratios)
        self._trust_ratios.assign(
            ops.where(proceed, self._ratio_vector(old, variables, ratios), old)
        )
        self._skipped_steps.assign(
            self._skipped_before() + 1 - ops.cast(proceed, "int32")
        )
        if self.use_ema:
            self._update_averages(proceed, step)
        return proceed

    def _skipped_before(self) -> Array:
        """Skipped steps before this one, int32."""
        return self._ops.convert_to_tensor(self._skipped_steps)

    def _updates_made(self) -> Array:
        """Updates before this one, without those that were skipped."""
        raise NotImplementedError

    def _index(self, variable: Variable) -> int:
        """Position among the variables that the optimizer was built with."""
        raise NotImplementedError

    def _ratio_vector(
        self,
        old: Array,
        variables: Sequence[Variable],
        ratios: Sequence[Array],
    ) -> Array:
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

    def _clip(
        self, grads: Sequence[Array]
    ) -> tuple[Sequence[Array], Sequence[Array], Array]:
        r"""How gradients are clipped, and whether the step is made.

        The factor of gradient `i` is

        $$s_i = \frac{c}{\max(\|g_i\|, c)}\ \text{(clipnorm)}\quad
          \text{or}\quad s = \frac{c}{\max(\sqrt{\sum_j \|g_j\|^2}, c)}\
          \text{(global\_clipnorm)}$$

        and 1 for `clipvalue`, which changes the gradients themselves.

        Returns:
          The gradients; their factors, scalars, float32 (float64 if a variable
          of the optimizer is); a bool scalar, False if
          the step has to be skipped: without clipping because the sum of
          squares is not finite, else because a gradient is not, or its factor
          is below float32's normal numbers.
        """
        ops = self._ops
        scales = [ops.ones((), "float32")] * len(grads)
        by_norm = self.clipnorm or self.global_clipnorm
        if not (self.skip_nonfinite or by_norm):
            return self._clip_values(grads), scales, ops.convert_to_tensor(True)
        squares = self._squared_norms(grads)
        finite = ops.isfinite(ops.sum(squares))
        if by_norm or self.clipvalue:
            small = self._small_squares(grads, squares, finite)
            finite = ops.isfinite(ops.sum(small))
        if by_norm:
            if not self.clipnorm:
                squares, small = ops.sum(squares), ops.sum(small)
            factors = _clip_factors(ops, by_norm, squares, small)
            in_range = ops.all(factors >= _SMALLEST_NORMAL)
            finite = ops.logical_and(finite, in_range)
            scales = (
                ops.unstack(factors, len(grads))
                if self.clipnorm
                else [factors] * len(grads)
            )
        proceed = finite if self.skip_nonfinite else ops.convert_to_tensor(True)
        return self._clip_values(grads), scales, proceed

    def _clip_values(self, grads: Sequence[Array]) -> Sequence[Array]:
        if self.clipnorm or self.global_clipnorm or not self.clipvalue:
            return grads
        limit = float(self.clipvalue)
        return [self._clip_value(g, limit) for g in grads]

    def _clip_value(self, grad: Array, limit: float) -> Array:
        # As tensors: for torch, Keras makes a Python number a float32.
        dtype = arithmetic.dtype_name(grad)
        lower = self._ops.convert_to_tensor(-limit, dtype)
        upper = self._ops.convert_to_tensor(limit, dtype)
        return self._ops.clip(grad, lower, upper)

    def _small_squares(
        self, grads: Sequence[Array], squares: Array, finite: Array
    ) -> Array:
        """Squared norms of the gradients times `_SMALL`, `[len(grads)]`.

        Zeros where the plain ones (`squares`) will do: `finite` is True.
        """
        ops = self._ops

        # Always `_SMALL`, but XLA must not know it: it would square a constant
        # by itself, and that square is 0 in float32.
        small = ops.where(self._updates_made() < -1, 1.0, _SMALL)

        def scaled() -> Array:
            wide = (arithmetic.widen(ops, g) for g in grads)
            return self._squared_norms(
                [g * ops.cast(small, arithmetic.dtype_name(g)) for g in wide]
            )

        if not self._HAS_BRANCHES:
            return scaled()
        return ops.cond(finite, lambda: ops.zeros_like(squares), scaled)

    def _squared_norms(self, grads: Sequence[Array]) -> Array:
        """Sums of squares, `[len(grads)]`.

        They are float32, or float64 if a variable of the optimizer is.
        """
        ops = self._ops
        sums = [ops.sum(ops.square(arithmetic.widen(ops, g))) for g in grads]
        return ops.stack([ops.cast(x, self._wide_dtype) for x in sums])

    def _update_all(
        self,
        grads: Sequence[Array],
        variables: Sequence[Variable],
        scales: Sequence[Array],
        proceed: Array,
        step: Array,
        rate: Array,
    ) -> Sequence[Array]:
        """Applies the rule to each variable; returns the trust ratios.

        All but `grads` and `variables` are scalars: `scales`, one a gradient,
        multiply it; `step` is `t`; `proceed` is False for a skipped step.
        """
        ratios = []
        for variable, grad, scale in zip(variables, grads, scales):
            i = self._index(variable)
            grad = arithmetic.widen(self._ops, grad)
            scale = self._ops.cast(scale, arithmetic.dtype_name(grad))
            ratio = self._update_one(
                variable,
                grad * scale,
                [slot[i] for slot in self._slots],
                self._treatments[i],
                proceed,
                step,
                rate,
            )
            ratios.append(ratio)
        return ratios

    def _update_one(
        self,
        variable: Variable,
        grad: Array,
        slots: Sequence[Variable],
        treatment: exclusion.Treatment,
        proceed: Array,
        step: Array,
        rate: Array,
    ) -> Array:
        """Applies the rule to one variable; returns its trust ratio."""
        ops = self._ops
        old = [variable.value, *(slot.value for slot in slots)]
        wide = arithmetic.wide_dtype(arithmetic.dtype_name(variable))
        step, rate = ops.cast(step, wide), ops.cast(rate, wide)
        new = self._rule(*old, grad, treatment, proceed, step, rate)
        for target, value in zip((variable, *slots), new):
            target.assign(value)
        return new.trust_ratio

    def _update_averages(self, proceed: Array, step: Array) -> None:
        r"""Averages the weights (EMA) after an update.

        $$a_1 = x_1,\qquad a_t = d\, a_{t-1} + (1 - d)\, x_t$$

        with `d` the `ema_momentum` and `t` the `step`. Averages of narrower
        variables are float32: a bfloat16 would not move by a thousandth. Every
        `ema_overwrite_frequency` updates the weights are set to their average.
        A skipped step (`proceed` is False) changes neither.
        """
        ops = self._ops
        first = ops.equal(step, 1.0)
        overwrite = ops.convert_to_tensor(False)
        if self.ema_overwrite_frequency:
            due = (self._updates_due() + 1) % self.ema_overwrite_frequency == 0
            overwrite = ops.logical_and(due, proceed)

        def average(
            variable: Variable,
            mean: Variable,
            first: Array,
            proceed: Array,
            overwrite: Array,
        ) -> Array:
            value = ops.convert_to_tensor(variable)
            old = ops.convert_to_tensor(mean)
            wide = arithmetic.dtype_name(mean)
            momentum = ops.where(
                first,
                ops.convert_to_tensor(0.0, wide),
                ops.convert_to_tensor(self.ema_momentum, wide),
            )
            x = ops.cast(value, wide)
            moved = momentum * old + (1 - momentum) * x
            moved = ops.where(proceed, moved, old)
            mean.assign(moved)
            if self.ema_overwrite_frequency:
                moved = arithmetic.narrow(ops, moved, value)
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
            average, pairs, [[first] * n, [proceed] * n, [overwrite] * n]
        )

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Sets the weights to their averages (EMA); Keras calls it after `fit`.

        Without an update there are no averages: the weights stay, and if that
        is because too few batches were accumulated, a warning says so.

        Args:
          var_list: variables of the model.
        """
        count = self._ops.convert_to_numpy
        if self.built and int(count(self._updates_made())) <= 0:
            k = self.gradient_accumulation_steps
            if k and int(count(self._updates_due())) == 0:
                warnings.warn(
                    f"{self.name}: no weight was updated: fewer batches were "
                    f"seen than gradient_accumulation_steps={k}; train on more "
                    "batches, or accumulate fewer.",
                    stacklevel=3,
                )
            return
        base: Any = super()
        base.finalize_variable_values(var_list)

    def _overwrite_model_variables_with_average_value(
        self, trainable_variables: Sequence[Variable]
    ) -> None:
        """Sets variables to their averages, rounded to nearest.

        It replaces the method of this name in Keras, which
        `finalize_variable_values` calls.
        """
        for variable in trainable_variables:
            mean = self._model_variables_moving_average[self._index(variable)]
            if mean is not None:
                self._set(variable, mean)

    def _set(self, variable: Variable, mean: Variable) -> None:
        value = self._ops.convert_to_tensor(mean)
        variable.assign(arithmetic.narrow(self._ops, value, variable))

    def _updates_due(self) -> Array:
        """Updates before this one, skipped ones among them."""
        raise NotImplementedError

    def _averaged_variables(self) -> Sequence[Variable]:
        """All variables, in the order of the slots."""
        raise NotImplementedError

    def _each(
        self,
        update: Callable[..., Any],
        rows: Sequence[Sequence[Variable]],
        replica_columns: Sequence[Sequence[Array]],
    ) -> None:
        """Calls `update(*row, *scalars)` for each row of variables."""
        for row, *scalars in zip(rows, *replica_columns):
            update(*row, *scalars)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as `from_config` takes them."""
        base: Any = super()
        config: dict[str, Any] = base.get_config()
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


def _clip_factors(
    ops: Any, limit: float, squares: Array, small: Array
) -> Array:
    """`limit / max(norm, limit)`, of norms whose squares may overflow.

    Args:
      ops: array functions.
      limit: what norms are clipped to.
      squares: squared norms.
      small: the same of gradients times `_SMALL`, for where `squares` are
        infinite.

    Returns:
      The factors, the shape of `squares`.
    """
    fits = ops.isfinite(squares)
    one = ops.ones_like(squares)
    unit = ops.where(fits, one, _SMALL * one)
    norms = ops.sqrt(ops.where(fits, squares, small))
    return limit / ops.maximum(norms, limit * unit) * unit


def _as_dtype(ops: Any, x: Array, dtype: str) -> Array:
    """A tensor or Python number in a dtype; a number is rounded once."""
    if isinstance(x, (int, float)):
        return ops.convert_to_tensor(x, dtype)
    return ops.cast(x, dtype)


def _as_list(patterns: Sequence[str] | None) -> list[str] | None:
    return None if patterns is None else list(patterns)
