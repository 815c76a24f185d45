"""The flags that choose an optimizer, and the optimizer they choose."""

import math

import keras
from absl import flags

import tf_lamb
from official_models.common.errors import InputError

FLAGS = flags.FLAGS


def define_flags(
    *,
    learning_rate: float,
    warmup_ratio: float | None = None,
    warmup_epochs: float | None = None,
    weight_decay: float,
    exclusions: tuple[str, ...] | None,
    global_clipnorm: float,
) -> None:
    """Defines the flags, with a script's own defaults.

    Args:
        learning_rate: peak rate.
        warmup_ratio: share of all steps that warm up; or
        warmup_epochs: epochs that do. The one that is given is the flag.
        weight_decay: of the variables that no exclusion matches.
        exclusions: regexes; None where the script sets them later.
        global_clipnorm: 0 for no clipping.
    """
    flags.DEFINE_enum(
        "optimizer", "lamb", ["lamb", "lars", "adamw", "sgd"], "The optimizer."
    )
    flags.DEFINE_float("learning_rate", learning_rate, "Peak learning rate.")
    if warmup_epochs is None:
        flags.DEFINE_float(
            "warmup_ratio", warmup_ratio, "Share of all steps that warm up."
        )
    else:
        flags.DEFINE_float(
            "warmup_epochs", warmup_epochs, "Epochs that warm up."
        )
    flags.DEFINE_enum(
        "decay_from",
        "warmup_end",
        list(tf_lamb.schedules.DECAY_FROM),
        "Where the decay to 0 begins; 'start' is that of the published BERT.",
    )
    flags.DEFINE_float("power", 1.0, "Exponent of the decay; 1 is linear.")
    flags.DEFINE_float("end_learning_rate", 0.0, "Rate after the last step.")
    flags.DEFINE_float("beta_1", 0.9, "Decay of the first moment (momentum).")
    flags.DEFINE_boolean(
        "nesterov", False, "Nesterov momentum (LAMB: of the first moment)."
    )
    flags.DEFINE_float("beta_2", 0.999, "Decay of the second moment.")
    flags.DEFINE_float("epsilon", 1e-6, "Added to the root (LAMB, AdamW).")
    flags.DEFINE_float("weight_decay", weight_decay, "Weight decay.")
    flags.DEFINE_string("norm", "l2", "Of layers (LAMB, LARS): l2, l1, linf.")
    flags.DEFINE_string(
        "form", "you2017", f"Of LARS: {', '.join(tf_lamb.rules.LARS_FORMS)}."
    )
    flags.DEFINE_float("trust_coefficient", 0.001, "Of LARS.")
    flags.DEFINE_enum(
        "moment_dtype",
        "float32",
        ["float32", "bfloat16"],
        "How LAMB and LARS store their moments.",
    )
    flags.DEFINE_list(
        "exclude_from_weight_decay",
        None if exclusions is None else list(exclusions),
        "Regexes on variable paths: no decay, and (LAMB, LARS) no adaptation.",
    )
    flags.DEFINE_float(
        "global_clipnorm",
        global_clipnorm,
        "Largest global norm of the gradients; 0 for no clipping.",
    )
    flags.DEFINE_integer(
        "gradient_accumulation_steps",
        1,
        "Micro-batches a step: a step's batch is global_batch_size, held in "
        "memory in this many parts.",
        lower_bound=1,
    )


def from_flags(
    total_steps: int, steps_per_epoch: float | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of the flags, with its schedule over `total_steps`.

    Args:
        total_steps: updates of the run.
        steps_per_epoch: updates of an epoch, for --warmup_epochs.

    Raises:
        InputError: a flag's value makes no sense.
    """
    if "warmup_epochs" in FLAGS:
        warmup_steps = _whole_steps(FLAGS.warmup_epochs * steps_per_epoch)
        if warmup_steps > total_steps:
            raise InputError(
                f"--warmup_epochs {FLAGS.warmup_epochs:g}: {warmup_steps} "
                f"steps, expected at most the {total_steps} of the run"
            )
    else:
        warmup_steps = _whole_steps(FLAGS.warmup_ratio * total_steps)
    try:
        return _make(total_steps, warmup_steps)
    except (ValueError, TypeError) as error:
        raise InputError(f"--{error}") from error


def _whole_steps(steps: float) -> int:
    if not math.isfinite(steps):
        raise InputError(
            f"warmup of {steps} steps: expected a finite number of them"
        )
    return round(steps)


def _make(total_steps: int, warmup_steps: int) -> keras.optimizers.Optimizer:
    k = FLAGS.gradient_accumulation_steps
    # Keras schedules count micro-batches.
    rate = tf_lamb.WarmupPolynomial(
        FLAGS.learning_rate,
        total_steps * k,
        warmup_steps * k,
        FLAGS.end_learning_rate,
        power=FLAGS.power,
        decay_from=FLAGS.decay_from,
    )
    common = {
        "weight_decay": FLAGS.weight_decay,
        "global_clipnorm": FLAGS.global_clipnorm or None,
        "gradient_accumulation_steps": k if k > 1 else None,
    }
    excluded = FLAGS.exclude_from_weight_decay
    if FLAGS.nesterov and FLAGS.optimizer == "adamw":
        raise ValueError("nesterov: AdamW has none; expected another optimizer")
    adam = {
        "beta_1": FLAGS.beta_1,
        "beta_2": FLAGS.beta_2,
        "epsilon": FLAGS.epsilon,
    }
    if FLAGS.optimizer == "lamb":
        return tf_lamb.LAMB(
            rate,
            exclude_from_weight_decay=excluded,
            nesterov="nadam" if FLAGS.nesterov else None,
            norm=FLAGS.norm,
            moment_dtype=FLAGS.moment_dtype,
            **adam,
            **common,
        )
    if FLAGS.optimizer == "lars":
        return tf_lamb.LARS(
            rate,
            FLAGS.beta_1,
            exclude_from_weight_decay=excluded,
            norm=FLAGS.norm,
            moment_dtype=FLAGS.moment_dtype,
            form=FLAGS.form,
            trust_coefficient=FLAGS.trust_coefficient,
            nesterov=FLAGS.nesterov,
            **common,
        )
    if FLAGS.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, **adam, **common)
    else:
        optimizer = keras.optimizers.SGD(
            rate, FLAGS.beta_1, FLAGS.nesterov, **common
        )
    optimizer.exclude_from_weight_decay(var_names=excluded)
    return optimizer
