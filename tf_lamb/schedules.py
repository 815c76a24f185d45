"""Learning rates for large batches: warmup, decay, batch scaling, re-warmup.

Pure functions; like the rules they take array functions first (`ops`:
`maximum`, `minimum`, `where`), so that one formula serves NumPy, Keras and
TensorFlow.
"""

from typing import Any, NamedTuple, Sequence

from tf_lamb import check

DECAY_FROM = ("warmup_end", "start")
SCALING_RULES = ("sqrt", "linear")


def warmup_polynomial(
    ops,
    step: Any,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    end_learning_rate: float = 0.0,
    power: float = 1.0,
    decay_from: str = "warmup_end",
):
    r"""Linear warmup, then polynomial decay.

    $$\eta(s) = \begin{cases}
      \eta\, s / w & s < w \\
      (\eta - \eta_{end}) (1 - p(s))^{power} + \eta_{end} & s \ge w
    \end{cases}$$

    with `p(s) = (s - w) / (T - w)` for `decay_from="warmup_end"` and
    `p(s) = s / T` for `"start"`, kept in [0, 1].

    `"warmup_end"` is the default: the rate is continuous and its peak is
    `learning_rate`. `"start"` is what the published BERT and ALBERT code does:
    its decay runs from step 0, so that at the end of the warmup the rate falls
    at once by the share `warmup_steps / total_steps` (power 1), 20% at the
    untuned rule's ratio 1/5. It is there to continue or compare with such runs.

    Args:
      ops: array functions.
      step: 0-based step `s`, floating scalar or array.
      learning_rate: peak rate `eta`, >= 0.
      total_steps: `T`, at which the decay ends.
      warmup_steps: `w`, 0 for none.
      end_learning_rate: rate from step `T` on, >= 0.
      power: exponent of the decay, > 0; 1 is linear, 2 is MLPerf's LARS recipe.
      decay_from: one of `DECAY_FROM`.

    Returns:
      The rate, of the shape of `step`.

    References:
      google-research/bert `optimization.py` (`"start"`); You et al. 2020
      (arXiv:1904.00962), section 4.
    """
    origin = warmup_steps if decay_from == "warmup_end" else 0
    progress = (step - origin) / max(total_steps - origin, 1)
    progress = ops.minimum(ops.maximum(progress, 0.0), 1.0)
    span = learning_rate - end_learning_rate
    decayed = span * (1.0 - progress) ** power + end_learning_rate
    if not warmup_steps:
        return decayed
    warmup = learning_rate * step / warmup_steps
    return ops.where(step < warmup_steps, warmup, decayed)


def check_warmup_polynomial(
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int,
    end_learning_rate: float,
    power: float,
    decay_from: str,
) -> None:
    """Raises ValueError, in one line, for arguments that make no sense."""
    check.non_negative("learning_rate", learning_rate)
    check.non_negative("end_learning_rate", end_learning_rate)
    check.positive("power", power)
    check.count("total_steps", total_steps)
    check.count("warmup_steps", warmup_steps, minimum=0)
    check.one_of("decay_from", decay_from, DECAY_FROM)
    if warmup_steps > total_steps:
        raise ValueError(
            f"warmup_steps: expected at most total_steps = {total_steps}, "
            f"got {warmup_steps}."
        )


def rewarmup(ops, step: Any, phases: Sequence, phase_steps: Sequence[int]):
    """Schedules one after the other, each started from its own step 0.

    Mixed-batch training: the second phase has another batch and sequence
    length, and warms up again from zero.

    Args:
      ops: array functions.
      step: 0-based step over all phases, floating scalar.
      phases: functions of a phase's own step.
      phase_steps: length of each phase; the last one goes on beyond its length.

    Returns:
      The rate.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4, mixed-batch training.
    """
    begin = sum(phase_steps[:-1])
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
    """The rate at another batch size: times `ratio ** .5`, or times `ratio`.

    Args:
      learning_rate: rate that suits `base_batch_size`.
      base_batch_size: examples a step for which the rate was chosen.
      global_batch_size: examples a step, over all replicas and accumulation.
      rule: "sqrt" (the LAMB paper) or "linear" (Goyal et al. 2017).

    Returns:
      The scaled rate.

    Raises:
      ValueError: a size is not a positive whole number; an unknown rule.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4; Goyal et al. 2017
      (arXiv:1706.02677), section 2.1.
    """
    check.non_negative("learning_rate", learning_rate)
    check.count("base_batch_size", base_batch_size)
    check.count("global_batch_size", global_batch_size)
    check.one_of("rule", rule, SCALING_RULES)
    ratio = global_batch_size / base_batch_size
    return learning_rate * (ratio**0.5 if rule == "sqrt" else ratio)


def scale_warmup(
    warmup: float, *, base_batch_size: int, global_batch_size: int
) -> float:
    """Warmup, in epochs or as a share of the run, grows with the batch size.

    Linear-epoch warmup: twice the batch, twice the epochs of warmup, and so
    the same number of warmup steps.

    Args:
      warmup: epochs, or share of all steps, that suit `base_batch_size`.
      base_batch_size: examples a step for which the warmup was chosen.
      global_batch_size: examples a step.

    Returns:
      The scaled warmup.

    Raises:
      ValueError: a size is not a positive whole number.

    References:
      You et al. 2020 (arXiv:1904.00962), section 4.
    """
    check.non_negative("warmup", warmup)
    check.count("base_batch_size", base_batch_size)
    check.count("global_batch_size", global_batch_size)
    return warmup * (global_batch_size / base_batch_size)


class Untuned(NamedTuple):
    """What the untuned rule gives for one batch size.

    Attributes:
      learning_rate: peak rate.
      warmup: share of all steps (BERT) or epochs (ImageNet).
    """

    learning_rate: float
    warmup: float


def untuned_bert(global_batch_size: int) -> Untuned:
    """LAMB's rate and warmup share for BERT pretraining at any batch size.

    `5e-3 * sqrt(batch / 32768)` and `batch / 163840`: 1/320 of all steps at
    512, 1/5 at 32,768.

    Args:
      global_batch_size: sequences a step.

    Returns:
      Peak rate, and warmup as a share of all steps (at most 1).

    References:
      You et al. 2020 (arXiv:1904.00962), appendix, untuned LAMB for BERT.
    """
    sizes = dict(base_batch_size=32768, global_batch_size=global_batch_size)
    return Untuned(
        scale_learning_rate(5e-3, **sizes), min(scale_warmup(1 / 5, **sizes), 1)
    )


def untuned_imagenet(global_batch_size: int) -> Untuned:
    """LAMB's rate and warmup epochs for ResNet-50 at any batch size.

    `.04 * sqrt(batch / 32768)` and `20 * batch / 32768` epochs.

    Args:
      global_batch_size: images a step.

    Returns:
      Peak rate, and warmup in epochs (of the paper's 90).

    References:
      You et al. 2020 (arXiv:1904.00962), appendix, untuned LAMB for ImageNet.
    """
    sizes = dict(base_batch_size=32768, global_batch_size=global_batch_size)
    return Untuned(
        scale_learning_rate(0.04, **sizes), scale_warmup(20.0, **sizes)
    )
