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
    "LAMB_FORMS",
    "LARS_FORMS",
    "MOMENT_DTYPES",
    "NESTEROV_FORMS",
    "Hyper",
    "Lamb",
    "LambForm",
    "Lars",
]

MOMENT_DTYPES = (None, "float32", "bfloat16")
NESTEROV_FORMS = (None, "nadam", "nadam_both")
LARS_FORMS = ("you2017", "optax", "timm", "model_garden", "you2020")


class LambForm(NamedTuple):
    """What is called LAMB in one library, or LANS; by default, the paper's.

    Attributes:
      decoupled_decay: whether `x` is multiplied by `1 - eta lambda` before the
        norms are taken, and the direction has no decay.
      corrects_step: whether bias correction multiplies the step, outside the
        trust ratio, and not the moments.
      undecayed: what a variable without weight decay has: a trust ratio as
        `exclude_from_layer_adaptation` says ("by_list"), or by default
        ("adapted"), or never ("not_adapted").
      two_directions: whether the gradient is divided by its norm, and the step
        has a second part, along the gradient in place of the first moment and
        with a trust ratio of its own (LANS).
      bias_correction: by default.
      grad_averaging: by default.
      nesterov: by default.
      epsilon: by default.
      weight_decay: by default.
      trust_ratio_bounds: by default.
      global_clipnorm: by default; the library clips by itself.
      fixed: arguments that cannot be other than by default.
    """

    decoupled_decay: bool = False
    corrects_step: bool = False
    undecayed: str = "by_list"
    two_directions: bool = False
    bias_correction: bool = True
    grad_averaging: bool = True
    nesterov: str | None = None
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    trust_ratio_bounds: tuple[float, float] | None = None
    global_clipnorm: float | None = None
    fixed: tuple[str, ...] = ("nesterov",)

    def default(self, name: str, given: Any) -> Any:
        """An argument as it was given; None: as it is by default.

        Args:
          name: of the argument.
          given: its value.
        """
        return getattr(self, name) if given is None else given

    def check_fixed(self, form: str, **given: Any) -> None:
        """Checks that no argument contradicts this form.

        Args:
          form: its name, for the message.
          **given: arguments as they were given; None for none.

        Raises:
          ValueError: another value is given than this form has.
        """
        for name in self.fixed:
            value, own = given.get(name), getattr(self, name)
            if value is not None and value != own:
                raise ValueError(
                    f"{name}: form={form!r} has {own!r}, got "
                    f"{check.shown(value)}; leave {name} out, or choose "
                    "another form."
                )


_TIMM = LambForm(
    undecayed="not_adapted", weight_decay=0.01, global_clipnorm=1.0
)
_FIXED = ("nesterov", "grad_averaging", "bias_correction")

#: The forms of LAMB, by their names.
LAMB_FORMS: Mapping[str, LambForm] = {
    "paper": LambForm(fixed=()),
    "albert": LambForm(bias_correction=False, fixed=_FIXED),
    "apex": _TIMM,
    "nvlamb": _TIMM._replace(undecayed="adapted"),
    "timm": _TIMM,
    "lambc": _TIMM._replace(
        trust_ratio_bounds=(0.0, 1.0),
        fixed=("nesterov", "trust_ratio_bounds"),
    ),
    "lambw": _TIMM._replace(decoupled_decay=True),
    "deepspeed": LambForm(
        corrects_step=True,
        undecayed="adapted",
        epsilon=1e-8,
        trust_ratio_bounds=(0.01, 10.0),
        fixed=("nesterov", "grad_averaging"),
    ),
    "keras": LambForm(
        decoupled_decay=True, undecayed="adapted", epsilon=1e-7, fixed=_FIXED
    ),
    "lans": LambForm(
        undecayed="adapted",
        two_directions=True,
        weight_decay=0.01,
        fixed=("nesterov", "grad_averaging"),
    ),
}


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
      norm: one of `arithmetic.NORMS`, for `|x|`, `|u|` and LANS' `|g|` alike.
      phi_bounds: `(gamma_l, gamma_u)` of phi, or None for `phi(z) = z`.
      trust_ratio_bounds: `(low, high)` of the trust ratio, or None.
      form: a key of `LAMB_FORMS`. The rule has of it what is no other
        constant: `decoupled_decay`, `corrects_step`, `undecayed`,
        `two_directions`; defaults are what the optimizers have of it.
      grad_averaging: False adds `g_t`, not `(1 - beta_1) g_t`, to the first
        moment, as apex and timm do under this name.
      cautious: True drops, before the decay is added, the elements of the
        direction whose sign is not the gradient's, and divides the others by
        their share (`directions.agreement`).
      clip_by_unit: limit of a unit's gradient, as a share of the norm of its
        weights, or None (`unit_clipping.clip_by_unit`).
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: bool = True
    nesterov: str | None = None
    norm: str = "l2"
    phi_bounds: tuple[float, float] | None = None
    trust_ratio_bounds: tuple[float, float] | None = None
    form: str = "paper"
    grad_averaging: bool = True
    cautious: bool = False
    clip_by_unit: float | None = None

    def checked(self) -> Lamb:
        """The same, with numbers as floats.

        Raises:
          ValueError: one is outside its range, `nesterov` is asked for without
            `grad_averaging`, or `cautious` of "lans".
        """
        checked = Lamb(**_checked(self))
        if checked.nesterov and not checked.grad_averaging:
            raise ValueError(
                "nesterov: not defined with grad_averaging=False, got "
                f"{checked.nesterov!r}; expected None, or grad_averaging=True."
            )
        if checked.cautious and LAMB_FORMS[checked.form].two_directions:
            raise ValueError(
                f"cautious: not defined for form={checked.form!r}, which has "
                "two directions, got True; expected False, or another form."
            )
        return checked


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
      clip_by_unit: as LAMB's.
    """

    momentum: float = 0.9
    trust_coefficient: float = 0.001
    epsilon: float = 0.0
    form: str = "you2017"
    nesterov: bool = False
    norm: str = "l2"
    phi_bounds: tuple[float, float] | None = None
    trust_ratio_bounds: tuple[float, float] | None = None
    clip_by_unit: float | None = None

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


_SHARED: dict[str, Callable[[str, Any], Any]] = {
    "norm": _one_of(NORMS),
    "phi_bounds": check.bounds,
    "trust_ratio_bounds": check.bounds,
    "clip_by_unit": check.positive_or_none,
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
        "form": _one_of(tuple(LAMB_FORMS)),
        "grad_averaging": check.flag,
        "cautious": check.flag,
        **_SHARED,
    },
    Lars: {
        "momentum": check.decay_rate,
        "trust_coefficient": check.positive,
        "epsilon": check.non_negative,
        "form": _one_of(LARS_FORMS),
        "nesterov": check.flag,
        **_SHARED,
    },
}


def _checked(hyper: Hyper) -> dict[str, Any]:
    """The fields, each as its check returns it."""
    checks = CHECKS[type(hyper)]
    return {n: checks[n](n, value) for n, value in hyper._asdict().items()}


Hyper = Union[Lamb, Lars]
