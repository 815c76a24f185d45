"""What stays the same for a whole run of LAMB or LARS, checked once.

These tuples are the constants of `rules.py`; a compiled kernel holds them. What
changes from step to step (learning rate, weight decay, the count of updates) is
an argument of the rules.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping, NamedTuple, Sequence, Union

from tf_lamb import check
from tf_lamb.arithmetic import NORMS

__all__ = [
    "CHECKS",
    "LARS_FORMS",
    "MOMENT_DTYPES",
    "NESTEROV_FORMS",
    "Hyper",
    "Lamb",
    "Lars",
]

MOMENT_DTYPES = (None, "float32", "bfloat16")
NESTEROV_FORMS = (None, "nadam", "nadam_both")
LARS_FORMS = ("you2017", "optax", "timm", "model_garden", "you2020")


class Lamb(NamedTuple):
    """What stays the same for a whole run of LAMB.

    Attributes:
      beta_1: decay of the first moment, in [0, 1).
      beta_2: decay of the second moment, in [0, 1).
      epsilon: > 0, added to the root of the second moment.
      bias_correction: False drops both hats, as ALBERT's code does.
      nesterov: None; "nadam": Dozat's look-ahead of the first moment,
        `beta_1 m_t / (1-beta_1^(t+1)) + (1-beta_1) g_t / (1-beta_1^t)`;
        "nadam_both": the same for the second moment, with `g_t^2`, as well.
      norm: one of `arithmetic.NORMS`, for `|x|` and `|u|` alike.
      phi_bounds: `(gamma_l, gamma_u)` of phi, or None for `phi(z) = z`.
      trust_ratio_bounds: `(low, high)` of the trust ratio, or None.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = True
    nesterov: str | None = None
    norm: str = "l2"
    phi_bounds: tuple[float, float] | None = None
    trust_ratio_bounds: tuple[float, float] | None = None

    def checked(self) -> Lamb:
        """The same, with numbers as floats.

        Raises:
          ValueError: one is outside its range.
        """
        return Lamb(**_checked(self))


class Lars(NamedTuple):
    """What stays the same for a whole run of LARS.

    Attributes:
      momentum: `mu`, in [0, 1).
      trust_coefficient: `c`, > 0; not used by "you2020".
      epsilon: >= 0, added to the denominator.
      form: one of `LARS_FORMS`: the 2017 paper, TF contrib and MLPerf; optax
        (and Model Garden with `classic_momentum=True`); timm; Model Garden with
        `classic_momentum=False`; Algorithm 1 of the LAMB paper.
      nesterov: Nesterov momentum; not defined for "you2020".
      norm: one of `arithmetic.NORMS`.
      phi_bounds: bounds of phi on `|x|`, or None for `phi(z) = z`.
      trust_ratio_bounds: `(low, high)` of the local rate, or None.
    """

    momentum: float = 0.9
    trust_coefficient: float = 0.001
    epsilon: float = 0.0
    form: str = "you2017"
    nesterov: bool = False
    norm: str = "l2"
    phi_bounds: tuple[float, float] | None = None
    trust_ratio_bounds: tuple[float, float] | None = None

    def checked(self) -> Lars:
        """The same, with numbers as floats.

        Raises:
          ValueError: one is outside its range, or `nesterov` is asked of
            "you2020".
        """
        checked = Lars(**_checked(self))
        if checked.nesterov and checked.form == "you2020":
            raise ValueError(
                "nesterov: not defined for form='you2020'; expected False, or "
                "another form."
            )
        return checked


def _one_of(choices: Sequence[str | None]) -> Callable[[str, Any], Any]:
    return functools.partial(check.one_of, choices=choices)


_NORM: dict[str, Callable[[str, Any], Any]] = {
    "norm": _one_of(NORMS),
    "phi_bounds": check.bounds,
    "trust_ratio_bounds": check.bounds,
}
# {type: {field: its check}}; a check takes the field's name and its value, and
# returns what is kept.
CHECKS: Mapping[type, Mapping[str, Callable[[str, Any], Any]]] = {
    Lamb: {
        "beta_1": check.decay_rate,
        "beta_2": check.decay_rate,
        "epsilon": check.positive,
        "bias_correction": check.flag,
        "nesterov": _one_of(NESTEROV_FORMS),
        **_NORM,
    },
    Lars: {
        "momentum": check.decay_rate,
        "trust_coefficient": check.positive,
        "epsilon": check.non_negative,
        "form": _one_of(LARS_FORMS),
        "nesterov": check.flag,
        **_NORM,
    },
}


def _checked(hyper: Hyper) -> dict[str, Any]:
    """The fields, each as its check returns it."""
    checks = CHECKS[type(hyper)]
    return {n: checks[n](n, value) for n, value in hyper._asdict().items()}


Hyper = Union[Lamb, Lars]
