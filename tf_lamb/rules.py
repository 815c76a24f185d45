"""LAMB and LARS: the papers' equations as pure functions of arrays.

Every function takes `ops` first: a module with NumPy's names (`arithmetic.Ops`
lists those that are called), such as `numpy`, `keras.ops` or
`tensorflow.experimental.numpy`. Nothing here knows a variable, its name, or a
framework: for a variable that is excluded from weight decay, `weight_decay` is
0; for one that is excluded from layer adaptation, `adapt` is False. What stays
the same for a whole run is a `Lamb` or a `Lars`.

Every backend runs these functions. A compiled kernel differs from NumPy in two
arguments: `ops`, and `norm_of`, which says how a norm is taken.

Arithmetic and norms are in float32 for every narrower dtype (and in float64 for
float64). Results have the dtype of the array that they replace. The direction
is computed from the moments as they are stored. Moments in bfloat16 are rounded
by chance (`arithmetic.round_by_chance`).

Letters, as in the papers: `x` (`param`) is the parameter of one layer, `g`
(`grad`) its gradient, `m` and `v` are the moments, `u` is the direction,
`lambda` the weight decay, `phi` the scaling function, and `t` (`step`) the
count of updates, 1 at the first one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from tf_lamb import directions, moments
from tf_lamb.arithmetic import (
    Array,
    NormOf,
    Ops,
    dtype_name,
    narrow,
    stored,
    unless_skipped,
    whole_norm,
    widen,
)
from tf_lamb.hyperparameters import LAMB_FORMS, Hyper, Lamb, Lars
from tf_lamb.trust_ratios import scaled_norm, trust_ratio
from tf_lamb.unit_clipping import clip_by_unit, norm_of_clipped

__all__ = ["Step", "lamb", "lars", "trust_ratio", "update"]

_LAMB, _LARS = Lamb(), Lars()

# Which norm divides |x|: |g| + lambda |x|, |g + lambda x|, or the momentum's.
_DENOMINATOR = {
    "you2017": "parts",
    "optax": "sum",
    "timm": "parts",
    "model_garden": "momentum",
    "you2020": "momentum",
}
_RATE_INSIDE_MOMENTUM = ("you2017", "optax")


class Step(NamedTuple):
    """The result of one update of one parameter.

    Attributes:
      param: new parameter, `[*shape]`, dtype of the old one.
      m: new first moment (LARS: momentum buffer), `[*shape]`.
      v: new second moment, `[*shape]`; None for LARS.
      trust_ratio: of the shape that `norm_of` gives, by default a scalar;
        float32 (float64 for a float64 parameter); 1 where layer adaptation does
        not apply.
    """

    param: Array
    m: Array
    v: Array | None
    trust_ratio: Array


def _descend(
    ops: Ops, param: Array, moved: Array, decay: Array | None = None
) -> Array:
    """`x` less what it is moved by and `decay * x`, in the dtype of `x`."""
    x = widen(ops, param)
    # Not (1 - decay) * x: for a small decay, that factor has few digits.
    return narrow(
        ops, x - (moved if decay is None else moved + decay * x), param
    )


def lamb(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    step: Array,
    *,
    learning_rate: Array,
    weight_decay: Array = 0.0,
    adapt: bool = True,
    hyper: Lamb = _LAMB,
    proceed: Array | None = None,
    norm_of: NormOf = whole_norm,
) -> Step:
    r"""One LAMB update of one layer, in one of the forms in use.

    The paper's, `form="paper"`:

    $$\begin{aligned}
    m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, &
    \hat m_t &= m_t / (1-\beta_1^t) \\
    v_t &= \beta_2 v_{t-1} + (1-\beta_2) g_t^2, &
    \hat v_t &= v_t / (1-\beta_2^t) \\
    u_t &= \frac{\hat m_t}{\sqrt{\hat v_t}+\epsilon} + \lambda x_t, &
    x_{t+1} &= x_t - \eta_t \frac{\phi(\|x_t\|)}{\|u_t\|} u_t
    \end{aligned}$$

    What `hyperparameters.LAMB_FORMS` says of a form changes it:

    - `decoupled_decay`: `(1 - eta_t lambda) x_t` is in place of `x_t`, and
      `u_t` has no decay.
    - `corrects_step`: `m_hat = m`, `v_hat = v`, and the step, outside the
      ratio, has the factor `sqrt(1-beta_2^t) / (1-beta_1^t)`.
    - `undecayed="not_adapted"`: the ratio is 1 where `lambda` is 0.
    - `two_directions`: `g_t / |g_t|` is in place of `g_t` (0 for 0), and the
      step is, with `v_hat` and the ratio's `phi(|x|) / |u|` of each direction,

    $$\begin{aligned}
    x_{t+1} &= x_t - \eta_t \Big(
      \beta_1 \frac{\phi(\|x_t\|)}{\|u_t\|} u_t +
      (1-\beta_1) \frac{\phi(\|x_t\|)}{\|u'_t\|} u'_t \Big), &
    u'_t &= \frac{g_t}{\sqrt{\hat v_t}+\epsilon} + \lambda x_t
    \end{aligned}$$

    Args:
      ops: array functions.
      param: `x_t`, `[*shape]`, any floating dtype.
      grad: `g_t`, `[*shape]`.
      m: `m_{t-1}`, `[*shape]`, 0 before the first step.
      v: `v_{t-1}`, `[*shape]`, 0 before the first step.
      step: `t`, floating scalar, 1 at the first update.
      learning_rate: `eta_t`, scalar >= 0.
      weight_decay: `lambda` >= 0, scalar, or `[*shape]` where variables of
        different decay are one array; 0 for an excluded variable.
      adapt: whether the trust ratio applies; if not it is 1.
      hyper: the constants of the run; by default those of the class.
      proceed: bool scalar; False skips the step: parameter and moments stay.
        None: it is never skipped.
      norm_of: how the norms are taken.

    Returns:
      A `Step`. Of two directions, its trust ratio is that of `u_t`.

    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2; Zheng et al. 2020
      (arXiv:2006.13484), LANS; the look-ahead is that of Dozat 2016,
      "Incorporating Nesterov Momentum into Adam", with a constant beta.
    """
    beta_1, beta_2, form = hyper.beta_1, hyper.beta_2, LAMB_FORMS[hyper.form]
    wide = clip_by_unit(ops, param, grad, hyper.clip_by_unit)
    if form.two_directions:
        norm = norm_of_clipped(ops, hyper, wide, norm_of)
        wide = directions.unit(ops, wide, norm)
    share = 1 - beta_1 if hyper.grad_averaging else 1.0
    new_m = beta_1 * widen(ops, m) + share * wide
    new_v = beta_2 * widen(ops, v) + (1 - beta_2) * ops.square(wide)
    new_m = unless_skipped(ops, proceed, stored(ops, new_m, m, step), m)
    new_v = unless_skipped(ops, proceed, stored(ops, new_v, v, step), v)

    decay = learning_rate * weight_decay if form.decoupled_decay else None
    if adapt:
        x_norm = norm_of(ops, hyper.norm, param)
        if decay is not None:  # that of the decayed parameter
            x_norm = scaled_norm(
                ops, hyper.norm, param, x_norm, 1 - decay, norm_of
            )
    arrays = param, wide, new_m, new_v
    ratios, moves = [], []
    for part, direction in directions.parts(
        ops, hyper, step, weight_decay, arrays, norm_of
    ):
        update = direction(*arrays)
        ratio = ops.ones((), dtype=dtype_name(update))
        if adapt:
            ratio = trust_ratio(
                ops,
                x_norm,
                norm_of(ops, hyper.norm, update, direction, arrays),
                phi_bounds=hyper.phi_bounds,
                bounds=hyper.trust_ratio_bounds,
            )
        if adapt and form.undecayed == "not_adapted":
            ratio = ops.where(weight_decay > 0, ratio, ops.ones_like(ratio))
        rate = learning_rate * ratio
        if form.corrects_step and hyper.bias_correction:
            rate = rate * moments.step_correction(
                ops, beta_1, beta_2, step, ratio
            )
        ratios.append(ratio)
        moves.append((rate if part == 1 else part * rate) * update)
    new_param = _descend(ops, param, sum(moves[1:], moves[0]), decay)
    new_param = unless_skipped(ops, proceed, new_param, param)
    return Step(new_param, new_m, new_v, ratios[0])


def lars(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    *,
    learning_rate: Array,
    weight_decay: Array = 0.0,
    adapt: bool = True,
    hyper: Lars = _LARS,
    proceed: Array | None = None,
    norm_of: NormOf = whole_norm,
    step: Array | None = None,
) -> Step:
    r"""One LARS update of one layer, in one of the five forms in use.

    With `d = g + lambda x` and `c` the trust coefficient:

    | form | local rate | momentum | step |
    |---|---|---|---|
    | `you2017` | `c |x| / (|g| + lambda |x| + eps)` | `m = mu m + lr local d` | `x -= m` |
    | `optax` | `c |x| / (|d| + eps)` | `m = mu m + lr local d` | `x -= m` |
    | `timm` | `c |x| / (|g| + lambda |x| + eps)` | `m = mu m + local d` | `x -= lr m` |
    | `model_garden` | `c |x| / (|m| + eps)` | `m = mu m + d` | `x -= lr local m` |
    | `you2020` | `phi(|x|) / (|m| + eps)` | `m = mu m + (1-mu) d` | `x -= lr local m` |

    With Nesterov momentum the step has `mu m + (what was just added to m)` in
    place of `m`. The local rate is 1 where a norm of its fraction is 0.

    Args:
      ops: array functions.
      param: `x`, `[*shape]`, any floating dtype.
      grad: `g`, `[*shape]`.
      m: momentum buffer, `[*shape]`, 0 before the first step.
      learning_rate: `lr`, scalar >= 0.
      weight_decay: `lambda` >= 0, scalar, or `[*shape]` where variables of
        different decay are one array; 0 for an excluded variable.
      adapt: whether the local rate applies; if not it is 1.
      hyper: the constants of the run; by default those of the class.
      proceed: bool scalar; False skips the step: parameter and momentum stay.
        None: it is never skipped.
      norm_of: how the norms are taken.
      step: `t`, floating scalar; only a momentum in bfloat16 needs it, which is
        rounded by chance.

    Returns:
      A `Step` whose `v` is None and whose `trust_ratio` is the local rate.

    Raises:
      ValueError: the momentum is bfloat16 and `step` is None.

    References:
      You, Gitman, Ginsburg 2017 (arXiv:1708.03888), Algorithm 1; You et al.
      2020 (arXiv:1904.00962), Algorithm 1.
    """  # noqa: E501
    mu, form, nesterov = hyper.momentum, hyper.form, hyper.nesterov
    measured = _DENOMINATOR[form]
    grad = clip_by_unit(ops, param, grad, hyper.clip_by_unit)

    def decayed(x: Array, g: Array) -> Array:
        return widen(ops, g) + weight_decay * widen(ops, x)

    new_m = m
    if measured == "momentum":
        share = 1 - mu if form == "you2020" else 1.0
        new_m = mu * widen(ops, m) + share * decayed(param, grad)
        new_m = unless_skipped(ops, proceed, stored(ops, new_m, m, step), m)

    # Of the momentum as stored: so a compiler can compute it twice instead of
    # keeping it.
    def direction(x: Array, g: Array, m: Array) -> Array:
        if measured != "momentum":
            return decayed(x, g)
        m = widen(ops, m)
        return decayed(x, g) + mu * m if nesterov else m

    arrays = param, grad, new_m
    update = direction(*arrays)
    ratio = ops.ones((), dtype=dtype_name(update))
    if adapt:
        x_norm = norm_of(ops, hyper.norm, param)
        if measured == "parts":
            norm = norm_of_clipped(ops, hyper, grad, norm_of)
            decayed_norm = scaled_norm(
                ops, hyper.norm, param, x_norm, weight_decay, norm_of
            )
        else:
            norm = norm_of(ops, hyper.norm, update, direction, arrays)
            decayed_norm = None
        ratio = _local_rate(ops, x_norm, norm, decayed_norm, hyper)
    if measured == "momentum":
        new = _descend(ops, param, learning_rate * ratio * update)
    else:
        inside = form in _RATE_INSIDE_MOMENTUM
        added = (learning_rate * ratio if inside else ratio) * update
        # Selected before it is used: a compiler reads it where it is stored.
        new_m = stored(ops, mu * widen(ops, m) + added, m, step)
        new_m = unless_skipped(ops, proceed, new_m, m)
        moved = widen(ops, new_m)
        moved = added + mu * moved if nesterov else moved
        new = _descend(ops, param, moved if inside else learning_rate * moved)
    return Step(unless_skipped(ops, proceed, new, param), new_m, None, ratio)


def _local_rate(
    ops: Ops,
    param_norm: Array,
    measured_norm: Array,
    decayed_norm: Array | None,
    hyper: Lars,
) -> Array:
    """The local rate, a column of the table in `lars`.

    It is 1 where `|x|` or the measured norm (of the direction, or of the
    gradient where the form adds the norms of both parts) is 0.
    """
    divisor = measured_norm + hyper.epsilon
    if decayed_norm is not None:
        divisor = divisor + decayed_norm
    return trust_ratio(
        ops,
        param_norm,
        measured_norm,
        phi_bounds=hyper.phi_bounds,
        bounds=hyper.trust_ratio_bounds,
        coefficient=1.0 if hyper.form == "you2020" else hyper.trust_coefficient,
        divisor=divisor,
    )


def update(
    ops: Ops,
    hyper: Hyper,
    param: Array,
    slots: Sequence[Array],
    grad: Array,
    step: Array,
    **now: Any,
) -> Step:
    """`lamb` or `lars`, whichever has these constants.

    Args:
      ops: array functions.
      hyper: the constants of the run.
      param: `[*shape]`, any floating dtype.
      slots: LAMB's `m` and `v`, or LARS' momentum buffer, each `[*shape]`.
      grad: `[*shape]`.
      step: `t`, floating scalar.
      **now: `learning_rate` and the rule's other keyword arguments.
    """
    if isinstance(hyper, Lamb):
        m, v = slots
        return lamb(ops, param, grad, m, v, step, hyper=hyper, **now)
    (m,) = slots
    return lars(ops, param, grad, m, step=step, hyper=hyper, **now)
