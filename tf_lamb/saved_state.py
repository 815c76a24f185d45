"""The variables of an optimizer in files: which array belongs to which one.

Keras saves them by number. Beside the numbers, a file has the paths and shapes
of the model's variables, so that each moment finds its own variable when a part
of the model was frozen or unfrozen in between. State that is loaded before the
optimizer is built waits until it is. Besides our own, these orders are known:
those of this optimizer in the other Keras, and of `tfa.optimizers.LAMB`.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, Callable, ClassVar, Iterator, Mapping, Sequence

import numpy as np

from tf_lamb import saved
from tf_lamb.exclusion import Treatment
from tf_lamb.saved import Identity

# Key beside the numbers of `save_own_variables`.
PATHS = "paths"
_NO_STATE = (
    "the file has no state of the optimizer (tfa's .keras files have none): "
    "its moments and its count of steps start anew"
)

# A name of `_targets`, and for a moment the position of its variable.
Entry = tuple[str, int | None]


class State:
    """Arrays of a file, in its order.

    Attributes:
      values: arrays.
      variables: the model's variables that they belong to, and whether the
        optimizer had state for each; None where the file does not say.
    """

    def __init__(
        self,
        values: Sequence[Any],
        variables: Sequence[tuple[Identity, bool]] | None = None,
    ) -> None:
        self.values = [np.asarray(value) for value in values]
        self.variables = variables

    @classmethod
    def of_store(cls, store: Mapping[str, Any]) -> State:
        """What `save_own_variables` has written.

        Args:
          store: {name: HDF5 data set or array}.
        """
        names = [name for name in store.keys() if name != PATHS]
        values = [store[name] for name in sorted(names, key=int)]
        if PATHS not in store.keys():
            return cls(values)
        rows = json.loads(np.asarray(store[PATHS]).tobytes())
        return cls(values, [(Identity(p, tuple(s)), x) for p, s, x in rows])


class SavedState:
    """Saves and loads an optimizer's variables; a mixin.

    The Keras optimizer into which it is mixed has the attributes that are
    declared here without a value.
    """

    name: str
    built: Any
    variables: Any
    use_ema: bool
    gradient_accumulation_steps: int | None
    _iterations: Any
    _treatments: Sequence[Treatment]
    _shapes: Sequence[Sequence[int]]
    _slots: Sequence[Sequence[Any]]
    _SLOTS: ClassVar[Sequence[str]]

    _init_scope: Callable[[], Any]
    # State that was loaded before `build`.
    _waiting: State | None = None
    # Whether it was told to be built for no variable, as Keras 3 does when it
    # reads an `.h5` file.
    _built_for_none = False

    def save_own_variables(self, store: Any) -> None:
        """Writes the state for a `.keras` or `.weights.h5` file.

        Args:
          store: mapping that takes {name: array}.
        """
        if self._waiting is not None:
            state = self._waiting
            for i, value in enumerate(state.values):
                store[str(i)] = value
        else:
            base: Any = super()
            base.save_own_variables(store)
            state = State([], self._own_rows() if self.built else None)
        if state.variables is not None:
            rows = [[p, s, x] for (p, s), x in state.variables]
            text = json.dumps(rows).encode()
            store[PATHS] = np.frombuffer(text, np.uint8).copy()

    def load_own_variables(self, store: Any) -> None:
        """Loads the state from a `.keras` or `.weights.h5` file.

        Before `build` it waits; the count of steps is loaded at once. Where a
        variable has no state in the file, a warning names it.

        Args:
          store: {name: HDF5 data set or array}.
        """
        self._load(State.of_store(store))

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all variables of the optimizer; Keras reads `.h5` files by it.

        Args:
          weights: arrays in the order of `variables`, or in that of
            `tfa.optimizers.LAMB`.

        Raises:
          ValueError: the optimizer is not built, or the arrays do not fit.
        """
        state = State(weights)
        if self.built:
            assigned, problem = self._assign_all(state)
            if not assigned:
                raise ValueError(f"{self.name}: {problem}.")
        elif self._built_for_none:
            self._load(state)
        else:
            base: Any = super()
            base.set_weights(weights)

    def _load(self, state: State) -> None:
        if self.built:
            self._assign_or_warn(state)
            return
        self._waiting = state
        if state.values and state.values[0].shape == ():
            self._iterations.assign(int(state.values[0]))

    def _restore_waiting(self) -> None:
        """Loads what was read before `build`; called at its end."""
        state, self._waiting = self._waiting, None
        # What only an optimizer has that was never built.
        if state is None or (state.values and len(state.values) <= 2):
            return
        with self._init_scope():
            if not self._assign_or_warn(state):
                self._iterations.assign(0)

    def _assign_or_warn(self, state: State) -> bool:
        assigned, problem = self._assign_all(state)
        if problem:
            warnings.warn(f"{self.name}: {problem}.", stacklevel=5)
        return assigned

    def _own_rows(self) -> list[tuple[Identity, bool]]:
        has_state = [slot is not None for slot in self._slots[0]]
        return [
            (Identity(treatment.path, tuple(shape)), x)
            for treatment, shape, x in zip(
                self._treatments, self._shapes, has_state
            )
        ]

    def _assign_all(self, state: State) -> tuple[bool, str]:
        """Assigns the arrays, or none; returns whether, and what is wrong."""
        own = self._own_rows()
        rows = own if state.variables is None else state.variables
        places = saved.match([r[0] for r in rows], [r[0] for r in own])
        own_order = [tuple(v.shape) for v in self.variables]
        same = places == list(range(len(rows)))
        # A frozen variable has no state, here or in the file.
        alike = [r[1] for r in rows] == [r[1] for r in own]
        if same and alike and _fits(state.values, own_order):
            for variable, value in zip(self.variables, state.values):
                _set(variable, value)
            return True, _shifted(rows, own)
        if not state.values:
            return False, _NO_STATE
        for layout in _layouts(self, rows):
            fits = _fits(state.values, [_shape(e, rows) for e in layout])
            if fits and any(i is not None for i in places):
                self._assign(dict(zip(layout, state.values)), places)
                return True, self._missing(places, rows)
        return False, (
            f"{len(state.values)} saved arrays do not fit the optimizer of "
            f"{len(own)} variables: its state starts anew; load it with the "
            "same arguments (use_ema, gradient_accumulation_steps) and the "
            "same model, or the file is another optimizer's"
        )

    def _assign(
        self, values: dict[Entry, Any], places: Sequence[int | None]
    ) -> None:
        calls, skipped = (
            values.get((name, None)) for name in ("iterations", "skipped_steps")
        )
        if calls is not None and skipped is not None:
            # Counts that Keras 3 has not: it derives them from these.
            k = self.gradient_accumulation_steps or 1
            values.setdefault(("updates", None), calls // k - skipped)
            values.setdefault(("micro_batches", None), calls)
        for name, target in self._targets().items():
            if not isinstance(target, (list, tuple)):
                value = values.get((name, None))
                if value is None:
                    continue
                if name == "trust_ratio":
                    value = [1.0 if i is None else value[i] for i in places]
                _set(target, np.asarray(value))
                continue
            for variable, i in zip(target, places):
                value = None if i is None else values.get((name, i))
                if variable is not None and value is not None:
                    _set(variable, value)

    def _targets(self) -> dict[str, Any]:
        """{name of an entry: variable, or one for each of the model's}."""
        names = {
            "learning_rate": "_learning_rate",
            "average": "_model_variables_moving_average",
            "updates": "_updates",
            "micro_batches": "_micro_batches",
            "skipped_steps": "_skipped_steps",
            "trust_ratio": "_trust_ratios",
        }
        found = {name: getattr(self, a, None) for name, a in names.items()}
        sums = getattr(self, "_accumulated_gradients", None)
        found["gradient_accumulator"] = sums or getattr(self, "_sums", None)
        found["iterations"] = self._iterations
        found.update(zip(self._SLOTS, (list(slot) for slot in self._slots)))
        return {
            name: list(x) if isinstance(x, Sequence) else x
            for name, x in found.items()
            if isinstance(x, Sequence) or hasattr(x, "assign")
        }

    def _missing(
        self, places: Sequence[int | None], rows: Sequence[tuple[Any, bool]]
    ) -> str:
        missing = [
            treatment.path
            for treatment, slot, i in zip(
                self._treatments, self._slots[0], places
            )
            if slot is not None and (i is None or not rows[i][1])
        ]
        if not missing:
            return ""
        return (
            f"the file has no state of {len(missing)} of {len(places)} "
            f"variables, such as {missing[0]!r}; it starts anew for them"
        )


def _shifted(
    rows: Sequence[tuple[Identity, bool]], own: Sequence[tuple[Identity, bool]]
) -> str:
    """What to say where a path of the file is now that of another variable."""
    now = [identity.path for identity, _ in own]
    for (identity, _), path in zip(rows, now):
        # Two variables of one path keep their places.
        if identity.path != path and identity.path in now:
            return (
                f"the file's state of {identity.path!r} went to "
                f"{path!r}, by its place, since paths differ by "
                "numbers only, as those that Keras makes up; freeze the same "
                "part of the model as then, or name layers by more than "
                "numbers"
            )
    return ""


def _layouts(
    optimizer: Any, rows: Sequence[tuple[Identity, bool]]
) -> Iterator[list[Entry]]:
    """The orders in which a file may have the variables."""
    stateful = [i for i, (_, x) in enumerate(rows) if x]

    def each(name: str, among: Sequence[int] = stateful) -> list[Entry]:
        return [(name, i) for i in among]

    k = optimizer.gradient_accumulation_steps
    everything = range(len(rows))
    sums = each("gradient_accumulator", everything) if k else []
    slots = [entry for name in optimizer._SLOTS for entry in each(name)]
    steps: list[Entry] = [("iterations", None)]
    rate: list[Entry] = [("learning_rate", None)]
    counts: list[Entry] = [("skipped_steps", None), ("trust_ratio", None)]
    micro: list[Entry] = [("micro_batches", None)] if k else []
    updates: list[Entry] = [("updates", None)]
    # A frozen variable has no moment but an average; one of float8, neither.
    for among in (everything, stateful):
        averages = each("average", among) if optimizer.use_ema else []
        # Keras 3, with a number and with a schedule as rate.
        for start in (steps + rate, steps):
            yield [*start, *averages, *sums, *counts, *slots]
        # tf_keras.
        yield [*steps, *averages, *counts, *slots, *updates, *micro, *sums]
    # tfa, and the legacy optimizers of Keras 2.
    yield [*steps, *slots]
    # An optimizer that was not built.
    yield steps + rate
    yield steps


def _shape(
    entry: Entry, rows: Sequence[tuple[Identity, bool]]
) -> tuple[int, ...]:
    name, i = entry
    if name == "trust_ratio":
        return (len(rows),)
    return () if i is None else rows[i][0].shape


def _set(variable: Any, value: Any) -> None:
    # TensorFlow's own variables take arrays of their dtype only.
    dtype = getattr(variable.dtype, "as_numpy_dtype", None)
    if dtype is not None:
        # Two bytes without a dtype are a bfloat16, which HDF5 lacks.
        same = value.dtype == "V2"
        value = value.view(dtype) if same else value.astype(dtype)
    variable.assign(value)


def _fits(values: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> bool:
    return [value.shape for value in values] == list(shapes)
