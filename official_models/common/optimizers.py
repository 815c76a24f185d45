"""The flags that choose an optimizer, and the optimizer they choose."""

from collections.abc import Callable, Sequence

import keras
from absl import flags

import tf_lamb
from official_models.common.errors import InputError
from official_models.common.schedules import by_update
from tf_lamb import (
    arguments,
    arithmetic,
    check,
    exclusion,
    hyperparameters,
    schedule_checks,
)

FLAGS = flags.FLAGS
# Flags that only some optimizers read; with another one they are refused.
_READ_BY = {
    "beta_1": ("lamb", "adamw"),
    "beta_2": ("lamb", "adamw", "rmsprop"),
    "epsilon": ("lamb", "adamw", "rmsprop"),
    "momentum": ("lars", "sgd"),
    "nesterov": ("lamb", "lars", "sgd"),
    "norm": ("lamb", "lars"),
    "moment_dtype": ("lamb", "lars"),
    "form": ("lamb", "lars"),
    "cautious": ("lamb",),
    "clip_by_unit": ("lamb", "lars"),
    "trust_coefficient": ("lars",),
}


def define_flags(
    *,
    learning_rate: float,
    warmup_ratio: float | None = None,
    warmup_epochs: float | None = None,
    weight_decay: float,
    exclusions: tuple[str, ...] | None,
    global_clipnorm: float,
    more: tuple[str, ...] = (),
) -> None:
    """Defines the flags, with a script's own defaults.

    Args:
        learning_rate: peak rate.
        warmup_ratio: share of all steps that warm up; or
        warmup_epochs: epochs that do. The one that is given is the flag.
        weight_decay: of the variables that no exclusion matches.
        exclusions: regexes; None if the script sets them later.
        global_clipnorm: 0 for no clipping.
        more: optimizers beside the four: rmsprop, whose decay is --beta_2.
    """
    names = ["lamb", "lars", "adamw", "sgd", *more]
    flags.DEFINE_enum("optimizer", "lamb", names, "The optimizer.")
    flags.DEFINE_float("learning_rate", learning_rate, "Peak learning rate.")
    _define_schedule_flags(warmup_ratio, warmup_epochs)
    _define_rule_flags()
    flags.DEFINE_float("weight_decay", weight_decay, "Weight decay.")
    flags.DEFINE_list(
        "exclude_from_weight_decay",
        None if exclusions is None else list(exclusions),
        "Regexes on variable paths, each of which has to match one: no decay, "
        "and (LAMB, LARS) no adaptation. Or biases_and_norms: by kind, "
        "whatever they are called.",
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


def _define_schedule_flags(
    warmup_ratio: float | None, warmup_epochs: float | None
) -> None:
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
        list(schedule_checks.DECAY_FROM),
        "Where the decay begins; 'start' is that of the published BERT.",
    )
    flags.DEFINE_float("power", 1.0, "Exponent of the decay; 1 is linear.")
    flags.DEFINE_float("end_learning_rate", 0.0, "Rate after the last step.")


def _define_rule_flags() -> None:
    flags.DEFINE_float(
        "beta_1", 0.9, "Decay of the first moment (LAMB, AdamW)."
    )
    flags.DEFINE_float(
        "beta_2", 0.999, "Decay of the second moment (LAMB, AdamW)."
    )
    flags.DEFINE_float(
        "epsilon", 1e-6, "Added to the root of the second moment (LAMB, AdamW)."
    )
    flags.DEFINE_float("momentum", 0.9, "Momentum of LARS and SGD.")
    flags.DEFINE_boolean(
        "nesterov", False, "Nesterov momentum (LAMB: of the first moment)."
    )
    flags.DEFINE_string(
        "norm",
        "l2",
        f"Norm in the trust ratio (LAMB, LARS): {', '.join(arithmetic.NORMS)}.",
    )
    flags.DEFINE_string(
        "form",
        None,
        "Form of LAMB or LARS, by default paper and you2017. LAMB's: "
        f"{', '.join(hyperparameters.LAMB_FORMS)}; with the form's own "
        "epsilon, where --epsilon is absent, and the decay and the clipping of "
        f"the flags. LARS': {', '.join(hyperparameters.LARS_FORMS)}.",
    )
    flags.DEFINE_boolean(
        "cautious",
        False,
        "Only elements whose direction has the gradient's sign move (LAMB).",
    )
    flags.DEFINE_float(
        "clip_by_unit",
        0.0,
        "Limit of each unit's gradient, as a share of the norm of its weights "
        "(LAMB, LARS); 0: none.",
    )
    flags.DEFINE_float(
        "trust_coefficient", 0.001, "Factor of LARS' trust ratio."
    )
    flags.DEFINE_enum(
        "moment_dtype",
        "float32",
        ["float32", "bfloat16"],
        "Dtype in which LAMB and LARS store their moments.",
    )


