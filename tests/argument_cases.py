"""What each argument of LAMB and LARS accepts and refuses, for every front end.

A front end's test gives `refused` and `accepted` a function that makes its
optimizer.
"""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

_NO_NUMBER = [
    math.nan,
    np.nan,
    Decimal("nan"),
    "0.5",
    np.array("0.5"),
    np.str_("0.5"),
    b"1",
    True,
    np.True_,
    np.array(True),
    [0.5],
    ["("],
    np.array([0.5]),
    np.ones((20, 20)),
    {},
    object(),
    0.5 + 0j,
    np.complex64(0.5),
]
# A float cannot hold them, and the second one cannot be printed.
_TOO_LARGE = [math.inf, 10**400, 10**5000, Fraction(10**400), 1e308, 3.5e38]
_NO_COUNT = [*_NO_NUMBER, *_TOO_LARGE, 0.5, Decimal("1.5"), -1, 0, 2**63]
_NO_FLAG = ["False", "True", "x", b"", 0, 1, 1.0, np.array([True]), {}, []]
_NO_TEXT = [5, b"l2", ["l2"], np.array(["l2", "l1"]), {}, object(), True]

_NEGATIVE = [-1, -1e-30, np.float32(-0.1), Decimal(-1)]
_NON_NEGATIVE = [*_NO_NUMBER, *_TOO_LARGE, *_NEGATIVE]
_POSITIVE = [*_NON_NEGATIVE, 0, 0.0, 1e-46]
_DECAY_RATE = [*_NON_NEGATIVE, None, 1, 1.0, 2, np.float32(1)]

# {argument: values that are refused}
_BASE = {
    "clipnorm": _POSITIVE,
    "clipvalue": _POSITIVE,
    "global_clipnorm": _POSITIVE,
    "use_ema": [*_NO_FLAG, None],
    "ema_momentum": [*_NON_NEGATIVE, None, 1.5],
    "ema_overwrite_frequency": [*_NO_COUNT, 2**31],
    "loss_scale_factor": _POSITIVE,
    "gradient_accumulation_steps": [*_NO_COUNT, 2**31, 1.5],
}
_NO_BOUNDS = [
    *("12", "1", 3, True, {1, 2}, {1: 2, 3: 4}, (1,), (1, 2, 3), [[1], 2]),
    *((2, 1), (-1, 2), (0, math.nan), (0, "1"), (0, True), (None, 1)),
    *((math.inf, math.inf), (1e39, 1e40), np.ones((2, 2)), np.ones(3)),
]
_COMMON = {
    "learning_rate": [
        *_NON_NEGATIVE,
        None,
        int,
        lambda step: 0.5,  # a schedule of no Keras
    ],
    "weight_decay": [*_NON_NEGATIVE, int, lambda step: 0.5],
    "name": _NO_TEXT,
    "norm": [*_NO_TEXT, "l3", "L2", None],
    "phi_bounds": _NO_BOUNDS,
    "trust_ratio_bounds": _NO_BOUNDS,
    "clip_by_unit": _POSITIVE,
    "skip_nonfinite": [*_NO_FLAG, None],
    "moment_dtype": [*_NO_TEXT, "float16", "half", ""],
    "jit_compile": [*_NO_FLAG, None],
    "unmatched": [*_NO_TEXT, "Warn", None],
}
REFUSED = {
    "LAMB": {
        **_COMMON,
        "beta_1": _DECAY_RATE,
        "beta_2": _DECAY_RATE,
        "epsilon": _POSITIVE,
        "bias_correction": _NO_FLAG,
        "nesterov": [*_NO_TEXT, "yes", False],
        "form": [*_NO_TEXT, "lamb", "Paper", None],
        "grad_averaging": [*_NO_FLAG, None],
        "cautious": [*_NO_FLAG, None],
    },
    "LARS": {
        **_COMMON,
        "momentum": _DECAY_RATE,
        "trust_coefficient": [*_POSITIVE, None],
        "epsilon": [*_NON_NEGATIVE, None],
        "form": [*_NO_TEXT, "lars", None],
        "nesterov": [*_NO_FLAG, None, "nadam"],
    },
}
REFUSED_BY_KERAS = {name: {**REFUSED[name], **_BASE} for name in REFUSED}

_HALVES = [0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5)]
_HALVES += [np.array(0.5), np.array(0.5, "float32"), Decimal("0.5")]
_HALVES += [Fraction(1, 2)]
_FIVES = [5, 5.0, np.int32(5), np.int64(5), np.uint8(5), np.array(5)]
_FIVES += [Decimal(5), np.float32(5)]
_FLAGS = [True, np.True_, np.array(True)]
_FLOATS = (
    "learning_rate weight_decay clipnorm clipvalue global_clipnorm "
    "ema_momentum loss_scale_factor beta_1 beta_2 epsilon momentum "
    "trust_coefficient clip_by_unit"
).split()
_COUNTS = ["gradient_accumulation_steps", "ema_overwrite_frequency"]
_BOOLEANS = ["use_ema", "skip_nonfinite", "jit_compile", "bias_correction"]
_BOOLEANS += ["grad_averaging", "cautious"]
_BOUNDS = [
    *((1, 2), [1, 2], np.array([1, 2]), np.array([1.0, 2.0], "float32")),
    *((np.float32(1), Decimal(2)), (np.array(1), np.int64(2))),
]
_OTHERS = {"phi_bounds": _BOUNDS, "trust_ratio_bounds": _BOUNDS}


def accepted_values(optimizer, argument, tensor=None):
    """`(values, what they are kept as)` of an argument.

    `tensor`: makes a scalar tensor of a framework.
    """
    if optimizer == "LARS" and argument == "nesterov":
        values, kept = _FLAGS, True
    elif argument in _FLOATS:
        values, kept = _HALVES, 0.5
    elif argument in _COUNTS:
        values, kept = _FIVES, 5
    elif argument in _BOOLEANS:
        values, kept = _FLAGS, True
    else:
        values = _OTHERS.get(argument, [])
        return values, (1.0, 2.0)
    if tensor is not None:
        values = [*values, tensor(kept)]
    return values, kept


def check_refused(make, argument, values):
    """Each value gives one line that begins with the argument's name."""
    for value in values:
        with pytest.raises(ValueError) as caught:
            made = make(**{argument: value})
            print(f"{argument}={value!r} was taken as", made)  # if it fails
        message = str(caught.value)
        assert message.startswith(f"{argument}: expected "), message
        assert ", got " in message and message.endswith("."), message
        assert "\n" not in message and len(message) < 250, message


def check_refused_by_assignment(made, argument, values):
    """The same of an optimizer's attribute."""
    check_refused(
        lambda **one: [setattr(made, *pair) for pair in one.items()],
        argument,
        values,
    )


def check_kept(make, argument, values, kept):
    """Each value is kept as `kept`, and survives the optimizer's config."""
    for value in values:
        made = make(**{argument: value})
        got = getattr(made, argument)
        if argument == "learning_rate":
            got = float(got)
        assert got == kept and type(got) is type(kept), repr(value)
        config = made.get_config()
        again = type(made).from_config(config)
        assert again.get_config() == config
