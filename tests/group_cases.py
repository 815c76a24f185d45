"""Groups, as an optimizer and as the reference of several references take them.

A group is `(names, options, parts)`: its variables among those of the parity
problem, its options, and for the reference how it splits or joins variables.
"""

from tests.reference.groups import ReferenceGroup, ReferenceGroups
from tf_lamb import Group

# A schedule, by the arguments of WarmupPolynomial, and as the reference has it.
FALL = {"learning_rate": 0.02, "total_steps": 40}


def fall(step):
    """The rate of FALL."""
    return 0.02 * (1 - step / 40)


_DECAY = {"weight_decay": 0.05}
_NO_BIAS = {"exclude_from_weight_decay": ["bias", "scale"]}
# name -> (arguments of the optimizer, changes of the reference)
CASES = {
    "groups_of_rates": (
        {
            **_DECAY,
            "global_clipnorm": 0.1,
            "groups": [
                (("kernel",), {"learning_rate_multiplier": 0.1}, {}),
                (("bias",), {"learning_rate": 0.05, "weight_decay": 0.5}, {}),
            ],
        },
        {},
    ),
    "groups_of_schedules": (
        {
            **_DECAY,
            "gradient_accumulation_steps": 3,
            "groups": [
                (("kernel", "scale"), {"learning_rate": FALL}, {}),
                (("bias",), {"learning_rate_multiplier": 2.0}, {}),
            ],
        },
        {"accumulation_steps": 3},
    ),
    "groups_of_constants": (
        {
            **_DECAY,
            **_NO_BIAS,
            "use_ema": True,
            "ema_momentum": 0.9,
            "groups": [
                (("kernel",), {"phi_bounds": (0.5, 2.0), "norm": "l1"}, {}),
                (("scale",), {"trust_ratio_bounds": (0.1, 0.8)}, {}),
            ],
        },
        {
            "no_decay": ("bias", "scale"),
            "no_adapt": ("bias", "scale"),
            "ema_momentum": 0.9,
        },
    ),
    "groups_not_adapted": (
        {
            **_DECAY,
            "groups": [
                (("kernel", "scale"), {"adapt": False, "weight_decay": 0}, {})
            ],
        },
        {},
    ),
    "ratio_per_filter": (
        {
            **_DECAY,
            "groups": [
                (
                    ("kernel", "bias"),
                    {"trust_ratio_per": "filter"},
                    {"parts": {"kernel": (1, 7)}},
                )
            ],
        },
        {},
    ),
    "ratio_per_slice": (
        {
            **_DECAY,
            "norm": "linf",
            "clipnorm": 0.1,
            "groups": [
                (
                    ("kernel",),
                    {"trust_ratio_per": 0},
                    {"parts": {"kernel": (0, 5)}},
                )
            ],
        },
        {},
    ),
    "ratio_per_part": (
        {
            **_DECAY,
            "norm": "l1",
            "groups": [
                (
                    ("kernel", "bias"),
                    {"trust_ratio_per": (-1, 1)},
                    {"parts": {"kernel": (1, 1), "bias": (0, 1)}},
                )
            ],
        },
        {},
    ),
    "ratio_per_layer": (
        {
            **_DECAY,
            "groups": [
                (
                    ("kernel", "bias"),
                    {"trust_ratio_per": "layer"},
                    {"joined": True},
                )
            ],
        },
        {},
    ),
}
# Of one rule only.
LAMB_CASES = {
    "groups_of_betas": (
        {
            **_DECAY,
            "groups": [
                (("kernel",), {"beta_1": 0.5, "epsilon": 1e-3}, {}),
                (("bias",), {"beta_2": 0.9}, {}),
            ],
        },
        {},
    ),
}
LARS_CASES = {
    "groups_of_momenta": (
        {
            **_DECAY,
            "groups": [
                (("kernel",), {"momentum": 0.5}, {}),
                (("bias",), {"trust_coefficient": 0.5, "epsilon": 0.1}, {}),
            ],
        },
        {},
    ),
}


def groups(cases, module=None):
    """The groups of a case as `tf_lamb.Group`.

    Args:
      cases: its `groups`.
      module: of the front end, for its schedules.
    """
    made = []
    for names, options, _ in cases:
        if options.get("learning_rate") is FALL:
            schedule = module.WarmupPolynomial(**FALL)
            options = {**options, "learning_rate": schedule}
        made.append(Group(f"^({'|'.join(names)})$", **options))
    return made


def reference(make, cases, **arguments):
    """The reference of a case.

    Args:
      make: `ReferenceLAMB` or `ReferenceLARS`.
      cases: its `groups`.
      **arguments: of the reference.
    """
    found = []
    for names, options, how in cases:
        changes = dict(options)
        changes.pop("trust_ratio_per", None)
        if changes.pop("adapt", True) is False:
            changes["no_adapt"] = names
        multiplier = changes.pop("learning_rate_multiplier", 1.0)
        rate = changes.pop("learning_rate", None)
        found.append(
            ReferenceGroup(
                names,
                multiplier,
                fall if rate is FALL else rate,
                changes.pop("frozen", False),
                changes=changes,
                **how,
            )
        )
    return ReferenceGroups(make, found, **arguments)