def from_flags(
    total_steps: int,
    steps_per_epoch: float | None = None,
    groups: Sequence[tf_lamb.Group] = (),
    *,
    rate: Callable | float | None = None,
    gradient_accumulation_steps: int | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer of the flags, with its schedule over `total_steps`.

    Args:
        total_steps: updates of the run.
        steps_per_epoch: updates of an epoch, for --warmup_epochs.
        groups: other settings for some variables (LAMB, LARS).
        rate: in place of the flags': a schedule, counted in micro-batches, or
            a number, which `hours.Timing` sets.
        gradient_accumulation_steps: in place of the flag.

    Raises:
        InputError: a flag's value is out of range, or the optimizer does not
            read a flag that was changed.
        ValueError: there are groups for Keras' own optimizer.
    """
    if groups and FLAGS.optimizer not in ("lamb", "lars"):
        raise ValueError(f"groups: for LAMB or LARS, not {FLAGS.optimizer}")
    for name, readers in _READ_BY.items():
        flag = FLAGS[name]
        offered = FLAGS["optimizer"].parser.enum_values
        readers = [x for x in readers if x in offered]
        if flag.value != flag.default and FLAGS.optimizer not in readers:
            raise InputError(
                f"--{name}: for --optimizer {' or '.join(readers)}, not "
                f"{FLAGS.optimizer}"
            )
    k = gradient_accumulation_steps or FLAGS.gradient_accumulation_steps
    if rate is None:
        rate = schedule_of_flags(total_steps, steps_per_epoch, k)
        if "hours" in FLAGS and FLAGS.hours:
            rate = FLAGS.learning_rate
    try:
        return _make(rate, k, groups)
    except (ValueError, TypeError) as error:
        raise InputError(f"--{error}") from error


def schedule_of_flags(
    total_steps: int, steps_per_epoch: float | None = None, k: int = 1
) -> Callable:
    """The schedule of the flags over a run.

    Args:
        total_steps: updates of the run.
        steps_per_epoch: updates of an epoch, for --warmup_epochs.
        k: micro-batches of an update, which the schedule is called with.

    Raises:
        InputError: a flag's value is out of range.
    """
    warmup_steps = _warmup_steps(total_steps, steps_per_epoch)
    return schedule(FLAGS.learning_rate, total_steps, warmup_steps, k)


def schedule(
    learning_rate: float, steps: int, warmup_steps: int, micro_batches: int = 1
) -> Callable:
    """Warmup and decay in the form of the flags.

    Args:
        learning_rate: peak rate.
        steps: updates until the decay ends.
        warmup_steps: updates of the warmup.
        micro_batches: k of an update; the schedule is called with their
            number, and its rate changes from update to update (`schedules`).

    Raises:
        InputError: a value is out of range.
    """
    try:
        rate = tf_lamb.WarmupPolynomial(
            learning_rate,
            steps,
            warmup_steps,
            FLAGS.end_learning_rate,
            power=FLAGS.power,
            decay_from=FLAGS.decay_from,
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"--{error}") from error
    return by_update(rate, micro_batches)


def _warmup_steps(total_steps: int, steps_per_epoch: float | None) -> int:
    if "warmup_epochs" not in FLAGS:
        return whole_steps("warmup_ratio", total_steps)
    warmup_steps = whole_steps("warmup_epochs", steps_per_epoch)
    if warmup_steps > total_steps:
        raise InputError(
            f"--warmup_epochs {FLAGS.warmup_epochs:g}: {warmup_steps} "
            f"steps, expected at most the {total_steps} of the run"
        )
    return warmup_steps


def whole_steps(name: str, unit: float) -> int:
    """A length that a flag gives in units of so many steps, rounded.

    Args:
        name: of the flag.
        unit: steps.

    Raises:
        InputError: the flag is below 0, or not finite.
    """
    try:
        return round(check.non_negative(name, FLAGS[name].value) * unit)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _make(
    rate: Callable | float, k: int, groups: Sequence[tf_lamb.Group]
) -> keras.optimizers.Optimizer:
    common = {
        "weight_decay": FLAGS.weight_decay,
        "global_clipnorm": FLAGS.global_clipnorm or None,
        "gradient_accumulation_steps": k if k > 1 else None,
    }
    if FLAGS.optimizer in ("lamb", "lars"):
        return _layer_adaptive(rate, common, groups)
    return _stock(rate, common)


def _layer_adaptive(rate, common: dict, groups) -> keras.optimizers.Optimizer:
    common = {
        **common,
        "exclude_from_weight_decay": _patterns(),
        "unmatched": "raise",
        "norm": FLAGS.norm,
        "moment_dtype": FLAGS.moment_dtype,
        "clip_by_unit": FLAGS.clip_by_unit or None,
        "groups": list(groups) or None,
    }
    if FLAGS.optimizer == "lamb":
        adam = _adam()
        if FLAGS.form and FLAGS["epsilon"].using_default_value:
            adam["epsilon"] = None
        return tf_lamb.LAMB(
            rate,
            form=FLAGS.form or "paper",
            nesterov="nadam" if FLAGS.nesterov else None,
            cautious=FLAGS.cautious,
            **adam,
            **common,
        )
    return tf_lamb.LARS(
        rate,
        FLAGS.momentum,
        form=FLAGS.form or "you2017",
        trust_coefficient=FLAGS.trust_coefficient,
        nesterov=FLAGS.nesterov,
        **common,
    )


def _patterns() -> list[str] | str | None:
    """The exclusions as `tf_lamb.LAMB` takes them: a preset is no list."""
    given = FLAGS.exclude_from_weight_decay
    preset = exclusion.BIASES_AND_NORMS
    return preset if given == [preset] else given


def _stock(rate, common: dict) -> keras.optimizers.Optimizer:
    # Keras' own take any number, such as a beta_1 of 5.
    weight_decay = check.non_negative("weight_decay", FLAGS.weight_decay)
    common = {**common, "weight_decay": weight_decay}
    if FLAGS.optimizer == "adamw":
        checks = arguments.CHECKS[hyperparameters.Lamb]
        values = arguments.check_all(checks, **_adam(), **common)
        optimizer = keras.optimizers.AdamW(rate, **values)
    elif FLAGS.optimizer == "rmsprop":
        checks = arguments.CHECKS[hyperparameters.Lamb]
        adam = {k: v for k, v in _adam().items() if k != "beta_1"}
        values = arguments.check_all(checks, **adam, **common)
        rho = values.pop("beta_2")
        optimizer = keras.optimizers.RMSprop(rate, rho, **values)
    else:
        checks = arguments.CHECKS[hyperparameters.Lars]
        names = {"momentum": FLAGS.momentum, "nesterov": FLAGS.nesterov}
        values = arguments.check_all(checks, **names, **common)
        optimizer = keras.optimizers.SGD(rate, **values)
    exclusion.check_patterns("exclude_from_weight_decay", _patterns())
    return optimizer


def build(optimizer: keras.optimizers.Optimizer, variables) -> None:
    """Builds an optimizer of `from_flags`, its exclusions resolved.

    Keras' own optimizers search patterns in a variable's own name, `gamma`, in
    which "LayerNorm" is never found. Here they are searched in the full path,
    for every optimizer.

    Args:
        optimizer: what `from_flags` returned.
        variables: all that it will update.

    Raises:
        InputError: a pattern matches no variable.
    """
    try:
        if FLAGS.optimizer not in ("lamb", "lars"):
            treatments = exclusion.resolve(
                [v.path for v in variables],
                _patterns(),
                None,
                [v.shape for v in variables],
                "raise",
            )
            excluded = [v for v, t in zip(variables, treatments) if not t.decay]
            optimizer.exclude_from_weight_decay(var_list=excluded)
        optimizer.build(variables)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def scaled(
    optimizer: keras.optimizers.Optimizer,
) -> keras.optimizers.Optimizer:
    """The optimizer, in a loss scaler if --dtype is mixed_float16.

    Gradients that float16 would round to 0 are those of a loss that is
    multiplied. `compile` does the same by itself, but a model that it is saved
    with would be loaded without the scaler.

    Args:
        optimizer: built.
    """
    if FLAGS.dtype != "mixed_float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def _adam() -> dict[str, float | None]:
    names = ("beta_1", "beta_2", "epsilon")
    return {name: FLAGS[name].value for name in names}
