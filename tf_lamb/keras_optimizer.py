"""What LAMB and LARS share in every Keras: state, averages, configuration.

No framework is imported. `keras3.py` and `keras2.py` have what differs between
Kerases.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, Callable, Mapping, Protocol, Sequence

from tf_lamb import arguments, arithmetic, check, configs
from tf_lamb.arithmetic import Array
from tf_lamb.averages import Averages, Variable
from tf_lamb.bundles import Row
from tf_lamb.groups import Group
from tf_lamb.layer_adaptive import LayerAdaptive
from tf_lamb.saved_state import SavedState
from tf_lamb.update import Clipping, Executor, Memory


class KerasExecutor(Executor, Protocol):
    """What an optimizer of Keras asks of its backend besides."""

    def dense(self, grads: Sequence[Any]) -> Sequence[Array]:
        """The gradients as dense arrays."""

    def shaped(
        self, grads: Sequence[Array], variables: Sequence[Variable]
    ) -> list[Array]:
        """Gradients, checked in the step where shapes are not known before."""

    def sum_over_replicas(self, grads: Sequence[Array]) -> Sequence[Array]:
        """The sums of all replicas' gradients, in every replica."""

    def accumulate_or_update(
        self,
        is_update_step: Array,
        function: Callable[..., None],
        sums: Sequence[Variable],
        grads: Sequence[Array],
        state: Sequence[Variable] = (),
    ) -> None:
        """Adds gradients to `sums`, or calls `function(*grads)` and resets.

        Args:
          is_update_step: bool scalar.
          function: assigns to variables of `state`.
          sums: accumulators, of each replica.
          grads: of this micro-batch and replica.
          state: all variables that change.
        """

    def assign(self, variable: Variable, value: Variable) -> None:
        """Sets a variable to another one, rounded to nearest, everywhere."""


