"""The rates of encoder and decoder: schedules, groups, or two optimizers."""

from __future__ import annotations

import keras
from absl import flags

import tf_lamb
from official_models.common import flags as run_flags
from official_models.common import optimizers
from official_models.common.errors import InputError
from official_models.common.layer import registration
from official_models.common.schedules import by_update
from tf_lamb import check

FLAGS = flags.FLAGS
register = registration("tf_lamb_models.summarization")
ENCODER = "^bert/"
SEPARATE = ("groups", "multi_optimizer", "none")
_NOT_NOAM = ("warmup_ratio", "decay_from", "power", "end_learning_rate")


@register
class Noam(keras.optimizers.schedules.LearningRateSchedule):
    r"""lr(t) = base min(t^-0.5, t w^-1.5), with t = step + 1.

    It rises linearly for w steps to base / sqrt(w), and falls as 1 / sqrt(t).

    Args:
        base: The factor, >= 0.
        warmup_steps: w, 1 or more.

    References:
        https://arxiv.org/abs/1706.03762, equation 3;
        Liu, Lapata 2019 (arXiv:1908.08345), equations 6 and 7
    """

    def __init__(self, base: float, warmup_steps: int):
        self.base = check.non_negative("base", base)
        self.warmup_steps = check.count("warmup_steps", warmup_steps)

    @classmethod
    def of_peak(cls, peak: float, warmup_steps: int) -> Noam:
        """The one whose highest rate is `peak`, at step `warmup_steps`."""
        return cls(peak * warmup_steps**0.5, warmup_steps)

    def __call__(self, step):
        t = keras.ops.cast(step, "float32") + 1.0
        rising = t * self.warmup_steps**-1.5
        return self.base * keras.ops.minimum(keras.ops.rsqrt(t), rising)

    def get_config(self) -> dict:
        return {"base": self.base, "warmup_steps": self.warmup_steps}


@register
class TwoOptimizers(keras.optimizers.MultiOptimizer):
    """Keras' MultiOptimizer, whose `learning_rate` is the decoder's.

    (Keras' own raises at it, so that no log could show a rate.) Each part
    clips and skips by its own gradients.

    Args:
        encoder: Of the variables whose path `ENCODER` matches.
        decoder: Of the others.

    Attributes:
        parts: Both.
    """

    def __init__(self, encoder, decoder):
        super().__init__(
            lambda v: encoder if v.path.startswith(ENCODER[1:]) else decoder
        )
        self.parts = (encoder, decoder)

    @property
    def learning_rate(self):
        return self.parts[1].learning_rate

    def get_config(self) -> dict:
        names = ("encoder", "decoder")
        serialize = keras.saving.serialize_keras_object
        return dict(zip(names, map(serialize, self.parts), strict=True))

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{name: deserialize(x) for name, x in config.items()})


def define_flags() -> None:
    """Defines the flags, beside those of `optimizers`."""
    flags.DEFINE_enum(
        "schedule",
        "noam",
        ["noam", "polynomial"],
        "noam: linear warmup, then 1 / sqrt(step), as the paper; polynomial: "
        "by --warmup_ratio, --power and --end_learning_rate.",
    )
    flags.DEFINE_integer(
        "warmup_steps",
        None,
        "Steps until --learning_rate (noam). Default: a tenth of --steps.",
        1,
    )
    flags.DEFINE_float(
        "encoder_learning_rate",
        None,
        "Peak rate of the encoder. Default: a tenth of --learning_rate.",
    )
    flags.DEFINE_integer(
        "encoder_warmup_steps",
        None,
        "Steps until --encoder_learning_rate (noam). Default: twice "
        "--warmup_steps, as in the paper.",
        1,
    )
    flags.DEFINE_enum(
        "separate",
        "groups",
        SEPARATE,
        "groups: the encoder is a group of one LAMB or LARS, with one clipping "
        "and one skip; multi_optimizer: Keras' MultiOptimizer of two; none: "
        "one rate for all.",
    )


def from_flags(
    steps: int, micro_batches: int, one_rate: bool = False
) -> keras.optimizers.Optimizer:
    """The optimizer of the flags.

    Args:
        steps: Updates of the run.
        micro_batches: Of an update; rates change from update to update.
        one_rate: Whether there is no encoder with a rate of its own, whatever
            --separate is.

    Raises:
        InputError: A flag is out of range, or has no effect.
    """
    alone = one_rate or FLAGS.separate == "none"
    rate, encoder_rate = _rates(steps, micro_batches, alone)
    make = optimizers.from_flags
    if encoder_rate is None:
        return make(steps, rate=rate)
    if FLAGS.separate == "multi_optimizer":
        if micro_batches > 1:
            raise InputError(
                "--gradient_accumulation_steps: not with --separate "
                "multi_optimizer, whose parts would count steps by themselves"
            )
        return TwoOptimizers(
            make(steps, rate=encoder_rate), make(steps, rate=rate)
        )
    if FLAGS.optimizer not in ("lamb", "lars"):
        raise InputError(
            f"--separate groups: for --optimizer lamb or lars, not "
            f"{FLAGS.optimizer}; give --separate multi_optimizer, or none"
        )
    group = tf_lamb.Group(ENCODER, learning_rate=encoder_rate)
    return make(steps, groups=[group], rate=rate)


def _rates(steps: int, micro_batches: int, alone: bool):
    """Schedules of the decoder and of the encoder; None: the same."""
    given = [
        name
        for name in ("encoder_learning_rate", "encoder_warmup_steps")
        if FLAGS[name].value is not None
    ]
    if alone and given:
        raise InputError(f"--{given[0]}: not with --separate none")
    if FLAGS.schedule == "noam":
        _refuse(_NOT_NOAM, "--schedule polynomial")
    else:
        _refuse(("warmup_steps", "encoder_warmup_steps"), "--schedule noam")
    peak = FLAGS.learning_rate
    encoder_peak = FLAGS.encoder_learning_rate
    if encoder_peak is None:
        encoder_peak = peak * 0.1
    warmup = FLAGS.warmup_steps or max(steps // 10, 1)
    encoder_warmup = FLAGS.encoder_warmup_steps or 2 * warmup
    rate = _schedule(peak, steps, warmup, micro_batches, "learning_rate")
    if alone:
        return rate, None
    return rate, _schedule(
        *(encoder_peak, steps, encoder_warmup, micro_batches),
        "encoder_learning_rate",
    )


def _schedule(peak, steps: int, warmup: int, k: int, name: str):
    with run_flags.naming_the_flag():
        peak = check.non_negative(name, peak)
    if FLAGS.schedule == "noam":
        return by_update(Noam.of_peak(peak, warmup), k)
    warmup = optimizers.whole_steps("warmup_ratio", steps)
    return optimizers.schedule(peak, steps, warmup, k)


def _refuse(names: tuple[str, ...], only: str) -> None:
    for name in names:
        if FLAGS[name].value != FLAGS[name].default:
            raise InputError(f"--{name}: only for {only}")


def build(optimizer: keras.optimizers.Optimizer, variables) -> None:
    """Builds it, each part by its variables, exclusions resolved.

    Raises:
        InputError: A pattern of --exclude_from_weight_decay matches nothing.
    """
    if not isinstance(optimizer, TwoOptimizers):
        optimizers.build(optimizer, variables)
        return
    for part, inside in zip(optimizer.parts, (True, False), strict=True):
        own = [v for v in variables if v.path.startswith(ENCODER[1:]) == inside]
        optimizers.build(part, own)
    optimizer.build(variables)
