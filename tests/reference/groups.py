"""Several references side by side: what an optimizer with groups has to do.

Naive NumPy in float64. All gradients go through one path (accumulate, skip,
clip); then the reference of each group steps its own variables, or their parts.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np

from tests.reference.clipping import GradientPath
from tests.reference.lamb import moving_average, rate_at


class ReferenceGroup(NamedTuple):
    """What is particular about some variables.

    Attributes:
        names: the variables.
        multiplier: of the learning rate.
        learning_rate: in place of the common one.
        frozen: whether they stay, and their gradients do not count.
        parts: {name: (axis, count)}: each part is a variable of its own.
        joined: whether all are one long vector.
        changes: arguments of the reference.
    """

    names: tuple[str, ...]
    multiplier: float = 1.0
    learning_rate: Any = None
    frozen: bool = False
    parts: dict[str, tuple[int, int]] = {}
    joined: bool = False
    changes: dict = {}


class ReferenceGroups:
    """An optimizer with groups, of one reference for each of them.

    Args:
        make: `ReferenceLAMB` or `ReferenceLARS`.
        groups: those of the optimizer; other variables are one more.
        learning_rate: rate, or a function of the number of earlier calls.
        accumulation_steps: as in the references.
        ema_momentum: as in the references.
        clip: bounds by name, as in `clipping.clip`.
        **shared: arguments of every reference.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        groups: list[ReferenceGroup],
        *,
        learning_rate: Any,
        accumulation_steps: int = 1,
        ema_momentum: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **shared: Any,
    ):
        self.make, self.groups, self.shared = make, groups, shared
        self.rate, self.ema_momentum = learning_rate, ema_momentum
        self.path = GradientPath(
            clipnorm, clipvalue, global_clipnorm, accumulation_steps, True
        )
        self.references: list[Any] = []
        self.calls = self.t = 0
        self.average: dict[str, np.ndarray] = {}

    @property
    def trust_ratios(self) -> dict[str, float]:
        """{variable: mean of its ratios}."""
        found: dict[str, float] = {}
        for group, reference in zip(self.groups, self.references):
            for name in group.names:
                ratios = [
                    ratio
                    for part, ratio in reference.trust_ratios.items()
                    if name in part.split("+") or part.split("[")[0] == name
                ]
                found[name] = float(np.mean(ratios)) if ratios else 1.0
        return found

    def _reference(self, group: ReferenceGroup, names: list[str]) -> Any:
        def rate(_: int) -> float:
            rate = group.learning_rate
            rate = self.rate if rate is None else rate
            # `calls` counts this call already.
            return rate_at(rate, self.calls - 1) * group.multiplier

        arguments = {**self.shared, **group.changes, "learning_rate": rate}
        for key in ("no_decay", "no_adapt"):
            excluded = arguments.get(key, ())
            arguments[key] = [
                part
                for part in names
                if part in excluded or part.split("[")[0] in excluded
            ]
        return self.make(**arguments)

    def step(self, params: dict, grads: dict) -> dict:
        """As `ReferenceLAMB.step`."""
        params = {n: np.array(x, np.float64) for n, x in params.items()}
        if not self.references:
            known = {name for group in self.groups for name in group.names}
            rest = tuple(name for name in params if name not in known)
            self.groups = [*self.groups, ReferenceGroup(rest)]
            self.references = [
                self._reference(group, list(_split(group, params)))
                for group in self.groups
            ]
        self.calls += 1
        frozen = {n for g in self.groups if g.frozen for n in g.names}
        grads = {n: None if n in frozen else g for n, g in grads.items()}
        grads = self.path(grads)
        if grads is None:
            return params
        self.t += 1
        for group, reference in zip(self.groups, self.references):
            if not group.names or group.frozen:
                continue
            stepped = reference.step(
                _split(group, params), _split(group, grads)
            )
            params.update(_merged(group, stepped, params))
        if self.ema_momentum is not None:
            self.average = moving_average(
                self.average, params, self.ema_momentum
            )
        return params


def _split(group: ReferenceGroup, arrays: dict) -> dict:
    own = {name: arrays[name] for name in group.names}
    if group.joined:
        flat = [x.ravel() for x in own.values()]
        return {"+".join(own): np.concatenate(flat)}
    parts = {}
    for name, x in own.items():
        if name in group.parts:
            axis, count = group.parts[name]
            pieces = np.split(x, count, axis)
            parts.update({f"{name}[{i}]": p for i, p in enumerate(pieces)})
        else:
            parts[name] = x
    return parts


def _merged(group: ReferenceGroup, parts: dict, like: dict) -> dict:
    if group.joined:
        (value,) = parts.values()
        sizes = np.cumsum([like[name].size for name in group.names])[:-1]
        return {
            name: piece.reshape(like[name].shape)
            for name, piece in zip(group.names, np.split(value, sizes))
        }
    merged = dict(parts)
    for name, (axis, count) in group.parts.items():
        pieces = [merged.pop(f"{name}[{i}]") for i in range(count)]
        merged[name] = np.concatenate(pieces, axis)
    return merged