class KerasOptimizer(SavedState, LayerAdaptive):
    """LAMB and LARS of any Keras; mixed into its optimizer.

    That optimizer provides the attributes that are declared here without a
    value, and the methods that raise NotImplementedError here.
    """

    learning_rate: Any
    clipnorm: float | None
    global_clipnorm: float | None
    clipvalue: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    gradient_accumulation_steps: int | None
    _model_variables_moving_average: Sequence[Variable]

    # Of a schedule, to and from what a config can hold.
    _serialize: Any
    _deserialize: Any
    # Keras' module of schedules, and its function `get_registered_object`.
    _schedules: Any
    _registered: Any
    # Where `build` assigns to variables, if it is called in a graph.
    _init_scope: Callable[[], Any] = contextlib.nullcontext

    # Made by `build`: one row for each of `_SLOTS`.
    _slots: Sequence[Sequence[Variable]]

    def _init_base(self, learning_rate: Any, name: str, **kwargs: Any) -> None:
        kwargs = arguments.check_all(self._checks, **kwargs)
        if "lr" in kwargs:
            warnings.warn(
                arguments.renamed("lr", "learning_rate"),
                FutureWarning,
                stacklevel=4,
            )
            learning_rate = self._checked_rate(kwargs.pop("lr"))
        learning_rate = configs.decayed(learning_rate, kwargs, self._schedules)
        base: Any = super(LayerAdaptive, self)
        # Keras' own decay is outside the trust ratio.
        base.__init__(learning_rate, name=name, weight_decay=None, **kwargs)

    def build(self, variables: Sequence[Variable]) -> None:
        """Resolves the exclusions and makes the slots.

        Args:
          variables: all that the optimizer will update. Of an empty list it
            learns nothing: it is not built then.

        Raises:
          ValueError: a regex matches none of them, or one of them is not of a
            floating dtype.
        """
        if self.built:
            return
        variables = list(variables)
        self._built_for_none = not variables
        if not variables:
            return
        self._check_dtypes(variables)
        treatments = self._resolve(variables)
        base: Any = super()
        base.build(variables)
        dtypes = map(arithmetic.dtype_name, variables)
        self._wide_dtype = "float64" if "float64" in dtypes else "float32"
        self._shapes = tuple(tuple(v.shape) for v in variables)
        self._treatments = treatments
        self._skipped_steps = self._add_state("skipped_steps", (), "int32")
        self._trust_ratios = self._add_state(
            "trust_ratio", (len(variables),), "float32", "ones"
        )
        self._slots = [
            [
                None if self._is_frozen(t) else self._add_slot(v, name)
                for v, t in zip(variables, treatments)
            ]
            for name in self._SLOTS
        ]
        self._hold_decay()

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

    @property
    def trust_ratios(self) -> dict[str, float]:
        """{variable path: trust ratio of its last update}; 1 if not adapted.

        Repeated paths are numbered (`exclusion.unique_keys`).
        """
        if not self.built:
            return {}
        values = self._ops.convert_to_numpy(self._trust_ratios)
        return dict(zip(self.treatments, map(float, values)))

    @property
    def skipped_steps(self) -> int:
        """How many updates were skipped for a non-finite gradient."""
        if not self.built:
            return 0
        return int(self._ops.convert_to_numpy(self._skipped_steps))

    def _update_of(self, variables: Sequence[Variable]) -> Any:
        """The `Update` of these variables at this step."""
        indices = [self._index(v) for v in variables]
        native = self._native
        rows = [
            Row(
                native(v),
                [native(s[i]) for s in self._slots if s[i] is not None],
                self._treatments[i],
            )
            for v, i in zip(variables, indices)
        ]
        averages = None
        if self.use_ema:
            pairs = zip(
                self._averaged_variables(), self._model_variables_moving_average
            )
            averages = Averages(
                [
                    (native(v), native(a))
                    for v, a in pairs
                    if not (v is None or a is None)
                ],
                self.ema_momentum,
                self.ema_overwrite_frequency,
                self._updates_due(),
            )
        memory = Memory(
            self._trust_ratios,
            indices,
            self._skipped_steps,
            self._skipped_before(),
            averages,
        )
        return self._update(
            self._executor(),
            rows,
            self._updates_made(),
            self.learning_rate,
            memory,
            clipping=Clipping(
                self.clipnorm, self.global_clipnorm, self.clipvalue
            ),
        )

    def _executor(self) -> KerasExecutor:
        """Where the rule runs."""
        raise NotImplementedError

    def _native(self, variable: Variable) -> Variable:
        """The variable that the executor takes."""
        return variable

    def _skipped_before(self) -> Array:
        """Skipped steps before this one, int32."""
        return self._ops.convert_to_tensor(self._skipped_steps)

    def _updates_made(self) -> Array:
        """Updates before this one, without those that were skipped."""
        raise NotImplementedError

    def _updates_due(self) -> Array:
        """Updates before this one, skipped ones among them."""
        raise NotImplementedError

    def _index(self, variable: Variable) -> int:
        """Position among the variables that the optimizer was built with."""
        raise NotImplementedError

    def _averaged_variables(self) -> Sequence[Variable | None]:
        """All variables, in the order of the slots; None: not in this step."""
        raise NotImplementedError

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
                self._executor().assign(
                    self._native(variable), self._native(mean)
                )

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as `from_config` takes them."""
        base: Any = super()
        config: dict[str, Any] = base.get_config()
        hyper = self._hyper._asdict()
        config.update(
            hyper,
            weight_decay=self._serialized_decay(),
            exclude_from_weight_decay=_as_list(self._no_decay),
            exclude_from_layer_adaptation=_as_list(self._no_adapt),
            unmatched=self.unmatched,
            groups=self._serialized_groups(),
            phi_bounds=_as_list(hyper["phi_bounds"]),
            trust_ratio_bounds=_as_list(hyper["trust_ratio_bounds"]),
            skip_nonfinite=self.skip_nonfinite,
            moment_dtype=self.moment_dtype,
            jit_compile=self.jit_compile,
        )
        listed = bool(self._no_decay_keys)
        built = bool(self.built)
        config.update(
            self._exclusions.config(self.name, built=built, listed=listed)
        )
        return config

    def _serialized_decay(self) -> Any:
        """The weight decay as a config can hold it."""
        return self._serialized("weight_decay", self._weight_decay)

    def _serialized(self, name: str, value: Any) -> Any:
        """A number, schedule or function as a config can hold it."""
        if isinstance(value, self._SCHEDULE):
            return self._serialize(value)
        if not callable(value):
            return value
        value = float(self._ops.convert_to_numpy(value()))
        warnings.warn(
            f"{name}: a config cannot hold a function; it holds its value, "
            f"{value!r}. Pass the function again after loading.",
            stacklevel=4,
        )
        return value

    def _serialized_groups(self) -> list[dict[str, Any]] | None:
        """The groups as a config can hold them; None if there are none."""
        return [
            {
                name: self._serialized(f"Group.{name}", _as_list(value))
                for name, value in group.options().items()
            }
            for group in self.groups
        ] or None

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Any = None
    ) -> Any:
        """The optimizer that `get_config` describes.

        Args:
          config: what `get_config` returned, or that of
            `tfa.optimizers.LAMB`; it is not changed.
          custom_objects: {name: class} for what is not registered.

        Raises:
          ValueError: it has a schedule of tensorflow_addons.
        """
        config = configs.translated(
            config, custom_objects, cls._schedules, cls._registered
        )
        config = cls._with_schedules(config, ("weight_decay",))
        groups = config.get("groups")
        if not all(isinstance(x, (Group, dict)) for x in groups or ()):
            raise check.refuse("groups", groups, "a list of configs of groups")
        config["groups"] = [
            Group(**cls._group_config(options, custom_objects))
            for options in groups or ()
        ]
        base: Any = super()
        optimizer = base.from_config(config, custom_objects)
        optimizer._exclusions.loaded = True
        return optimizer

    @classmethod
    def _with_schedules(
        cls, config: dict[str, Any], names: Sequence[str]
    ) -> dict[str, Any]:
        """A config whose schedules under these names are objects."""
        for name in names:
            if isinstance(config.get(name), dict):
                config[name] = cls._deserialize(config[name])
        return config

    @classmethod
    def _group_config(cls, options: Any, custom_objects: Any) -> dict[str, Any]:
        """The arguments of a `Group`, from a config of any Keras."""
        if isinstance(options, Group):
            options = options.options()
        translated = configs.translated(
            options, custom_objects, cls._schedules, cls._registered
        )
        return cls._with_schedules(
            translated, ("learning_rate", "weight_decay")
        )


def _as_list(values: Any) -> Any:
    """A tuple as JSON has it; a preset's name and None as they are."""
    return list(values) if isinstance(values, tuple) else values
