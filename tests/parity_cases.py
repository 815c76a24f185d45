"""Every option of LAMB and LARS, as the optimizer and the reference take it."""

import functools

import pytest

from tests import group_cases
from tests.group_cases import FALL, fall
from tests.reference.lamb import ReferenceLAMB
from tests.reference.lamb_peers import PEERS
from tests.reference.lars import ReferenceLARS
from tf_lamb import hyperparameters

STEPS = 30
DECAY = {"weight_decay": 0.05}
NO_BIAS = {"exclude_from_weight_decay": ["bias", "scale"]}


# (what the optimizer is given, what the reference is given on top or instead)
SHARED = {
    "plain": ({}, {}),
    "weight_decay": (DECAY, {}),
    "exclusions": (
        {**DECAY, **NO_BIAS},
        {"no_decay": ("bias", "scale"), "no_adapt": ("bias", "scale")},
    ),
    "excluded_from_decay_only": (
        {**DECAY, **NO_BIAS, "exclude_from_layer_adaptation": []},
        {"no_decay": ("bias", "scale")},
    ),
    "excluded_from_adaptation_only": (
        {**DECAY, "exclude_from_layer_adaptation": ["kernel"]},
        {"no_adapt": ("kernel",)},
    ),
    "norm_l1": ({**DECAY, "norm": "l1"}, {}),
    "norm_linf": ({**DECAY, "norm": "linf"}, {}),
    "phi_bounds": ({**DECAY, "phi_bounds": (0.5, 2.0)}, {}),
    "trust_ratio_bounds": ({**DECAY, "trust_ratio_bounds": (0.1, 0.8)}, {}),
    "phi_and_trust_ratio_bounds": (
        {**DECAY, "phi_bounds": (0.5, 2.0), "trust_ratio_bounds": (0.1, 0.8)},
        {},
    ),
    "clipnorm": ({**DECAY, "clipnorm": 0.1}, {}),
    "clipvalue": ({**DECAY, "clipvalue": 0.1}, {}),
    "global_clipnorm": ({**DECAY, "global_clipnorm": 0.1}, {}),
    "clip_by_unit": ({**DECAY, "clip_by_unit": 0.05}, {}),
    "clip_by_unit_too": (
        {
            **DECAY,
            "clip_by_unit": 0.05,
            "global_clipnorm": 3.0,
            "gradient_accumulation_steps": 3,
        },
        {"accumulation_steps": 3},
    ),
    "schedule": (
        {**DECAY, "learning_rate": FALL},
        {"learning_rate": fall},
    ),
    "keep_nonfinite": ({**DECAY, "skip_nonfinite": False}, {}),
    "not_compiled": ({**DECAY, "jit_compile": False}, {}),
    "accumulation": (
        {**DECAY, "gradient_accumulation_steps": 3, "global_clipnorm": 0.1},
        {"accumulation_steps": 3},
    ),
    "ema": (
        {**DECAY, "use_ema": True, "ema_momentum": 0.9},
        {"ema_momentum": 0.9},
    ),
    "accumulation_and_ema": (
        {
            **DECAY,
            "gradient_accumulation_steps": 3,
            "use_ema": True,
            "ema_momentum": 0.9,
        },
        {"accumulation_steps": 3, "ema_momentum": 0.9},
    ),
    **group_cases.CASES,
}
LAMB = {
    "betas": ({**DECAY, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}, {}),
    "betas_0": ({**DECAY, "beta_1": 0.0, "beta_2": 0.0}, {}),
    "no_bias_correction": ({**DECAY, "bias_correction": False}, {}),
    "nadam": ({**DECAY, "nesterov": "nadam"}, {}),
    "nadam_both": ({**DECAY, "nesterov": "nadam_both"}, {}),
    "nadam_uncorrected": (
        {**DECAY, "nesterov": "nadam_both", "bias_correction": False},
        {},
    ),
    "sum_of_gradients": ({**DECAY, "grad_averaging": False}, {}),
    "cautious": ({**DECAY, "cautious": True}, {}),
    "cautious_nadam": (
        {**DECAY, **NO_BIAS, "cautious": True, "nesterov": "nadam"},
        {"no_decay": ("bias", "scale"), "no_adapt": ("bias", "scale")},
    ),
}
# Each form against what it is named for: as it is by default; with variables
# that do not decay; and with other numbers.
LAMB_FORMS = {
    form: ({"form": form}, {"weight_decay": 0.01})
    for form in ("apex", "lambc", "lambw", "lans", "nvlamb", "timm")
} | {
    form: ({"form": form}, {"weight_decay": 0.0})
    for form in ("albert", "deepspeed", "keras")
}
LAMB_FORMS |= {
    f"{form}_excluded": (
        {**DECAY, **NO_BIAS, "form": form, "beta_1": 0.8, "epsilon": 1e-3},
        {"no_decay": ("bias", "scale")},
    )
    for form in PEERS
}
LAMB_FORMS |= {
    f"{form}_sum_of_gradients": (
        {**DECAY, "form": form, "grad_averaging": False, "beta_1": 0.5},
        {},
    )
    for form in ("apex", "lambc", "lambw", "nvlamb", "timm")
}
LAMB_FORMS |= {
    f"{form}_uncorrected": (
        {**DECAY, "form": form, "bias_correction": False},
        {},
    )
    for form in ("apex", "deepspeed", "lans", "timm")
}
LAMB_FORMS |= {
    "apex_clips_to_less": (
        {**DECAY, "form": "apex", "global_clipnorm": 0.1},
        {},
    ),
    "timm_does_not_clip": (
        {**DECAY, "form": "timm", "global_clipnorm": None},
        {},
    ),
    "deepspeed_other_bounds": (
        {**DECAY, "form": "deepspeed", "trust_ratio_bounds": (0.2, 0.9)},
        {},
    ),
    "lans_bounded": (
        {
            **DECAY,
            "form": "lans",
            "phi_bounds": (0.5, 2.0),
            "trust_ratio_bounds": (0.1, 0.3),
            "learning_rate": FALL,
        },
        {"learning_rate": fall},
    ),
    "lans_norm_l1": ({**DECAY, "form": "lans", "norm": "l1"}, {}),
    "lans_one_not_adapted": (
        {
            **DECAY,
            "form": "lans",
            "exclude_from_layer_adaptation": ["kernel"],
        },
        {"no_adapt": ("kernel",)},
    ),
    "timm_cautious": ({**DECAY, "form": "timm", "cautious": True}, {}),
    "lambw_cautious": ({**DECAY, "form": "lambw", "cautious": True}, {}),
    "lambw_large_decay": (
        {"weight_decay": 10.0, "form": "lambw", "learning_rate": FALL},
        {"learning_rate": fall},
    ),
}
LARS = {
    form if not nesterov else f"{form}_nesterov": (
        {**DECAY, "form": form, "nesterov": nesterov, "learning_rate": FALL},
        {"learning_rate": fall},
    )
    for form in hyperparameters.LARS_FORMS
    for nesterov in (False, True)
    if not (nesterov and form == "you2020")
} | {
    f"{form}_excluded": (
        {**DECAY, **NO_BIAS, "form": form, "epsilon": 0.01},
        {"no_decay": ("bias", "scale"), "no_adapt": ("bias", "scale")},
    )
    for form in hyperparameters.LARS_FORMS
}
# Arguments of the optimizer that the reference knows by another name, or not.
_UNKNOWN_TO_THE_REFERENCE = (
    "exclude_from_weight_decay",
    "exclude_from_layer_adaptation",
    "gradient_accumulation_steps",
    "use_ema",
    "jit_compile",
)


