"""The flags that choose an optimizer, and the optimizer they choose."""

import keras
from absl import flags

import tf_lamb
from official_models.common.errors import InputError

FLAGS = flags.FLAGS


def define_flags(
    *,
    learning_rate: float,
    warmup_ratio: float,
    weight_decay: float,
    exclusions: tuple[str, ...],
    global_clipnorm: float,
) -> None:
    """Defines the flags, with a script's own defaults."""
    flags.DEFINE_enum(
        "optimizer", "lamb", ["lamb", "lars", "adamw", "sgd"], "The optimizer."
    )
    flags.DEFINE_float("learning_rate", learning_rate, "Peak learning rate.")
    flags.DEFINE_float(
        "warmup_ratio", warmup_ratio, "Share of all steps that warm up."
    )
    flags.DEFINE_enum(
        "decay_from",
        "warmup_end",
        list(tf_lamb.schedules.DECAY_FROM),
        "Where the decay to 0 begins; 'start' is that of the published BERT.",
    )
    flags.DEFINE_float("power", 1.0, "Exponent of the decay; 1 is linear.")
    flags.DEFINE_float("beta_1", 0.9, "Decay of the first moment (momentum).")
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
        list(exclusions),
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


def from_flags(total_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of the flags, with its schedule over `total_steps`.

    Raises:
        InputError: a flag's value makes no sense.
    """
    try:
        return _make(total_steps)
    except (ValueError, TypeError) as error:
        raise InputError(f"--{error}") from error


def _make(total_steps: int) -> keras.optimizers.Optimizer:
    k = FLAGS.gradient_accumulation_steps
    # Keras schedules count micro-batches.
    rate = tf_lamb.WarmupPolynomial(
        FLAGS.learning_rate,
        total_steps * k,
        round(FLAGS.warmup_ratio * total_steps) * k,
        power=FLAGS.power,
        decay_from=FLAGS.decay_from,
    )
    common = {
        "weight_decay": FLAGS.weight_decay,
        "global_clipnorm": FLAGS.global_clipnorm or None,
        "gradient_accumulation_steps": k if k > 1 else None,
    }
    excluded = FLAGS.exclude_from_weight_decay
    adam = {
        "beta_1": FLAGS.beta_1,
        "beta_2": FLAGS.beta_2,
        "epsilon": FLAGS.epsilon,
    }
    if FLAGS.optimizer == "lamb":
        return tf_lamb.LAMB(
            rate,
            exclude_from_weight_decay=excluded,
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
            **common,
        )
    if FLAGS.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, **adam, **common)
    else:
        optimizer = keras.optimizers.SGD(rate, FLAGS.beta_1, **common)
    optimizer.exclude_from_weight_decay(var_names=excluded)
    return optimizer
