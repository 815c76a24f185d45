"""Groups of variables: one optimizer, other settings for some of the model.

A `Group` is a regex and what differs for the variables that it matches. Where
several match, the first one in the list holds. The learning rate that callbacks
set, clipping, skipping, accumulation and the loss scale stay those of the whole
model. `layerwise.layer_decay` makes groups whose rate falls towards the input.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, NamedTuple, Sequence, Union

from tf_lamb import check
from tf_lamb.exclusion import Treatment, check_patterns, matches
from tf_lamb.hyperparameters import CHECKS, LAMB_FORMS, Hyper, Lamb

__all__ = [
    "TRUST_RATIO_PER",
    "Group",
    "Setting",
    "TrustRatioPer",
    "check_groups",
    "columns",
    "effective",
    "slices",
]

# Constants of the rules that a group may have of its own.
_CONSTANTS = (
    "beta_1",
    "beta_2",
    "momentum",
    "trust_coefficient",
    "epsilon",
    "norm",
    "phi_bounds",
    "trust_ratio_bounds",
    "cautious",
    "clip_by_unit",
)
# Options that say nothing where there is no trust ratio.
_OF_THE_RATIO = {"trust_ratio_per", "norm", "phi_bounds", "trust_ratio_bounds"}
_UNCLIPPED = "clip_by_unit", math.inf
TRUST_RATIO_PER = ("variable", "filter", "layer")
# What one trust ratio is of: a name, an axis, or an axis and a count of parts.
TrustRatioPer = Union[str, int, "tuple[int, int]"]


@dataclasses.dataclass(frozen=True)
class Group:
    r"""What differs for the variables of a model that a regex matches.

    $$x_{t+1} = x_t - c\,\eta_t\, r\, u_t$$

    with `c` the multiplier, `eta` the optimizer's rate (or the group's own),
    and `r` and `u` as `tf_lamb.rules` has them, with the group's constants in
    place of the optimizer's. What is None is the optimizer's.

    Args:
      pattern: regex, searched (`re.search`) in the variable's full path, as
        those of `exclude_from_weight_decay`; "" matches all, and
        "biases_and_norms" stands for the kind of variables, not for a path.
      learning_rate_multiplier: `c` >= 0. It follows every change of the
        optimizer's `learning_rate`, by a schedule or a callback.
      learning_rate: a rate of the group's own, a number, a schedule or a
        function as the optimizer's; `optimizer.learning_rate` does not change
        it. It is multiplied by `learning_rate_multiplier` too.
      weight_decay: `lambda` >= 0, a number, a schedule or a function.
        Variables that are excluded from weight decay have none all the same.
      adapt: False: the trust ratio is 1 (for LAMB, the step of AdamW). True:
        as `exclude_from_layer_adaptation` says.
      frozen: True: the variables stay as they are. Their gradients are not
        looked at, by clipping and skipping neither. A frozen group that gets
        no variable raises, unless the optimizer has `unmatched="ignore"`.
      trust_ratio_per: what one trust ratio is of:
        "variable", the papers';
        "filter", each slice of the last axis of a kernel (of rank 1 and 0, the
        variable);
        an axis, each of its slices: 0 for stacked layers `[layers, ...]`, 1 for
        the heads of a kernel `[H, heads, size]`;
        `(axis, parts)`, each of so many equal parts of an axis: `(-1, 12)` for
        12 heads in a kernel `[H, heads * size]`;
        "layer", all variables of one layer (`dense/kernel` and `dense/bias`)
        that are of this group, of one dtype, and adapted.
      beta_1: LAMB only.
      beta_2: LAMB only.
      momentum: LARS only.
      trust_coefficient: LARS only, not of "you2020".
      epsilon: as the optimizer's.
      norm: as the optimizer's.
      phi_bounds: as the optimizer's.
      trust_ratio_bounds: as the optimizer's.
      cautious: LAMB only, not of "lans".
      clip_by_unit: as the optimizer's; `math.inf` for none.

    Raises:
      ValueError: a pattern, multiplier, flag or granularity that is none, or an
        option that has no effect beside `frozen=True` or `adapt=False`. Rates,
        decays and constants are checked by the optimizer, which knows them.

    Example:
      >>> import tf_lamb
      >>> optimizer = tf_lamb.LAMB(
      ...     1e-3,
      ...     groups=[
      ...         tf_lamb.Group("embeddings", learning_rate_multiplier=0.1),
      ...         tf_lamb.Group("head", adapt=False, weight_decay=0.0),
      ...     ],
      ... )
    """

    pattern: str
    learning_rate_multiplier: float = 1.0
    learning_rate: float | Callable[..., Any] | None = None
    weight_decay: float | Callable[..., Any] | None = None
    adapt: bool = True
    frozen: bool = False
    trust_ratio_per: TrustRatioPer = "variable"
    beta_1: float | None = None
    beta_2: float | None = None
    momentum: float | None = None
    trust_coefficient: float | None = None
    epsilon: float | None = None
    norm: str | None = None
    phi_bounds: tuple[float, float] | None = None
    trust_ratio_bounds: tuple[float, float] | None = None
    cautious: bool | None = None
    clip_by_unit: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise check.refuse(
                "Group.pattern", self.pattern, "one regex, such as 'a|b'"
            )
        check_patterns("Group.pattern", [self.pattern])
        self._set("learning_rate_multiplier", check.non_negative)
        self._set("adapt", check.flag)
        self._set("frozen", check.flag)
        self._set("trust_ratio_per", _checked_per)
        idle = set(self.options()) - {"pattern", "frozen"}
        reason = "frozen=True"
        if not self.frozen:
            idle &= set() if self.adapt else _OF_THE_RATIO
            reason = "adapt=False"
        if idle:
            raise ValueError(
                f"Group({self.pattern!r}): {', '.join(sorted(idle))} has no "
                f"effect beside {reason}; leave one of them out."
            )

    def _set(self, name: str, checked: Callable[[str, Any], Any]) -> None:
        """Replaces an argument by what its check returns."""
        value = checked(f"Group({self.pattern!r}).{name}", getattr(self, name))
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        given = (f"{n}={value!r}" for n, value in self.options().items())
        return f"Group({', '.join(given)})"

    @property
    def constants(self) -> dict[str, Any]:
        """{field of `Lamb` or `Lars`: value}, of those that are not None."""
        given = {name: getattr(self, name) for name in _CONSTANTS}
        return {n: value for n, value in given.items() if value is not None}

    def options(self) -> dict[str, Any]:
        """{argument: value} of those that are not as by default."""
        values = {f.name: getattr(self, f.name) for f in _FIELDS}
        return {
            f.name: values[f.name]
            for f in _FIELDS
            if f.default is dataclasses.MISSING or values[f.name] != f.default
        }

    def hyper(self, hyper: Hyper) -> Hyper:
        """The constants of the rule for this group.

        Args:
          hyper: those of the optimizer.

        Raises:
          ValueError: the group has a constant that this rule, or this form of
            it, does not have, or one outside its range.
        """
        owner = f"Group({self.pattern!r})"
        for name in self.constants:
            reason = _not_in(hyper, name)
            if reason:
                raise ValueError(
                    f"{owner}.{name}: {reason}, got "
                    f"{check.shown(getattr(self, name))}; leave it out."
                )
        checks = CHECKS[type(hyper)]
        own = {
            name: checks[name](f"{owner}.{name}", value)
            for name, value in self.constants.items()
            if (name, value) != _UNCLIPPED
        }
        if self.clip_by_unit == math.inf:
            own["clip_by_unit"] = None
        try:
            return hyper._replace(**own).checked()
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from None

    def with_functions(self, schedule: type) -> Group:
        """The group with its rate and decay checked, numbers as floats.

        Args:
          schedule: class of the schedules of this Keras.

        Raises:
          ValueError: one is no number >= 0, schedule or function.
        """
        given = {
            name: check.number_or_function(
                f"Group({self.pattern!r}).{name}", value, schedule
            )
            for name, value in (
                ("learning_rate", self.learning_rate),
                ("weight_decay", self.weight_decay),
            )
            # A tensor of a graph has no value yet.
            if value is not None and not check.is_unknown(value)
        }
        return dataclasses.replace(self, **given)


_FIELDS = dataclasses.fields(Group)


class Setting(NamedTuple):
    """What the variables of one group have in common at one step.

    Attributes:
      hyper: constants of the rule.
      learning_rate: a scalar, or a Python number.
      weight_decay: of those that decay, likewise.
      multiplier: of the learning rate.
      frozen: whether they stay as they are.
      trust_ratio_per: as in `Group`.
    """

    hyper: Hyper
    learning_rate: Any
    weight_decay: Any
    multiplier: float = 1.0
    frozen: bool = False
    trust_ratio_per: TrustRatioPer = "variable"


def check_groups(name: str, groups: Any) -> tuple[Group, ...]:
    """`groups` as a tuple.

    Args:
      name: of the argument, for the message.
      groups: list or tuple of `Group`; None for none.

    Raises:
      ValueError: it is another thing.
    """
    groups = () if groups is None else groups
    if not isinstance(groups, (list, tuple)):
        raise check.refuse(name, groups, "a list of tf_lamb.Group")
    for i, group in enumerate(groups):
        if not isinstance(group, Group):
            hint = " (*layer_decay(...) puts a list into a list)"
            raise check.refuse(
                f"{name}[{i}]",
                group,
                f"a tf_lamb.Group{hint if isinstance(group, list) else ''}",
            )
    return tuple(groups)


def _not_in(hyper: Hyper, name: str) -> str:
    """Why a rule does not have a constant; "" if it does."""
    kind = type(hyper).__name__.upper()
    if name not in hyper._fields:
        return f"{kind} has none"
    if isinstance(hyper, Lamb):
        fixed = LAMB_FORMS[hyper.form].fixed
        value = getattr(hyper, name)
        return f"form={hyper.form!r} has {value!r}" if name in fixed else ""
    none = name == "trust_coefficient" and hyper.form == "you2020"
    return f"form={hyper.form!r} has none" if none else ""


def effective(treatment: Treatment, groups: Sequence[Group]) -> Treatment:
    """A treatment as its group changes it: less decays, less is adapted.

    Args:
      treatment: by the exclusions.
      groups: of the optimizer.
    """
    if treatment.group is None:
        return treatment
    group = groups[treatment.group]
    decays = group.weight_decay is None or group.weight_decay != 0
    return treatment._replace(
        decay=treatment.decay and decays and not group.frozen,
        adapt=treatment.adapt and group.adapt and not group.frozen,
    )


def columns(
    groups: Sequence[Group],
    treatments: Sequence[Treatment],
    shapes: Sequence[Sequence[int]],
) -> list[list[str]]:
    """Columns of `exclusion.describe`: group, and what it changes.

    Args:
      groups: of the optimizer.
      treatments: of the variables.
      shapes: of the variables.

    Returns:
      Two columns with their heads, or none if there are no groups. Later groups
      that match a variable as well are in parentheses behind its own.
    """
    if not groups:
        return []
    paths = [treatment.path for treatment in treatments]
    found = [matches(group.pattern, paths, shapes) for group in groups]
    numbers, changes = ["group"], ["changes"]
    for treatment, *hits in zip(treatments, *found):
        number = treatment.group
        if number is None:
            numbers.append("")
            changes.append("")
            continue
        also = [str(i) for i, x in enumerate(hits) if x and i > number]
        numbers.append(f"{number} ({', '.join(also)})" if also else f"{number}")
        options = groups[number].options()
        del options["pattern"]
        texts = [f"{name}={_text(value)}" for name, value in options.items()]
        changes.append(", ".join(texts))
    return [numbers, changes]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if callable(value) and not hasattr(value, "get_config"):
        return "a function"
    return getattr(value, "name", None) or check.shown(value)


def _checked_per(name: str, value: Any) -> TrustRatioPer:
    """`trust_ratio_per` as it is kept: a pair as a tuple."""
    if value in TRUST_RATIO_PER and isinstance(value, str):
        return value
    pair = list(value) if isinstance(value, (list, tuple)) else [value]
    whole = [type(x) is int for x in pair]
    if all(whole) and (len(pair) == 1 or (len(pair) == 2 and pair[1] > 0)):
        return pair[0] if len(pair) == 1 else (pair[0], pair[1])
    names = ", ".join(map(repr, TRUST_RATIO_PER))
    raise check.refuse(
        name, value, f"one of {names}, an axis, or (axis, number of parts)"
    )


def slices(
    per: TrustRatioPer, path: str, shape: Sequence[int]
) -> tuple[int, int] | None:
    """Of which parts of a variable its trust ratios are.

    Args:
      per: `trust_ratio_per` of its group.
      path: of the variable, for the message.
      shape: of the variable.

    Returns:
      `(axis, parts)`, an axis >= 0; None for one ratio of the whole, as of a
      variable without elements.

    Raises:
      ValueError: it has no such axis, or the parts are not equal.
    """
    if per == "filter":
        per = -1 if len(shape) > 1 else "variable"
    if isinstance(per, str):
        return None
    axis, parts = per if isinstance(per, tuple) else (per, None)
    rank = len(shape)
    if not -rank <= axis < rank or (parts and shape[axis] % parts):
        raise ValueError(
            "Group.trust_ratio_per: expected an axis, and parts that divide "
            f"its length, of {path!r}, whose shape is {tuple(shape)}, got "
            f"{per!r}; give such variables a group of their own before this "
            "one."
        )
    if 0 in shape:
        return None
    return axis % rank, parts or shape[axis]
