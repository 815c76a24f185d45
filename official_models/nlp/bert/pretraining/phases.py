"""Phases of a pretraining: short sequences first, long ones in smaller batches.

A phase has its own sequences, batch, peak rate and warmup. The second one
begins with the weights of the first, and with its moments or with none.

References:
    You et al. 2020 (arXiv:1904.00962), section 4, mixed-batch training.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from absl import flags

import tf_lamb
from official_models.common import optimizers
from official_models.common.checkpoint_list import saved_steps
from official_models.common.checkpoints import sync_state
from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.common.hours import Limit, Times
from official_models.common.schedules import by_update
from official_models.common.script import Training
from official_models.nlp.bert.pretraining.inputs import Shape
from tf_lamb import schedules

FLAGS = flags.FLAGS
_ACCUMULATOR = "gradient_accumulator"


class Phase(NamedTuple):
    """A part of a run.

    Attributes:
        begin: step of the run, from 0.
        end: step after the last.
        shape: of its sequences.
        global_batch_size: sequences of an update.
        micro_batches: parts of an update, one after the other in memory.
        replicas: devices that share each part.
        learning_rate: peak rate.
        warmup_steps: updates that warm up.
    """

    begin: int
    end: int
    shape: Shape
    global_batch_size: int
    micro_batches: int
    replicas: int
    learning_rate: float
    warmup_steps: int

    @property
    def steps(self) -> int:
        """Updates."""
        return self.end - self.begin

    @property
    def micro_batch_size(self) -> int:
        """Sequences that are in memory at once, over all replicas."""
        return self.global_batch_size // self.micro_batches

    def __str__(self) -> str:
        return (
            f"phase {self.shape.phase}: steps {self.begin + 1:,} to "
            f"{self.end:,}, {self.global_batch_size:,} sequences of "
            f"{self.shape.max_seq_length} tokens, {self.shape.max_predictions} "
            f"masked; rate {self.learning_rate:g}, {self.warmup_steps:,} steps "
            f"of warmup; {self.global_batch_size:,} = {self.micro_batches:,} "
            f"micro-batches x {self.replicas} devices x "
            f"{self.micro_batch_size // self.replicas}"
        )


def define_flags() -> None:
    """Defines the flags of a second phase and of what fits a device.

    Those of the first phase have to be there.
    """
    flags.DEFINE_integer(
        "per_device_batch_size",
        None,
        "Sequences that a device holds at once; sets the accumulation: "
        "global_batch_size / (devices x this). Phase 2: as many tokens.",
        1,
    )
    flags.DEFINE_integer(
        "phase2_steps",
        None,
        "How many of --steps, at the end, are of a second phase.",
        1,
    )
    flags.DEFINE_integer(
        "phase2_max_seq_length",
        None,
        "Tokens a sequence of phase 2. Default: 4 times --max_seq_length.",
        8,
    )
    flags.DEFINE_integer(
        "phase2_max_predictions_per_seq",
        None,
        "Masked tokens a sequence of phase 2. Default: as the length grows.",
        1,
    )
    flags.DEFINE_integer(
        "phase2_global_batch_size",
        None,
        "Sequences an update of phase 2. Default: half of phase 1's.",
        1,
    )
    _define_optimizer_flags()
    without_effect("per_device_batch_size")  # the accumulation has it


def _define_optimizer_flags() -> None:
    flags.DEFINE_integer(
        "phase2_gradient_accumulation_steps",
        None,
        "Micro-batches a step of phase 2. Default: as in phase 1.",
        1,
    )
    flags.DEFINE_float(
        "phase2_learning_rate",
        None,
        "Peak rate of phase 2. Default: phase 1's, times the square root of "
        "the ratio of the batches.",
    )
    flags.DEFINE_float(
        "phase2_warmup_ratio",
        None,
        "Share of phase 2 that warms up again from 0. Default: phase 1's.",
    )
    flags.DEFINE_enum(
        "phase2_moments",
        None,
        ["keep", "reset"],
        "Whether phase 2 begins with the optimizer's moments or with none. "
        "Default: keep.",
    )


def from_flags(training: Training) -> list[Phase]:
    """The phases of the flags, one or two.

    Flags of phase 2 that were left out get their defaults, so that the record
    of the run has their values.

    Args:
        training: says how many devices share a batch.

    Raises:
        InputError: a flag is out of range, or does not fit the others.
    """
    replicas = training.strategy.num_replicas_in_sync
    has_two = FLAGS.phase2_steps is not None
    if has_two:
        _check_boundary()
        _fill_in()
    else:
        _refuse_without_phase2()
    if FLAGS.per_device_batch_size:
        _accumulate(replicas, has_two)
    first = _make(training, 1, 0, FLAGS.steps - (FLAGS.phase2_steps or 0))
    if not has_two:
        return [first]
    return [first, _make(training, 2, first.end, FLAGS.steps)]


def _make(training: Training, number: int, begin: int, end: int) -> Phase:
    prefix = "" if number == 1 else "phase2_"

    def value(name):
        return FLAGS[prefix + name].value

    training.micro_batch_size(prefix)
    return Phase(
        begin,
        end,
        Shape(
            value("max_seq_length"), value("max_predictions_per_seq"), number
        ),
        value("global_batch_size"),
        value("gradient_accumulation_steps"),
        training.strategy.num_replicas_in_sync,
        value("learning_rate"),
        optimizers.whole_steps(f"{prefix}warmup_ratio", end - begin),
    )


def _check_boundary() -> None:
    if FLAGS.phase2_steps >= FLAGS.steps:
        raise InputError(
            f"--phase2_steps {FLAGS.phase2_steps}: expected fewer than the "
            f"{FLAGS.steps} --steps of both phases"
        )


def _refuse_without_phase2() -> None:
    for name in FLAGS:
        if name.startswith("phase2_") and FLAGS[name].value:
            raise InputError(f"--{name}: expected together with --phase2_steps")


def _fill_in() -> None:
    """Gives the flags of phase 2 that were left out their values."""
    length, batch = FLAGS.max_seq_length, FLAGS.global_batch_size
    _default("max_seq_length", 4 * length)
    grown = FLAGS.phase2_max_seq_length / length
    masked = max(round(FLAGS.max_predictions_per_seq * grown), 1)
    _default("max_predictions_per_seq", masked)
    _default("global_batch_size", max(batch // 2, 1))
    _default("learning_rate", _scaled_rate(batch))
    _default("warmup_ratio", FLAGS.warmup_ratio)
    _default("gradient_accumulation_steps", FLAGS.gradient_accumulation_steps)
    _default("moments", "keep")


def _scaled_rate(batch: int) -> float:
    try:
        return schedules.scale_learning_rate(
            FLAGS.learning_rate,
            base_batch_size=batch,
            global_batch_size=FLAGS.phase2_global_batch_size,
        )
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _default(name: str, value: Any) -> None:
    flag = FLAGS[f"phase2_{name}"]
    if flag.value is None:
        flag.value = value


def _accumulate(replicas: int, has_two: bool) -> None:
    """Sets the accumulation so that each device holds what it was given."""
    size = FLAGS.per_device_batch_size
    sizes = {"": size}
    if has_two:
        shrunk = size * FLAGS.max_seq_length // FLAGS.phase2_max_seq_length
        sizes["phase2_"] = max(shrunk, 1)
    for prefix, held in sizes.items():
        flag = FLAGS[f"{prefix}gradient_accumulation_steps"]
        if flag.present:
            raise InputError(
                f"--{flag.name}: expected without --per_device_batch_size, "
                "which sets it"
            )
        batch = FLAGS[f"{prefix}global_batch_size"].value
        if batch % (replicas * held):
            raise InputError(
                f"--per_device_batch_size {size}: expected --{prefix}global_"
                f"batch_size {batch} to be a multiple of {replicas} devices x "
                f"{held} sequences"
            )
        flag.value = batch // (replicas * held)


def is_complete(phase: Phase) -> bool:
    """Whether a later phase of the run has a checkpoint already."""
    folder = os.path.join(FLAGS.output_dir, "checkpoints")
    return max(saved_steps(folder), default=0) > phase.end


def optimizer(phases: list[Phase], index: int) -> keras.optimizers.Optimizer:
    """The optimizer of the flags in one of the phases.

    Args:
        phases: of the run.
        index: of the phase, from 0. If it keeps moments, its optimizer counts
            the updates of all phases, and its schedule is a `Rewarmup`. Under
            --hours its rate is a number, which `hours.Timing` sets.

    Raises:
        InputError: a flag's value is out of range.
    """
    k, upto = phases[index].micro_batches, phases[: index + 1]
    rates = [_schedule(phase) for phase in upto]
    rate = by_update(rates[-1], k)
    if FLAGS.hours:
        rate = phases[index].learning_rate
    elif index and FLAGS.phase2_moments == "keep":
        both = tf_lamb.Rewarmup(rates, [phase.steps for phase in upto])
        rate = by_update(both, k)
    return optimizers.from_flags(
        FLAGS.steps, rate=rate, gradient_accumulation_steps=k
    )


def _schedule(phase: Phase) -> Callable:
    """Of the phase's updates."""
    try:
        return optimizers.schedule(
            phase.learning_rate, phase.steps, phase.warmup_steps
        )
    except InputError as error:
        prefix = "--phase2_" if phase.shape.phase == 2 else "--"
        raise InputError(str(error).replace("--", prefix, 1)) from error


