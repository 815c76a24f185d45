"""Which network, rates and epochs a run has where no flag says otherwise.

References:
    You et al. 2020 (arXiv:1904.00962): LAMB's untuned rule
    You, Gitman, Ginsburg 2017 (arXiv:1708.03888): LARS
    Goyal et al. 2017 (arXiv:1706.02677): SGD on ImageNet
    MLPerf Training, image classification: LARS on ImageNet
"""

import math

from absl import flags

from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.vision.resnet.model import NETWORKS
from tf_lamb import schedules

FLAGS = flags.FLAGS
NAMES = ("none", "untuned", "mlperf-lars")
# Up to this batch: rate, epochs of warmup.
_MLPERF = ((16383, 10.0, 5.0), (32767, 25.0, 5.0), (32768, 31.2, 25.0))
# The smallest and the largest batch of MLPerf's figures.
MLPERF_BATCHES = (256, _MLPERF[-1][0])

DATA = {
    "mnist": {
        "network": "resnet8_cifar",
        "width": 8,
        "epochs": 30.0,
        "global_batch_size": 128,
        "label_smoothing": 0.0,
    },
    "cifar10": {
        "network": "resnet20_cifar",
        "width": None,
        "epochs": 24.0,
        "global_batch_size": 128,
        "label_smoothing": 0.0,
    },
    "imagenet": {
        "network": "resnet50",
        "width": None,
        "epochs": 90.0,
        "global_batch_size": 512,
        "label_smoothing": 0.1,
    },
}
# Rates: the best of two or three tried on the digits, twelve epochs each.
_SMALL = {
    "lamb": {"learning_rate": 0.05, "weight_decay": 0.01},
    "lars": {"learning_rate": 5.0, "weight_decay": 1e-4},
    "sgd": {"learning_rate": 0.3, "l2": 1e-4},
    "adamw": {"learning_rate": 1e-2, "weight_decay": 0.01},
}
# At `global_batch_size` of `DATA`.
OPTIMIZERS = {
    "mnist": _SMALL,
    # Rates tuned at 128 for a smaller network (benchmarks/batch_scaling.md).
    "cifar10": {
        "lamb": {"learning_rate": 0.02, "weight_decay": 0.01},
        "lars": {"learning_rate": 8.0, "weight_decay": 5e-4},
        "sgd": {"learning_rate": 0.2, "l2": 5e-4},
        "adamw": {"learning_rate": 0.032, "weight_decay": 0.05},
    },
    "imagenet": {
        # The untuned rule at 512.
        "lamb": {
            "learning_rate": 0.005,
            "weight_decay": 0.01,
            "warmup_epochs": 0.3125,
        },
        "lars": {"learning_rate": 10.0, "weight_decay": 5e-5},
        # Goyal et al.: 0.1 for 256, linear in the batch.
        "sgd": {"learning_rate": 0.2, "l2": 1e-4},
        "adamw": {"learning_rate": 1e-3, "weight_decay": 0.05},
    },
}
_COMMON = {
    "warmup_epochs": 0.5,
    "weight_decay": 0.0,
    "l2": 0.0,
    "power": 1.0,
    "end_learning_rate": 0.0,
    "momentum": 0.9,
}


def define_flags() -> None:
    """Defines the flags that no other module does."""
    flags.DEFINE_enum(
        "recipe",
        "none",
        list(NAMES),
        "What decides rates, warmup and the like if no flag does.",
    )
    # It sets other flags, which are compared themselves.
    without_effect("recipe")
    flags.DEFINE_enum(
        "network", None, list(NETWORKS), "The network. Default: by --data."
    )
    flags.DEFINE_integer("width", None, "Channels of its first stage.", 1)
    flags.DEFINE_float("epochs", None, "Passes over the training images.")
    flags.DEFINE_integer("global_batch_size", None, "Images an update.", 1)
    flags.DEFINE_float(
        "label_smoothing", None, "Smoothing of the labels, in [0, 1)."
    )
    flags.DEFINE_float(
        "l2", None, "L2 penalty in the loss, for optimizers without decay."
    )


