"""Alarms of a training: what is wrong, where, and what usually helps.

NumPy only. A `TrainingMonitor` fills in a `Record` and warns of what `Alarms`
finds in it, each kind once.
"""

from __future__ import annotations

import collections
import math
from typing import Callable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from tf_lamb import check


class Record(NamedTuple):
    """What is known after one update.

    Attributes:
      step: the update.
      keys: paths of the trainable variables, `[n]`, first layers first.
      ranks: their numbers of axes, `[n]`.
      weight_norms: `|w|`, `[n]`.
      gradient_norms: `|g|`, `[n]`; None where none was measured.
      update_ratios: `|update| / |w|`, of the weights before it, `[n]`; None
        where these are not known.
      trust_ratios: {key: ratio}, of the variables of LAMB and LARS.
      bounds: {key: the bounds of its ratio}, where it has some.
      loss: None where it is not known.
    """

    step: int
    keys: Sequence[str]
    ranks: Sequence[int]
    weight_norms: np.ndarray
    gradient_norms: np.ndarray | None = None
    update_ratios: np.ndarray | None = None
    trust_ratios: Mapping[str, float] = {}
    bounds: Mapping[str, tuple[float, float]] = {}
    loss: float | None = None


def slope_over_depth(norms: np.ndarray, ranks: Sequence[int]) -> float:
    r"""By how many decades `|g|` grows from the first layer to the last.

    The slope of the line through `log10 |g|`, by least squares, times the
    depth. Only variables with two axes or more count, and no zeros.

    Args:
      norms: `|g|`, `[n]`, first layers first.
      ranks: numbers of axes, `[n]`.

    Returns:
      Decades; 0 with fewer than four such variables. Negative where gradients
      grow on their way back to the first layer.
    """
    chosen = [
        math.log10(norm)
        for norm, rank in zip(norms, ranks)
        if rank >= 2 and 0 < norm < math.inf
    ]
    if len(chosen) < 4:
        return 0.0
    return float(np.polyfit(np.linspace(0, 1, len(chosen)), chosen, 1)[0])


