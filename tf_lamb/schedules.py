"""Learning rates for large batches: warmup, decay, batch scaling, re-warmup.

Functions first; like the rules they take array functions first (`ops`:
`maximum`, `minimum`, `where`), so that one formula serves NumPy, Keras and
TensorFlow. Then the two schedules as classes. These compute with NumPy;
`keras3.py` and `keras2.py` derive the learning-rate schedules of each Keras
from them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import numpy as np

from tf_lamb import check
from tf_lamb.arithmetic import Array, Ops
from tf_lamb.schedule_checks import (
    as_list,
    check_phases,
    check_warmup_polynomial,
)

SCALING_RULES = ("sqrt", "linear")

# A schedule: the rate as a function of the step.
Schedule = Callable[[Array], Array]


def warmup_polynomial(
    ops: Ops,
    step: Array,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    end_learning_rate: float = 0.0,
    power: float = 1.0,
    decay_from: str = "warmup_end",
    constant_steps: int = 0,
) -> Array:
    r"""Linear warmup, a constant rate if asked for, then polynomial decay.

    $$\eta(s) = \begin{cases}
      \eta\, s / w & s < w \\
      (\eta - \eta_{end}) (1 - p(s))^{power} + \eta_{end} & s \ge w
    \end{cases}$$

    with `p(s) = (s - w - c) / (T - w - c)` for `decay_from="warmup_end"` and
    `p(s) = s / T` for `"start"`, kept in [0, 1]: the rate is `eta` from step
    `w` to `w + c`.

    `"warmup_end"` is the default: the rate is continuous and its peak is
    `learning_rate`. `"start"` is what the published BERT and ALBERT code does:
    its decay runs from step 0, so that at the end of the warmup the rate falls
    at once by the share `warmup_steps / total_steps` (power 1), 20% at the
    untuned rule's ratio 1/5. Use it to resume such runs or to compare with
    them.

    Args:
      ops: array functions.
      step: 0-based step `s`, floating scalar or array.
      learning_rate: peak rate `eta`, >= 0.
      total_steps: `T`, at which the decay ends.
      warmup_steps: `w`, 0 for none.
      end_learning_rate: rate from step `T` on, >= 0, at most `learning_rate`.
        (Where the warmup takes all `T` steps, the peak is at `T`.)
      power: exponent of the decay, > 0; 1 is linear, 2 is MLPerf's LARS recipe.
      decay_from: one of `DECAY_FROM`.
      constant_steps: `c`, 0 for none; only for `decay_from="warmup_end"`.

    Returns:
      The rate, of the shape of `step`.

    References:
      google-research/bert `optimization.py` (`"start"`); You et al. 2020
      (arXiv:1904.00962), section 4; Zheng et al. 2020 (arXiv:2006.13484), the
      schedule of LANS (`constant_steps`).
    """
    origin = warmup_steps + constant_steps if decay_from != "start" else 0
    # Floats: JAX has no whole numbers above 2^31.
    progress = (step - float(origin)) / float(max(total_steps - origin, 1))
    progress = ops.minimum(ops.maximum(progress, 0.0), 1.0)
    span = learning_rate - end_learning_rate
    decayed = span * (1.0 - progress) ** power + end_learning_rate
    if not warmup_steps:
        return decayed
    length = float(warmup_steps)
    warmup = learning_rate * step / length
    return ops.where(step < length, warmup, decayed)


def rewarmup(
    ops: Ops,
    step: Array,
    phases: Sequence[Schedule],
    phase_steps: Sequence[int],
) -> Array:
    r"""Schedules one after the other, each started from its own step 0.

    $$\eta(s) = \eta_i(s - b_i),\qquad b_i = n_1 + \dots + n_{i-1},\quad
      b_i \le s < b_{i+1}$$

    with `n_i` the length of phase `i`. In mixed-batch training the second phase
    has another batch and sequence length, and warms up again from 0.

    Args:
      ops: array functions.
      step: 0-based step over all phases, floating scalar.
      phases: functions of a phase's own step.
      phase_steps: length of each phase; the last one continues beyond its
        length.

    Returns:
      The rate, of the shape of `step`.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4, mixed-batch training.
    """
    # Floats: JAX has no whole numbers above 2^31.
    begin = float(sum(phase_steps[:-1]))
    rate = phases[-1](step - begin)
    for phase, length in zip(phases[-2::-1], phase_steps[-2::-1]):
        end, begin = begin, begin - length
        rate = ops.where(step < end, phase(step - begin), rate)
    return rate


def scale_learning_rate(
    learning_rate: float,
    *,
    base_batch_size: int,
    global_batch_size: int,
    rule: str = "sqrt",
) -> float:
    r"""The rate at another batch size.

    $$\eta' = \eta \sqrt{B'/B}\ \text{("sqrt")}\quad\text{or}\quad
      \eta' = \eta\, B'/B\ \text{("linear")}$$

    Args:
      learning_rate: `eta`, the rate that suits `base_batch_size`, >= 0.
      base_batch_size: `B`, examples a step for which the rate was chosen.
      global_batch_size: `B'`, examples a step, over all replicas and
        accumulated micro-batches.
      rule: "sqrt" (the LAMB paper) or "linear" (Goyal et al. 2017).

    Returns:
      The scaled rate.

    Raises:
      ValueError: a rate below 0, a size that is not a positive whole number,
        or an unknown rule.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4; Goyal et al. 2017
      (arXiv:1706.02677), section 2.1.
    """
    learning_rate = check.non_negative("learning_rate", learning_rate)
    ratio = _batch_ratio(base_batch_size, global_batch_size)
    rule = check.one_of("rule", rule, SCALING_RULES)
    return learning_rate * (ratio**0.5 if rule == "sqrt" else ratio)


def _batch_ratio(base_batch_size: int, global_batch_size: int) -> float:
    base = check.count("base_batch_size", base_batch_size)
    return check.count("global_batch_size", global_batch_size) / base


def scale_warmup(
    warmup: float, *, base_batch_size: int, global_batch_size: int
) -> float:
    r"""Warmup at another batch size, in epochs or as a share of the run.

    $$w' = w\, B'/B$$

    This is linear-epoch warmup: twice the batch, twice the epochs of warmup,
    and so the same number of warmup steps.

    Args:
      warmup: `w`, epochs or share of all steps that suit `base_batch_size`.
      base_batch_size: `B`, examples a step for which the warmup was chosen.
      global_batch_size: `B'`, examples a step.

    Returns:
      The scaled warmup.

    Raises:
      ValueError: a warmup below 0, or a size that is not a positive whole
        number.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4.
    """
    warmup = check.non_negative("warmup", warmup)
    return warmup * _batch_ratio(base_batch_size, global_batch_size)


class Untuned(NamedTuple):
    """The untuned rule's values for one batch size.

    Attributes:
      learning_rate: peak rate.
      warmup: share of all steps (BERT) or epochs (ImageNet).
    """

    learning_rate: float
    warmup: float


def _from_batch_32768(rate: float, warmup: float, size: int) -> Untuned:
    sizes: dict[str, Any] = dict(base_batch_size=32768, global_batch_size=size)
    return Untuned(
        scale_learning_rate(rate, **sizes), scale_warmup(warmup, **sizes)
    )


def untuned_bert(global_batch_size: int) -> Untuned:
    r"""LAMB's rate and warmup share for BERT pretraining at any batch size.

    $$\eta = 5 \cdot 10^{-3} \sqrt{B / 32768},\qquad w = B / 163840$$

    that is, a warmup of 1/320 of all steps at 512, of 1/5 at 32,768.

    Args:
      global_batch_size: `B`, sequences a step.

    Returns:
      Peak rate, and warmup as a share of all steps (at most 1).

    References:
      You et al. 2020 (arXiv:1904.00962), appendix, untuned LAMB for BERT.
    """
    rate, share = _from_batch_32768(5e-3, 1 / 5, global_batch_size)
    return Untuned(rate, min(share, 1))


def untuned_imagenet(global_batch_size: int) -> Untuned:
    r"""LAMB's rate and warmup epochs for ResNet-50 at any batch size.

    $$\eta = 0.04 \sqrt{B / 32768},\qquad w = 20\, B / 32768$$

    Args:
      global_batch_size: `B`, images a step.

    Returns:
      Peak rate, and warmup in epochs (of the paper's 90).

    References:
      You et al. 2020 (arXiv:1904.00962), appendix, untuned LAMB for ImageNet.
    """
    return _from_batch_32768(0.04, 20.0, global_batch_size)


_NUMPY = SimpleNamespace(
    cast=np.asarray,
    maximum=np.maximum,
    minimum=np.minimum,
    where=np.where,
)


class WarmupPolynomial:
    """Linear warmup, a constant rate if asked for, then polynomial decay.

    `schedules.warmup_polynomial` has the equation. `tf_lamb.WarmupPolynomial`
    is a learning-rate schedule of the installed Keras;
    `tf_lamb.schedules.WarmupPolynomial` computes the same with NumPy.

    Args:
      learning_rate: peak rate `eta`, >= 0.
      total_steps: step at which the decay ends.
      warmup_steps: `w`, length of the warmup, at most `total_steps`.
      end_learning_rate: `eta_end`, rate from then on, >= 0, at most
        `learning_rate`; a rate, not a share of it.
      power: exponent of the decay, > 0.
      decay_from: "warmup_end" (continuous; the default) or "start" (as the
        published BERT and ALBERT code, with its drop at the warmup's end).
      name: name of the schedule.
      constant_steps: how long the rate stays at its peak after the warmup; the
        decay has the other steps. Not with `decay_from="start"`.

    Raises:
      ValueError: an argument outside its range.

    Example:
      >>> import tf_lamb
      >>> rate = tf_lamb.WarmupPolynomial(
      ...     0.01, total_steps=100, warmup_steps=10
      ... )
      >>> [round(float(rate(step)), 6) for step in (0, 5, 10, 55, 100)]
      [0.0, 0.005, 0.01, 0.005, 0.0]
    """

    _ops: Any = _NUMPY

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        warmup_steps: int = 0,
        end_learning_rate: float = 0.0,
        power: float = 1.0,
        decay_from: str = "warmup_end",
        name: str = "WarmupPolynomial",
        *,
        constant_steps: int = 0,
    ) -> None:
        super().__init__()
        self._arguments = check_warmup_polynomial(
            learning_rate=learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            end_learning_rate=end_learning_rate,
            power=power,
            decay_from=decay_from,
            constant_steps=constant_steps,
        )
        self.name = check.text("name", name)

    def __call__(self, step: Array) -> Array:
        """The rate at `step` (0-based scalar), float32."""
        step = self._ops.cast(step, "float32")
        return warmup_polynomial(self._ops, step, **self._arguments)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dict(self._arguments, name=self.name)


def _as_it_is(phase: Any) -> Any:
    return phase


class Rewarmup:
    r"""Schedules one after the other, each from its own step 0.

    $$\eta(s) = \eta_i(s - b_i),\qquad b_i = n_1 + \dots + n_{i-1},\quad
      b_i \le s < b_{i+1}$$

    `tf_lamb.Rewarmup` is a learning-rate schedule of the installed Keras;
    `tf_lamb.schedules.Rewarmup` computes the same with NumPy, and its config
    holds the phases themselves.

    Args:
      phases: `WarmupPolynomial` (or other) schedules `eta_i`.
      phase_steps: length `n_i` of each phase, whole numbers > 0.
      name: name of the schedule.

    Raises:
      ValueError: no phase, something that is no schedule, or not one length
        for each phase.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4, mixed-batch training.
    """

    _ops: Any = _NUMPY
    _serialize: Callable[[Any], Any] = staticmethod(_as_it_is)
    _deserialize: Callable[[Any], Any] = staticmethod(_as_it_is)

    def __init__(
        self,
        phases: Sequence[Schedule],
        phase_steps: Sequence[int],
        name: str = "Rewarmup",
    ) -> None:
        super().__init__()
        self.phases = check_phases(phases)
        lengths = as_list(phase_steps)
        if len(lengths) != len(self.phases):
            raise check.refuse(
                "phase_steps",
                phase_steps,
                f"one length for each of the {len(self.phases)} phases",
            )
        self.phase_steps = [check.count("phase_steps", n) for n in lengths]
        self.name = check.text("name", name)

    def __call__(self, step: Array) -> Array:
        """The rate at `step` (0-based scalar), float32."""
        step = self._ops.cast(step, "float32")
        return rewarmup(self._ops, step, self.phases, self.phase_steps)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, phases serialised."""
        return dict(
            phases=[self._serialize(p) for p in self.phases],
            phase_steps=self.phase_steps,
            name=self.name,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rewarmup:
        """The schedule that `get_config` describes."""
        phases = [cls._deserialize(p) for p in config["phases"]]
        return cls(**{**config, "phases": phases})
