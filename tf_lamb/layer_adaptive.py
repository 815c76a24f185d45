"""What LAMB and LARS share in every front end: arguments and exclusions.

`optimizers.py` derives the two from this class, with their own arguments.
`keras_optimizer.py` (and from it `keras3.py` and `keras2.py`) and `v1.py` have
what the different optimizers of TensorFlow and Keras expect.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Hashable, Mapping, Sequence

from tf_lamb import arguments, arithmetic, check, exclusion, saved
from tf_lamb import groups as group_settings
from tf_lamb.arithmetic import Array
from tf_lamb.averages import Variable
from tf_lamb.bundles import Row
from tf_lamb.groups import Group, Setting
from tf_lamb.hyperparameters import Hyper
from tf_lamb.update import Executor, Memory, Update


class LayerAdaptive:
    """LAMB and LARS but for the arguments that only one of them has.

    It is mixed into an optimizer of Keras or TensorFlow.
    """

    # Of that optimizer.
    built: Any
    name: Any

    # Of LAMB and LARS: the type of their constants, the names of their moments.
    _HYPER: ClassVar[type[Any]]
    _SLOTS: ClassVar[Sequence[str]]

    # Of a front end.
    _ops: Any
    # Schedules are functions of the step; another function has no argument.
    _SCHEDULE: ClassVar[type[Any]] = type(None)
    # How compiled steps see a new weight decay (`tf_update.held`). None: not.
    _held: ClassVar[Callable[..., Any] | None] = None

    # A compiled step holds them, so that another value would do nothing.
    _FIXED: ClassVar[frozenset[str]] = frozenset(
        "beta_1 beta_2 epsilon momentum trust_coefficient form nesterov "
        "bias_correction grad_averaging cautious clip_by_unit norm phi_bounds "
        "trust_ratio_bounds skip_nonfinite moment_dtype clipnorm clipvalue "
        "global_clipnorm use_ema ema_momentum ema_overwrite_frequency "
        "loss_scale_factor gradient_accumulation_steps unmatched groups".split()
    )

    _learning_rate: Any
    _weight_decay: float | Callable[..., Any]
    _decay: Any = None
    # float64 if a variable is: of the scalars that all variables share.
    _wide_dtype = "float32"
    _shapes: Sequence[Sequence[int]] = ()
    _treatments: Sequence[exclusion.Treatment] = ()
    groups: tuple[Group, ...]

    def __init__(
        self,
        learning_rate: float | Callable[..., Any],
        hyper: Hyper,
        *,
        weight_decay: float | Callable[..., Any] | None,
        exclude_from_weight_decay: exclusion.Patterns,
        exclude_from_layer_adaptation: exclusion.Patterns,
        unmatched: str,
        groups: Sequence[Group] | None,
        skip_nonfinite: bool,
        moment_dtype: str | None,
        jit_compile: bool,
        name: str | None,
        **kwargs: Any,
    ) -> None:
        name = self._checks["name"]("name", name) or self._default_name()
        exclusions = saved.Exclusions(kwargs.pop(saved.KEY, None))
        self._init_base(self._checked_rate(learning_rate), name, **kwargs)
        self.weight_decay = weight_decay
        for name, value in hyper.checked()._asdict().items():
            setattr(self, name, value)
        self.skip_nonfinite = skip_nonfinite
        self.moment_dtype = moment_dtype
        self.jit_compile = jit_compile
        # `exclude_from_weight_decay` is a method of Keras' optimizers.
        self._no_decay = exclusion.check_patterns(
            "exclude_from_weight_decay", exclude_from_weight_decay
        )
        self._no_adapt = exclusion.check_patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )
        self.unmatched = unmatched
        self.groups = group_settings.check_groups("groups", groups)
        self._check_constants()
        self._no_decay_keys: frozenset[Hashable] = frozenset()
        self._exclusions = exclusions

    def _init_base(self, learning_rate: Any, name: str, **kwargs: Any) -> None:
        """Calls the constructor of the optimizer that this is mixed into."""
        raise NotImplementedError

    def _check_constants(self) -> None:
        """Checks constants against each other, and finds those of groups.

        Raises:
          ValueError: one does not go with another one.
        """
        self._group_hypers = [g.hyper(self._hyper) for g in self.groups]
        for hyper in (self._hyper.checked(), *self._group_hypers):
            arguments.check_limits(hyper.clip_by_unit, vars(self))

    def __setattr__(self, name: str, value: Any) -> None:
        arguments.check_attribute(type(self), name, value)
        if name in self._FIXED and getattr(self, "built", False):
            old = getattr(self, name)
            if not arguments.equal(value, old):
                raise AttributeError(
                    f"{name}: it stays {old!r} once the optimizer is built, "
                    f"got {check.shown(value)}; make a new optimizer with it "
                    "(from_config of a changed get_config) and compile the "
                    "model again."
                )
        if name in self._checks:
            value = self._checks[name](name, value)
        elif name == "groups":
            value = tuple(
                group.with_functions(self._SCHEDULE)
                for group in group_settings.check_groups(name, value)
            )
        elif name == "learning_rate":
            value = arguments.check_new_rate(
                value, self._learning_rate, self._SCHEDULE
            )
        super().__setattr__(name, value)

    @property
    def _checks(self) -> Mapping[str, arguments.Check]:
        """The check of each argument."""
        return arguments.CHECKS[self._HYPER]

    def _checked_rate(self, learning_rate: Any) -> Any:
        """A learning rate of the constructor, a number as a float."""
        return check.number_or_function(
            "learning_rate", learning_rate, self._SCHEDULE
        )

    def _default_name(self) -> str:
        """The name of an optimizer that was given none."""
        return type(self).__name__

    @property
    def _hyper(self) -> Hyper:
        """The constants of the rule."""
        hyper = (getattr(self, name) for name in self._HYPER._fields)
        return self._HYPER(*hyper)

    @property
    def weight_decay(self) -> Any:
        """Weight decay `lambda`: a number, a schedule or a function.

        Another number counts from the next step on; on JAX it cannot be set
        once the optimizer is built.
        """
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: Any) -> None:
        value = check.number_or_function(
            "weight_decay", 0.0 if value is None else value, self._SCHEDULE
        )
        if getattr(self, "built", False) and (
            callable(value) or callable(self._weight_decay)
        ):
            raise AttributeError(
                "weight_decay: once the optimizer is built, a number can be "
                f"replaced by a number, not {self._weight_decay!r} by "
                f"{value!r}; make a new optimizer with it."
            )
        self._weight_decay = value
        if getattr(self, "built", False):
            self._hold_decay()

    def _hold_decay(self) -> None:
        """Hands the weight decay to compiled steps, where there are some."""
        if self._held and not callable(self._weight_decay):
            self._decay = self._held(
                self._decay, self._weight_decay, self._wide_dtype
            )

    def _decay_now(self) -> Array:
        """The weight decay of this step: a number or a scalar."""
        if self._decay is not None and not callable(self._weight_decay):
            return self._ops.convert_to_tensor(self._decay.variable)
        return self._now(self._weight_decay)

    def _now(self, value: Any) -> Array:
        """A number, schedule or function: its value at this step."""
        if isinstance(value, self._SCHEDULE):
            return value(self._schedule_step())
        return value() if callable(value) else value

    def _settings(self, learning_rate: Any) -> list[Setting]:
        """What each group has at this step; last, variables of no group."""
        decay = self._decay_now()

        def own(value: Any, shared: Any) -> Any:
            return shared if value is None else self._now(value)

        settings = [
            Setting(
                hyper,
                own(group.learning_rate, learning_rate),
                own(group.weight_decay, decay),
                group.learning_rate_multiplier,
                group.frozen,
                group.trust_ratio_per,
            )
            for group, hyper in zip(self.groups, self._group_hypers)
        ]
        return [*settings, Setting(self._hyper, learning_rate, decay)]

    def _schedule_step(self) -> Array:
        """The step that schedules are functions of."""
        raise NotImplementedError

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Excludes more variables from weight decay, before `build`.

        Where `exclude_from_layer_adaptation` is None, they are excluded from
        layer adaptation too, as those of the constructor are.

        Args:
          var_list: variables to exclude; a config has them once the optimizer
            is built.
          var_names: regexes, or `"biases_and_norms"`, added to those of the
            constructor.

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
            if isinstance(self._no_decay, str):
                raise ValueError(
                    "exclude_from_weight_decay: var_names cannot be added to "
                    f"{self._no_decay!r}; give the constructor a list."
                )
            more = exclusion.check_patterns(
                "exclude_from_weight_decay", var_names
            )
            more = (more,) if isinstance(more, str) else more or ()
            self._no_decay = (*(self._no_decay or ()), *more)

    def _var_key(self, variable: Variable) -> Hashable:
        """What identifies a variable."""
        return id(variable)

    def _check_dtypes(self, variables: Sequence[Variable]) -> None:
        """Checks that variables can be trained.

        Raises:
          ValueError: one of them is not of a floating dtype.
        """
        check.floating_variables(
            self.name,
            list(map(_path, variables)),
            list(map(arithmetic.dtype_name, variables)),
        )

    def _resolve(
        self, variables: Sequence[Variable]
    ) -> tuple[exclusion.Treatment, ...]:
        """How each variable is treated.

        Raises:
          ValueError: a regex matches none of them, or constants that were set
            do not go with each other.
        """
        self._check_constants()
        treatments = self._exclusions.resolve(
            self.name,
            [saved.Identity(_path(v), tuple(v.shape)) for v in variables],
            [self._var_key(v) in self._no_decay_keys for v in variables],
            self._no_decay,
            self._no_adapt,
            self.unmatched,
            [group.pattern for group in self.groups],
            [group.frozen for group in self.groups],
        )
        resolved = [
            group_settings.effective(t, self.groups) for t in treatments
        ]
        for treatment, variable in zip(resolved, variables):
            if treatment.group is not None and treatment.adapt:
                per = self.groups[treatment.group].trust_ratio_per
                group_settings.slices(per, treatment.path, variable.shape)
        # A scale of float8 is not trained: its gradient is its new value.
        return tuple(
            treatment._replace(decay=False, adapt=False)
            if getattr(v, "overwrite_with_gradient", False)
            else treatment
            for v, treatment in zip(variables, resolved)
        )

    def _is_frozen(self, treatment: exclusion.Treatment) -> bool:
        """Whether a variable's group is frozen."""
        group = treatment.group
        return group is not None and self.groups[group].frozen

    def _slot_dtype(self, variable_dtype: str) -> str:
        """float64 for float64, else `moment_dtype`, by default float32."""
        wide = arithmetic.wide_dtype(variable_dtype)
        return wide if wide == "float64" else self.moment_dtype or wide

    @property
    def treatments(self) -> dict[str, exclusion.Treatment]:
        """{variable path: its `Treatment`}, once the variables are known.

        Repeated paths are numbered (`exclusion.unique_keys`).
        """
        paths = [treatment.path for treatment in self._treatments]
        return dict(zip(exclusion.unique_keys(paths), self._treatments))

    def describe(self, strict: bool = False) -> str:
        """A table of all variables: path, shape, weight decay, adaptation.

        Where there are groups, it shows the group of each variable too, in
        parentheses later ones that match it and do not hold, and what the group
        changes.

        Args:
          strict: whether a pattern that matches no variable raises.

        Raises:
          ValueError: the optimizer knows no variables yet, or `strict` and a
            pattern matches none.
        """
        if not self._treatments:
            raise ValueError(
                "describe: the optimizer knows no variables yet; call "
                "optimizer.build(model.trainable_variables) first."
            )
        paths = [treatment.path for treatment in self._treatments]
        patterns = [group.pattern for group in self.groups]
        if strict:
            exclusion.resolve(
                paths, self._no_decay, self._no_adapt, self._shapes, "raise"
            )
            exclusion.first_matches(patterns, paths, self._shapes, "raise")
        return exclusion.describe(
            self._shapes,
            self._treatments,
            group_settings.columns(self.groups, self._treatments, self._shapes),
        )

    def _update(
        self,
        executor: Executor,
        rows: Sequence[Row],
        made: Array,
        learning_rate: Any,
        memory: Memory | None = None,
        **constants: Any,
    ) -> Update:
        """One update of these variables, with the arguments of the optimizer.

        The other arguments are those of `Update`.
        """
        return Update(
            self._ops,
            executor,
            rows,
            made,
            self._settings(learning_rate),
            skip_nonfinite=self.skip_nonfinite,
            wide=self._wide_dtype,
            memory=memory,
            **constants,
        )


def _path(variable: Variable) -> str:
    """A variable's full path."""
    return exclusion.normalize_path(getattr(variable, "path", variable.name))