class Alarms:
    """What is looked for, and from where on it is an alarm.

    Each kind is found once: non-finite numbers; gradients that explode or
    vanish over depth; trust ratios pinned at a bound; dead variables; a loss at
    chance. The first needs no threshold.

    Args:
      decades: by which `|g|` of the line over depth (`slope_over_depth`) may
        differ between the first layer and the last, > 0.
      patience: records in a row that show a slope, a ratio at its bound or a
        gradient of 0, until it is an alarm, >= 1.
      num_classes: of a classifier: the loss of chance is its logarithm (cross
        entropy in nats), >= 2.
      chance_loss: the loss of chance itself, > 0, in place of `num_classes`.
      chance_steps: updates after which the loss has to be below chance, >= 1.
      chance_margin: a loss above this share of that of chance is at chance, in
        (0, 1].

    Raises:
      ValueError: an argument is out of its range, or both of `num_classes` and
        `chance_loss` are given.
    """

    def __init__(
        self,
        decades: float = 4.0,
        patience: int = 3,
        num_classes: int | None = None,
        chance_loss: float | None = None,
        chance_steps: int = 1000,
        chance_margin: float = 0.98,
    ) -> None:
        self.decades = check.positive("decades", decades)
        self.patience = check.count("patience", patience)
        if num_classes is not None and chance_loss is not None:
            raise ValueError(
                "num_classes, chance_loss: expected one of them, got both."
            )
        if num_classes is not None:
            chance_loss = math.log(check.count("num_classes", num_classes, 2))
        self.chance_loss = check.positive_or_none("chance_loss", chance_loss)
        self.chance_steps = check.count("chance_steps", chance_steps)
        check.positive("chance_margin", chance_margin)
        self.chance_margin = check.share("chance_margin", chance_margin)
        self._runs: collections.Counter[str] = collections.Counter()
        self._raised: set[str] = set()

    def find(self, record: Record) -> list[str]:
        """The new alarms of a record, one line each.

        Args:
          record: the next one of the run.
        """
        kinds: dict[str, Callable[[Record], Iterator[str]]] = {
            "non-finite": self._non_finite,
            "slope": self._slope,
            "pinned": self._pinned,
            "dead": self._dead,
            "chance": self._chance,
        }
        found = []
        for kind, look in kinds.items():
            message = next(look(record), None)
            if message and kind not in self._raised:
                self._raised.add(kind)
                found.append(f"update {record.step}: {message}")
        return found

    def _lasting(self, kind: str, found: Mapping[str, bool]) -> list[str]:
        """The names found in as many records in a row as `patience` says."""
        for name, is_found in found.items():
            key = f"{kind}: {name}"
            self._runs[key] = self._runs[key] + 1 if is_found else 0
        return [
            name
            for name in found
            if self._runs[f"{kind}: {name}"] >= self.patience
        ]

    def _non_finite(self, record: Record) -> Iterator[str]:
        cure = (
            "lower the learning rate or warm up longer, clip "
            "(global_clipnorm), and look at the batch and at float16's loss "
            "scale"
        )
        for what, norms in (
            ("gradient", record.gradient_norms),
            ("weight", record.weight_norms),
        ):
            finite = [] if norms is None else np.isfinite(norms)
            bad = [k for k, is_fine in zip(record.keys, finite) if not is_fine]
            if bad:
                yield f"the {what} of {_names(bad)} is not finite; {cure}."
        if record.loss is not None and not math.isfinite(record.loss):
            yield f"the loss is {record.loss}; {cure}."

    def _slope(self, record: Record) -> Iterator[str]:
        if record.gradient_norms is None:
            return
        slope = slope_over_depth(record.gradient_norms, record.ranks)
        first = next(
            (k for k, r in zip(record.keys, record.ranks) if r > 1), ""
        )
        lasting = self._lasting(
            "slope",
            {
                "explodes": slope < -self.decades,
                "vanishes": slope > self.decades,
            },
        )
        for what in lasting:
            cure = (
                "clip (global_clipnorm), normalise layers, or scale the "
                "initial weights down"
                if what == "explodes"
                else "use residual connections or normalisation, another "
                "activation, or scale the initial weights up"
            )
            yield (
                f"the gradient {what} toward {first!r}: over depth it changes "
                f"by {abs(slope):.1f} decades (limit {self.decades:g}); {cure}."
            )

    def _pinned(self, record: Record) -> Iterator[str]:
        found = {
            key: any(
                math.isclose(record.trust_ratios[key], bound, rel_tol=1e-5)
                for bound in bounds
            )
            for key, bounds in record.bounds.items()
            if key in record.trust_ratios
        }
        lasting = self._lasting("pinned", found)
        if lasting:
            lower, upper = record.bounds[lasting[0]]
            yield (
                f"the trust ratio of {_names(lasting)} stays at its bound "
                f"({lower:g}, {upper:g}): the layer is not adapted; widen "
                "trust_ratio_bounds, or change the learning rate or the "
                "weights' initial scale."
            )

    def _dead(self, record: Record) -> Iterator[str]:
        if record.gradient_norms is None:
            return
        found = dict(zip(record.keys, record.gradient_norms == 0))
        lasting = self._lasting("dead", found)
        if lasting:
            yield (
                f"the gradient of {_names(lasting)} is 0 for {self.patience} "
                "records: the layer does not train; look for an output that "
                "is not used, a stop_gradient, or units that died (a lower "
                "rate or a leaky activation)."
            )

    def _chance(self, record: Record) -> Iterator[str]:
        if None in (self.chance_loss, record.loss):
            return
        chance = self.chance_loss or 0.0
        loss = record.loss or 0.0
        late = record.step >= self.chance_steps
        if late and loss >= self.chance_margin * chance:
            yield (
                f"the loss is {loss:.4g}, that of chance ({chance:.4g}); all "
                f"layers up to {record.keys[-1]!r} learned nothing: check "
                "labels and inputs, then raise or lower the learning rate "
                "tenfold."
            )


def _names(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(map(repr, keys[:3])) + more