def apply() -> dict:
    """Sets the flags that were not given, as `choose` says.

    A warmup that was not given takes at most half of the epochs.

    Returns:
        {flag: value} of all that a recipe chooses, whoever chose it now, and
        "recipe" and "given", the names of those that the user gave.

    Raises:
        InputError: as `choose`; no epochs.
    """
    given = {
        name: FLAGS[name].value if FLAGS[name].present else None
        for name in ("optimizer", "global_batch_size")
    }
    chosen = choose(FLAGS.recipe, FLAGS.data, **given)
    if FLAGS["network"].present:
        chosen["width"] = None  # the network's own
    for name, value in chosen.items():
        FLAGS.set_default(name, value)
    if not 0 < FLAGS.epochs < math.inf:
        raise InputError(f"--epochs {FLAGS.epochs}: expected more than 0")
    longest = FLAGS.epochs / 2
    FLAGS.set_default("warmup_epochs", min(chosen["warmup_epochs"], longest))
    if FLAGS.optimizer in ("lamb", "adamw"):
        del chosen["momentum"]  # they do not read it
    return {
        "recipe": FLAGS.recipe,
        **{name: FLAGS[name].value for name in sorted(chosen)},
        "given": [name for name in sorted(chosen) if FLAGS[name].present],
    }


def show(settings: dict) -> str:
    """What `apply` returned, in a line or two."""

    def pairs(names):
        return ", ".join(
            f"{name} {settings[name]:g}"
            if isinstance(settings[name], float)
            else f"{name} {settings[name]}"
            for name in names
            if settings[name] is not None
        )

    given = settings["given"]
    rest = [n for n in settings if n not in (*given, "given", "recipe")]
    line = f"recipe {settings['recipe']}: {pairs(rest)}"
    return f"{line}; by flag: {pairs(given)}" if given else line


def choose(
    recipe: str,
    data: str,
    *,
    optimizer: str | None = None,
    global_batch_size: int | None = None,
) -> dict:
    """Values of flags.

    "none" takes what `DATA` and `OPTIMIZERS` have. "untuned" scales from there
    to the batch: rates by the root, warmup epochs by the ratio; for LAMB on
    ImageNet they are those of the paper. "mlperf-lars" has the rates, warmup,
    decay (of power 2, to 1e-4) and label smoothing (0.1) of MLPerf's LARS for
    ResNet-50; its momentum of 0.9 and weight decay of 5e-5 are chosen here.

    Args:
        recipe: one of `NAMES`.
        data: one of `DATA`.
        optimizer: as the user said; None for the recipe's.
        global_batch_size: as the user said; None for the data's.

    Returns:
        {flag: value}.

    Raises:
        InputError: the recipe has no figures for this optimizer or batch.
    """
    base = {**DATA[data], **_COMMON}
    optimizer = optimizer or ("lars" if recipe == "mlperf-lars" else "lamb")
    chosen = {**base, "optimizer": optimizer, **OPTIMIZERS[data][optimizer]}
    if global_batch_size is not None:
        chosen["global_batch_size"] = global_batch_size
    if recipe == "untuned":
        return _untuned(chosen, data, base["global_batch_size"])
    if recipe == "mlperf-lars":
        return _mlperf_lars(chosen)
    return chosen


def _untuned(chosen: dict, data: str, base_batch_size: int) -> dict:
    batch = chosen["global_batch_size"]
    if data == "imagenet" and chosen["optimizer"] == "lamb":
        rule = schedules.untuned_imagenet(batch)
        return {
            **chosen,
            "learning_rate": rule.learning_rate,
            "warmup_epochs": rule.warmup,
        }
    sizes = {"base_batch_size": base_batch_size, "global_batch_size": batch}
    return {
        **chosen,
        "learning_rate": schedules.scale_learning_rate(
            chosen["learning_rate"], rule="sqrt", **sizes
        ),
        "warmup_epochs": schedules.scale_warmup(
            chosen["warmup_epochs"], **sizes
        ),
    }


def _mlperf_lars(chosen: dict) -> dict:
    batch, optimizer = chosen["global_batch_size"], chosen["optimizer"]
    if optimizer != "lars":
        raise InputError(
            f"--optimizer {optimizer}: --recipe mlperf-lars is for lars"
        )
    smallest, largest = MLPERF_BATCHES
    if not smallest <= batch <= largest:
        raise InputError(
            f"--global_batch_size {batch}: --recipe mlperf-lars has figures "
            f"for {smallest} to {largest}"
        )
    _, rate, warmup = next(row for row in _MLPERF if batch <= row[0])
    return {
        **chosen,
        "learning_rate": rate,
        "warmup_epochs": warmup,
        "power": 2.0,
        "end_learning_rate": 1e-4,
        "label_smoothing": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-5,
    }