def cases():
    """`(optimizer, arguments, changes)` for parametrize, with their names."""
    for optimizer, table in (
        ("LAMB", SHARED | LAMB | LAMB_FORMS | group_cases.LAMB_CASES),
        ("LARS", SHARED | LARS | group_cases.LARS_CASES),
    ):
        for name, (arguments, changes) in table.items():
            yield pytest.param(
                optimizer, arguments, changes, id=f"{optimizer}-{name}"
            )


def make(module, optimizer, arguments, changes):
    """A front end's optimizer, and the reference that it is held against."""
    start = {"learning_rate": 0.02}
    arguments = dict(arguments)
    if optimizer == "LARS":
        start["trust_coefficient"] = 0.1
    known = {
        name: value
        for name, value in arguments.items()
        if name not in _UNKNOWN_TO_THE_REFERENCE
    }
    reference = {"LAMB": ReferenceLAMB, "LARS": ReferenceLARS}[optimizer]
    if optimizer == "LAMB":
        reference = PEERS.get(known.pop("form", None), reference)
    if isinstance(arguments.get("learning_rate"), dict):
        schedule = module.WarmupPolynomial(**arguments["learning_rate"])
        arguments = {**arguments, "learning_rate": schedule}
    if "groups" in arguments:
        groups = known.pop("groups")
        reference = functools.partial(group_cases.reference, reference, groups)
        arguments["groups"] = group_cases.groups(groups, module)
    return (
        getattr(module, optimizer)(**{**start, **arguments}),
        reference(**{**start, **known, **changes}),
    )
