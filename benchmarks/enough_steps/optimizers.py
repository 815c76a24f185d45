"""The optimizers of the study, each with what is not searched.

Every one is a Keras optimizer, applied by `stateless_apply`. Biases are
neither decayed nor adapted. Only the rate is searched, for all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

import tf_lamb

DECAY = 0.01
_BIASES = ["bias"]


def _decays(optimizer: keras.optimizers.Optimizer):
    optimizer.exclude_from_weight_decay(var_names=_BIASES)
    return optimizer


# What `make` calls with a rate that each update replaces.
_MAKERS: dict[str, Callable] = {
    "lamb": lambda rate: tf_lamb.LAMB(
        rate, weight_decay=DECAY, exclude_from_weight_decay=_BIASES
    ),
    "lars": lambda rate: tf_lamb.LARS(
        rate, 0.9, weight_decay=1e-4, exclude_from_weight_decay=_BIASES
    ),
    "sgd": lambda rate: keras.optimizers.SGD(rate, 0.9),
    "adamw": lambda rate: _decays(
        keras.optimizers.AdamW(rate, weight_decay=DECAY, epsilon=1e-6)
    ),
    "nadamw": lambda rate: _decays(
        keras.optimizers.Nadam(rate, weight_decay=DECAY, epsilon=1e-6)
    ),
    "muon": lambda rate: keras.optimizers.Muon(
        rate,
        weight_decay=DECAY,
        adam_weight_decay=DECAY,
        exclude_layers=["output"],
    ),
    "schedule_free": lambda rate: _decays(
        keras.optimizers.ScheduleFreeAdamW(rate, weight_decay=DECAY)
    ),
}
NAMES = {
    "lamb": "LAMB",
    "lars": "LARS",
    "sgd": "momentum",
    "adamw": "AdamW",
    "nadamw": "NadamW",
    "muon": "Muon",
    "schedule_free": "ScheduleFreeAdamW",
}
# The lowest of the rates that are tried at each batch; each of the others is
# twice the one before.
LOWEST = {
    "lamb": 0.0005,
    "lars": 0.125,
    "sgd": 0.005,
    "adamw": 0.00025,
    "nadamw": 0.00025,
    "muon": 0.0005,
    "schedule_free": 0.0005,
}


def make(name: str, rate: float = 1.0) -> keras.optimizers.Optimizer:
    """An optimizer of `NAMES`.

    Args:
        name: Which.
        rate: Learning rate.
    """
    return _MAKERS[name](rate)