def place(phase: Phase, index: int, times: Times, begin: int) -> Phase:
    """Where a phase of a run of --hours is.

    Args:
        phase: as the flags have it.
        index: of it, from 0.
        times: of the run, which know where the phase ended if it did.
        begin: the step after which the phase before it ended.
    """
    end = times.end(index)
    return phase._replace(
        begin=begin, end=begin + phase.steps if end is None else end
    )


def limit(phases: list[Phase], index: int, times: Times) -> Limit:
    """When a phase of --hours has to end: time is shared as tokens are.

    Args:
        phases: as the flags have them.
        index: of the phase, from 0.
        times: of the run.
    """
    tokens = [
        phase.steps * phase.global_batch_size * phase.shape.max_seq_length
        for phase in phases
    ]
    share = sum(tokens[: index + 1]) / sum(tokens)
    phase = phases[index]
    return Limit(
        _schedule(phase), phase.steps, share * times.seconds, times, index
    )


def hand_over(
    before: keras.Model, after: keras.Model, phases: tuple[Phase, Phase]
) -> None:
    """Begins a phase with the weights and the moments of the one before.

    Args:
        before: model at the end of the first of `phases`.
        after: the same model, built and compiled for the second one.
        phases: both; an optimizer counts micro-batches, of which their updates
            may have different numbers.
    """
    sync_state(before)
    for old, new in zip(before.variables, after.variables, strict=True):
        new.assign(keras.ops.convert_to_numpy(old))
    if FLAGS.phase2_moments == "reset":
        return
    k_before, k_after = (phase.micro_batches for phase in phases)
    states = (_state(model.optimizer) for model in (before, after))
    for old, new in zip(*states, strict=True):
        value = keras.ops.convert_to_numpy(old)
        if old.path.endswith("/iteration"):
            value = value // k_before * k_after
        new.assign(value)


def _state(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Its variables but the accumulators, which are 0 after an update."""
    return [v for v in optimizer.variables if not v.path.endswith(_ACCUMULATOR)]
