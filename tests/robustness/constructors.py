"""What takes arguments: optimizers, schedules, groups, and their configs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tf_lamb
from tests.robustness.outcomes import Silent


class Constructor(NamedTuple):
    """A class of the package.

    Attributes:
        make: takes the arguments.
        arguments: good ones.
        check: raises `Silent` of an object that cannot be right.
    """

    make: Callable[..., Any]
    arguments: dict[str, Any]
    check: Callable[[Any], None]


def _check_config(made: Any) -> None:
    for name, value in made.get_config().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Silent(f"{name} = {value}")
    type(made).from_config(made.get_config())


def _check_schedule(made: Any) -> None:
    rates = [float(made(step)) for step in (0, 3, 10, 10**6)]
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise Silent(f"rates {rates}")


def _check_group(made: Any) -> None:
    hash(made)


SHARED = {
    "learning_rate": 0.1,
    "weight_decay": 0.01,
    "exclude_from_weight_decay": ["bias"],
    "exclude_from_layer_adaptation": None,
    "norm": "l2",
    "phi_bounds": None,
    "trust_ratio_bounds": (0.0, 10.0),
    "clipnorm": None,
    "global_clipnorm": 1.0,
    "use_ema": False,
    "ema_momentum": 0.99,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": 2,
    "skip_nonfinite": True,
    "moment_dtype": "float32",
    "unmatched": "warn",
    "groups": None,
}
SCHEDULE = {
    "learning_rate": 0.1,
    "total_steps": 10,
    "warmup_steps": 2,
    "end_learning_rate": 0.0,
    "power": 1.0,
    "decay_from": "start",
    "constant_steps": 0,
}
CONSTRUCTORS = {
    "LAMB": Constructor(
        tf_lamb.LAMB,
        {
            **SHARED,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-6,
            "bias_correction": True,
            "nesterov": None,
            "form": "paper",
            "cautious": False,
            "grad_averaging": True,
        },
        _check_config,
    ),
    "LARS": Constructor(
        tf_lamb.LARS,
        {
            **SHARED,
            "momentum": 0.9,
            "trust_coefficient": 0.001,
            "form": "you2017",
            "nesterov": False,
        },
        _check_config,
    ),
    "WarmupPolynomial": Constructor(
        tf_lamb.WarmupPolynomial, SCHEDULE, _check_schedule
    ),
    "Rewarmup": Constructor(
        lambda **phase: tf_lamb.Rewarmup(
            [tf_lamb.WarmupPolynomial(**SCHEDULE)] * 2, [phase["steps"], 10]
        ),
        {"steps": 10},
        _check_schedule,
    ),
    "Group": Constructor(
        tf_lamb.Group,
        {
            "pattern": "head",
            "learning_rate_multiplier": 2.0,
            "weight_decay": 0.1,
            "adapt": True,
            "frozen": False,
            "trust_ratio_per": "layer",
        },
        _check_group,
    ),
    "LAMB.from_config": Constructor(
        lambda **config: tf_lamb.LAMB.from_config(config),
        tf_lamb.LAMB(0.1, exclude_from_weight_decay=["bias"]).get_config(),
        _check_config,
    ),
}
