"""Variables that share a trust ratio, and the rule applied to them at once.

Most often one variable is a bundle by itself. Where a group asks for a ratio of
each layer (`Group(trust_ratio_per="layer")`), the variables of a layer are
one: the rule runs on all their elements, as on one long vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from tf_lamb import arithmetic, rules
from tf_lamb.arithmetic import Array, NormOf
from tf_lamb.averages import Variable
from tf_lamb.exclusion import Treatment
from tf_lamb.groups import Setting, slices
from tf_lamb.hyperparameters import Hyper
from tf_lamb.unit_clipping import clip_by_unit


class Scalars(NamedTuple):
    """The inputs of one variable's update that change from step to step.

    Attributes:
      learning_rate: floating scalar.
      weight_decay: floating scalar, 0 for an excluded variable.
      step: floating scalar, 1 at the first update.
      scale: floating scalar that multiplies the gradient (clipping).
      proceed: bool scalar; False leaves parameter and moments as they were.
    """

    learning_rate: Array
    weight_decay: Array
    step: Array
    scale: Array
    proceed: Array


class Row(NamedTuple):
    """One variable of an update.

    Attributes:
      variable: the parameter.
      slots: its moments; none where it is frozen.
      treatment: how it is treated.
    """

    variable: Variable
    slots: Sequence[Variable]
    treatment: Treatment


class Bundle(NamedTuple):
    """Variables with one trust ratio, of one dtype.

    Attributes:
      hyper: constants of the rule.
      adapt: whether there is a trust ratio.
      norm_of: None for the norm of the whole, as suits the backend.
      rows: the variables.
      grads: their gradients.
      scalars: of each of them; they differ by weight decay and scale only.
    """

    hyper: Hyper
    adapt: bool
    norm_of: NormOf | None
    rows: Sequence[Row]
    grads: Sequence[Array]
    scalars: Sequence[Scalars]

    @property
    def variables(self) -> list[Sequence[Variable]]:
        """Parameter and moments of each row."""
        return [(row.variable, *row.slots) for row in self.rows]


class Values(NamedTuple):
    """What one variable brings to the rule: arrays in place of variables.

    Attributes:
      param: `[*shape]`, any floating dtype.
      slots: moments, each `[*shape]`.
      grad: `[*shape]`, clipped, in the dtype of the arithmetic.
      weight_decay: scalar.
    """

    param: Array
    slots: Sequence[Array]
    grad: Array
    weight_decay: Array


def bundles(
    settings: Sequence[Setting],
    rows: Sequence[Row],
    grads: Sequence[Array],
    scalars: Sequence[Scalars],
) -> list[tuple[list[int], Bundle]]:
    """The bundles of some variables, each with the places of its rows.

    Args:
      settings: of each group, and last those of variables of no group.
      rows: the variables.
      grads: their gradients.
      scalars: of each of them.
    """
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(_keys(settings, rows)):
        places.setdefault(key, []).append(i)
    found = []
    for members in places.values():
        row = rows[members[0]]
        setting = settings[group_of(row.treatment)]
        axis_and_parts = None
        if row.treatment.adapt:
            per, path = setting.trust_ratio_per, row.treatment.path
            shape = [int(length) for length in row.variable.shape]
            axis_and_parts = slices(per, path, shape)
        bundle = Bundle(
            setting.hyper,
            row.treatment.adapt,
            axis_and_parts and arithmetic.NormOfSlices(*axis_and_parts),
            [rows[i] for i in members],
            [grads[i] for i in members],
            [scalars[i] for i in members],
        )
        found.append((members, bundle))
    return found


def group_of(treatment: Treatment) -> int:
    """The place of a variable's setting: the last is that of no group."""
    return -1 if treatment.group is None else treatment.group


def _keys(settings: Sequence[Setting], rows: Sequence[Row]) -> list[Any]:
    """What is equal for the variables of a bundle."""
    keys: list[Any] = []
    seen: dict[Any, int] = {}
    for i, row in enumerate(rows):
        path, _, adapt, group = row.treatment
        per = settings[group_of(row.treatment)].trust_ratio_per
        if per != "layer" or not adapt:
            keys.append(i)
            continue
        layer = path.rpartition("/")[0]
        dtypes = arithmetic.dtype_name(row.variable)
        # Two layers of one name stay two.
        repeat = seen[path] = seen.get(path, -1) + 1
        keys.append((group, layer, dtypes, repeat))
    return keys


def update(
    ops: Any,
    hyper: Hyper,
    members: Sequence[Values],
    step: Array,
    **now: Any,
) -> tuple[list[list[Array]], Array]:
    """The rule, on the variables of one bundle.

    Args:
      ops: array functions.
      hyper: the constants of the rule.
      members: the variables' values.
      step: `t`, floating scalar.
      **now: `learning_rate`, `adapt`, `proceed` and `norm_of` of the rule.

    Returns:
      New parameter and moments of each variable, and the trust ratio.
    """
    count = len(members[0].slots) + 1
    if len(members) == 1:
        param, slots, grad, decay = members[0]
        new = rules.update(
            ops, hyper, param, slots, grad, step, weight_decay=decay, **now
        )
        return [list(new[:count])], new.trust_ratio

    def joined(arrays: Sequence[Array]) -> Array:
        flat = [ops.reshape(x, (-1,)) for x in arrays]
        return ops.concatenate(flat, 0)

    params, slots, grads, decays = zip(*members)
    # Units are those of each variable.
    limit, hyper = hyper.clip_by_unit, hyper._replace(clip_by_unit=None)
    grads = tuple(clip_by_unit(ops, x, g, limit) for x, g in zip(params, grads))
    decay = joined([d * ops.ones_like(g) for d, g in zip(decays, grads)])
    new = rules.update(
        ops,
        hyper,
        joined(params),
        [joined(moments) for moments in zip(*slots)],
        joined(grads),
        step,
        weight_decay=decay,
        **now,
    )
    results: list[list[Array]] = []
    vectors: list[Array] = list(new[:count])
    begin = 0
    for param in params:
        shape = [int(length) for length in param.shape]
        end = begin + _size(shape)
        results.append([ops.reshape(x[begin:end], shape) for x in vectors])
        begin = end
    return results, new.trust_ratio


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
