"""LAMB and LARS: the papers' equations as pure functions of arrays.

Every function takes `ops` first: a module with NumPy's names (`arithmetic.Ops`
lists those that are called), such as `numpy`, `keras.ops` or
`tensorflow.experimental.numpy`. Nothing here knows a variable, its name, or a
framework: for a variable that is excluded from weight decay, `weight_decay` is
0; for one that is excluded from layer adaptation, `adapt` is False.

Arithmetic and norms are in float32 for every narrower dtype (and in float64 for
float64). Results have the dtype of the array that they replace. The direction
is computed from the moments as they are stored. Moments in bfloat16 are rounded
by chance (`arithmetic.round_by_chance`).

Letters, as in the papers: `x` (`param`) is the parameter of one layer, `g`
(`grad`) its gradient, `m` and `v` are the moments, `u` (`update`) is the
direction, `lambda` the weight decay, `phi` the scaling function, and `t`
(`step`) the count of updates, 1 at the first one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

from tf_lamb.arithmetic import (
    Array,
    BitOps,
    Ops,
    dtype_name,
    narrow,
    norm,
    round_by_chance,
    unless_skipped,
    widen,
)

# The parts of both rules, for other compositions of them (`fused.py`), are not
# listed.
__all__ = [
    "LARS_FORMS",
    "MOMENT_DTYPES",
    "NESTEROV_FORMS",
    "Step",
    "lamb",
    "lars",
    "trust_ratio",
]

NESTEROV_FORMS = (None, "nadam", "nadam_both")
MOMENT_DTYPES = (None, "float32", "bfloat16")
LARS_FORMS = ("you2017", "optax", "timm", "model_garden", "you2020")

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
      trust_ratio: scalar, float32 (float64 for a float64 parameter); 1 where
        layer adaptation does not apply.
    """

    param: Array
    m: Array
    v: Array | None
    trust_ratio: Array


def trust_ratio(
    ops: Ops,
    param_norm: Array,
    update_norm: Array,
    *,
    phi_bounds: tuple[float, float] | None = None,
    coefficient: float = 1.0,
    divisor: Array | None = None,
) -> Array:
    r"""Ratio of a layer's norm to that of its update.

    $$\frac{c\,\phi(\|x\|)}{\|u\|},\qquad
      \phi(z) = \min(\max(z, \gamma_l), \gamma_u)$$

    and 1 where `|x|` or `|u|` is 0.

    Args:
      ops: array functions.
      param_norm: `|x|`, scalar >= 0.
      update_norm: `|u|`, scalar >= 0.
      phi_bounds: `(gamma_l, gamma_u)`, or None for `phi(z) = z`.
      coefficient: `c`, LARS' trust coefficient; 1 for LAMB.
      divisor: replaces `|u|` as the divisor (LARS adds terms to it).

    Returns:
      A scalar.

    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2.
    """
    divisor = update_norm if divisor is None else divisor
    one = ops.ones_like(divisor)
    numerator = param_norm
    if phi_bounds is not None:
        # For torch, Keras makes a Python number a float32.
        lower, upper = (bound * one for bound in phi_bounds)
        numerator = ops.minimum(ops.maximum(numerator, lower), upper)
    applies = (param_norm > 0) & (update_norm > 0)
    safe = ops.where(applies, divisor, one)
    return ops.where(applies, coefficient * numerator / safe, one)


def _one_minus_power(ops: Ops, beta: float, exponent: Array) -> Array:
    """`1 - beta ** exponent`; the plain form loses 5 digits at beta 0.999."""
    if beta == 0:
        return 1.0
    return -ops.expm1(exponent * math.log(beta))


def _stored(ops: Ops, moment: Array, old: Array, step: Array | None) -> Array:
    """A moment in the dtype of the old one; bfloat16 is rounded by chance."""
    if dtype_name(old) == "bfloat16":
        if step is None:
            raise ValueError(
                "step: expected the count of updates, by which a bfloat16 "
                "moment is rounded, got None."
            )
        moment = round_by_chance(cast(BitOps, ops), moment, step)
    return narrow(ops, moment, old)


def _moment_estimate(
    ops: Ops,
    moment: Array,
    sample: Array,
    beta: float,
    step: Array,
    bias_correction: bool,
    lookahead: bool,
) -> Array:
    """`moment` without its bias towards 0, or Nesterov's look-ahead of it."""
    if not lookahead:
        if not bias_correction:
            return moment
        # A factor, because a division of every element would cost more.
        return moment * (1.0 / _one_minus_power(ops, beta, step))
    ahead, now = beta * moment, (1 - beta) * sample
    if bias_correction:
        ahead = ahead / _one_minus_power(ops, beta, step + 1)
        now = now / _one_minus_power(ops, beta, step)
    return ahead + now


def lamb_moments(
    ops: Ops,
    grad: Array,
    m: Array,
    v: Array,
    step: Array,
    *,
    beta_1: float,
    beta_2: float,
) -> tuple[Array, Array]:
    r"""LAMB's new moments, as they are stored.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t,\qquad
      v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2$$

    The arguments are those of `lamb`.

    Returns:
      `m_t` and `v_t`, `[*shape]`, in the dtypes of `m` and `v`.
    """
    g = widen(ops, grad)
    new_m = beta_1 * widen(ops, m) + (1 - beta_1) * g
    new_v = beta_2 * widen(ops, v) + (1 - beta_2) * ops.square(g)
    return _stored(ops, new_m, m, step), _stored(ops, new_v, v, step)


def lamb_update(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    step: Array,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: Array,
    bias_correction: bool = True,
    nesterov: str | None = None,
) -> Array:
    r"""LAMB's direction, before the trust ratio, from the new moments.

    $$u_t = \frac{\hat m_t}{\sqrt{\hat v_t}+\epsilon} + \lambda x_t$$

    It works by element: parts of the arrays give that part of `u`. The
    arguments are those of `lamb`, but `m` and `v` are the new moments.

    Returns:
      `u_t`, `[*shape]`, float32 (float64 for a float64 `x`).
    """
    x, g = widen(ops, param), widen(ops, grad)
    m_hat = _moment_estimate(
        ops, widen(ops, m), g, beta_1, step, bias_correction, bool(nesterov)
    )
    v_hat = _moment_estimate(
        ops,
        widen(ops, v),
        ops.square(g),
        beta_2,
        step,
        bias_correction,
        nesterov == "nadam_both",
    )
    return m_hat / (ops.sqrt(v_hat) + epsilon) + weight_decay * x


def descend(ops: Ops, param: Array, update: Array, rate: Array) -> Array:
    """`x - rate * u`, `[*shape]`, in the dtype of `x` (`param`)."""
    return narrow(ops, widen(ops, param) - rate * update, param)


def lamb(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    step: Array,
    *,
    learning_rate: Array,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay: Array = 0.0,
    adapt: bool = True,
    bias_correction: bool = True,
    nesterov: str | None = None,
    norm_kind: str = "l2",
    phi_bounds: tuple[float, float] | None = None,
    proceed: Array | None = None,
) -> Step:
    r"""One LAMB update of one layer.

    $$\begin{aligned}
    m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, &
    \hat m_t &= m_t / (1-\beta_1^t) \\
    v_t &= \beta_2 v_{t-1} + (1-\beta_2) g_t^2, &
    \hat v_t &= v_t / (1-\beta_2^t) \\
    u_t &= \frac{\hat m_t}{\sqrt{\hat v_t}+\epsilon} + \lambda x_t, &
    x_{t+1} &= x_t - \eta_t \frac{\phi(\|x_t\|)}{\|u_t\|} u_t
    \end{aligned}$$

    Args:
      ops: array functions.
      param: `x_t`, `[*shape]`, any floating dtype.
      grad: `g_t`, `[*shape]`.
      m: `m_{t-1}`, `[*shape]`, 0 before the first step.
      v: `v_{t-1}`, `[*shape]`, 0 before the first step.
      step: `t`, floating scalar, 1 at the first update.
      learning_rate: `eta_t`, scalar >= 0.
      beta_1: in [0, 1).
      beta_2: in [0, 1).
      epsilon: > 0, added to the root.
      weight_decay: `lambda`, scalar >= 0; 0 for an excluded variable.
      adapt: whether the trust ratio applies; if not it is 1.
      bias_correction: False drops both hats, as ALBERT's code does.
      nesterov: None; "nadam": Dozat's look-ahead of the first moment,
        `beta_1 m_t / (1-beta_1^(t+1)) + (1-beta_1) g_t / (1-beta_1^t)`;
        "nadam_both": the same for the second moment, with `g_t^2`, as well.
      norm_kind: one of `arithmetic.NORMS`, for `|x|` and `|u|` alike.
      phi_bounds: `(gamma_l, gamma_u)` of phi, or None for `phi(z) = z`.
      proceed: bool scalar; False skips the step: parameter and moments stay.
        None: it is never skipped.

    Returns:
      A `Step`.

    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2; the look-ahead is that of
      Dozat 2016, "Incorporating Nesterov Momentum into Adam", with a constant
      beta.
    """
    new_m, new_v = lamb_moments(
        ops, grad, m, v, step, beta_1=beta_1, beta_2=beta_2
    )
    # The direction is computed from the moments as stored: so a compiler can
    # compute it twice instead of keeping it.
    new_m = unless_skipped(ops, proceed, new_m, m)
    new_v = unless_skipped(ops, proceed, new_v, v)
    update = lamb_update(
        ops,
        param,
        grad,
        new_m,
        new_v,
        step,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        weight_decay=weight_decay,
        bias_correction=bias_correction,
        nesterov=nesterov,
    )
    ratio = ops.ones_like(ops.sum(update))
    if adapt:
        ratio = trust_ratio(
            ops,
            norm(ops, param, norm_kind),
            norm(ops, update, norm_kind),
            phi_bounds=phi_bounds,
        )
    new_param = descend(ops, param, update, learning_rate * ratio)
    new_param = unless_skipped(ops, proceed, new_param, param)
    return Step(new_param, new_m, new_v, ratio)


def lars_moment(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    *,
    momentum: float,
    weight_decay: Array,
    form: str,
    step: Array | None = None,
) -> Array:
    r"""The new momentum, in the forms that divide by its norm; else `m`.

    $$m_t = \mu m_{t-1} + s\,(g_t + \lambda x_t)$$

    with `s = 1` ("model_garden") or `s = 1 - mu` ("you2020"), `[*shape]`, in
    the dtype of `m`. The arguments are those of `lars`.
    """
    if _DENOMINATOR[form] != "momentum":
        return m
    share = 1 - momentum if form == "you2020" else 1.0
    decayed = widen(ops, grad) + weight_decay * widen(ops, param)
    new_m = momentum * widen(ops, m) + share * decayed
    return _stored(ops, new_m, m, step)


def lars_update(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    *,
    momentum: float,
    weight_decay: Array,
    form: str,
    nesterov: bool = False,
) -> Array:
    r"""The direction that the local rate scales.

    $$d = g + \lambda x$$

    or, in the forms that divide by the momentum's norm, `m`, and with Nesterov
    momentum `d + mu m`: `[*shape]`, float32 (float64 for a float64 `x`). It
    works by element: parts of the arrays give that part of the direction. The
    arguments are those of `lars`, but `m` is what `lars_moment` returned.
    """
    normalised = _DENOMINATOR[form] == "momentum"
    if normalised and not nesterov:
        return widen(ops, m)
    decayed = widen(ops, grad) + weight_decay * widen(ops, param)
    return decayed + momentum * widen(ops, m) if normalised else decayed


def lars_measures_grad(form: str) -> bool:
    """Whether `form` divides by the gradient's norm, not the direction's."""
    return _DENOMINATOR[form] == "parts"


def lars_ratio(
    ops: Ops,
    param_norm: Array,
    measured_norm: Array,
    *,
    weight_decay: Array,
    trust_coefficient: float,
    epsilon: float,
    form: str,
    phi_bounds: tuple[float, float] | None = None,
) -> Array:
    r"""The local rate, a scalar.

    $$\frac{c\,\phi(\|x\|)}{\|z\| + \epsilon}\quad\text{or}\quad
      \frac{c\,\phi(\|x\|)}{\|g\| + \lambda \|x\| + \epsilon}$$

    with `z` the direction; the second one where `lars_measures_grad(form)`. It
    is 1 where `|x|` or the measured norm, `|z|` or `|g|`, is 0.
    """
    divisor = measured_norm + epsilon
    if lars_measures_grad(form):
        divisor = divisor + weight_decay * param_norm
    return trust_ratio(
        ops,
        param_norm,
        measured_norm,
        phi_bounds=phi_bounds,
        coefficient=1.0 if form == "you2020" else trust_coefficient,
        divisor=divisor,
    )


def lars_late_moment(
    ops: Ops,
    update: Array,
    m: Array,
    ratio: Array,
    *,
    learning_rate: Array,
    momentum: float,
    form: str,
    step: Array | None = None,
) -> Array:
    r"""The new momentum, in the forms that scale what is added; else `m`.

    $$m_t = \mu m_{t-1} + a\, d_t$$

    with `a` the local rate (`ratio`), times the learning rate in "you2017" and
    "optax", and `d` the direction (`update`): `[*shape]`, the dtype of `m`.
    """
    if _DENOMINATOR[form] == "momentum":
        return m
    scaled = _scaled(update, ratio, learning_rate, form)
    return _stored(ops, momentum * widen(ops, m) + scaled, m, step)


def _scaled(
    update: Array, ratio: Array, learning_rate: Array, form: str
) -> Array:
    inside = form in _RATE_INSIDE_MOMENTUM
    return (learning_rate * ratio if inside else ratio) * update


def lars_param(
    ops: Ops,
    param: Array,
    update: Array,
    m: Array,
    ratio: Array,
    *,
    learning_rate: Array,
    momentum: float,
    form: str,
    nesterov: bool = False,
) -> Array:
    """The new parameter: the column "step" of the table in `lars`.

    `update` is the direction, `m` the new momentum, `ratio` the local rate.
    """
    if _DENOMINATOR[form] == "momentum":
        return descend(ops, param, update, learning_rate * ratio)
    step = widen(ops, m)
    if nesterov:
        scaled = _scaled(update, ratio, learning_rate, form)
        step = scaled + momentum * step
    inside = form in _RATE_INSIDE_MOMENTUM
    return descend(ops, param, step, 1.0 if inside else learning_rate)


def lars(
    ops: Ops,
    param: Array,
    grad: Array,
    m: Array,
    *,
    learning_rate: Array,
    momentum: float = 0.9,
    weight_decay: Array = 0.0,
    trust_coefficient: float = 0.001,
    epsilon: float = 0.0,
    adapt: bool = True,
    form: str = "you2017",
    nesterov: bool = False,
    norm_kind: str = "l2",
    phi_bounds: tuple[float, float] | None = None,
    proceed: Array | None = None,
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
      momentum: `mu`, in [0, 1).
      weight_decay: `lambda`, scalar >= 0; 0 for an excluded variable.
      trust_coefficient: `c`, > 0; not used by `you2020`.
      epsilon: >= 0, added to the denominator.
      adapt: whether the local rate applies; if not it is 1.
      form: one of `LARS_FORMS`: the 2017 paper, TF contrib and MLPerf; optax
        (and Model Garden with `classic_momentum=True`); timm; Model Garden with
        `classic_momentum=False`; Algorithm 1 of the LAMB paper.
      nesterov: not defined for `you2020`.
      norm_kind: one of `arithmetic.NORMS`.
      phi_bounds: bounds of phi on `|x|`, or None for `phi(z) = z`.
      proceed: bool scalar; False skips the step: parameter and momentum stay.
        None: it is never skipped.
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
    same: dict[str, Any] = dict(
        momentum=momentum, weight_decay=weight_decay, form=form
    )
    old_m = m
    m = lars_moment(ops, param, grad, old_m, step=step, **same)
    # The direction is computed from the moments as stored: so a compiler can
    # compute it twice instead of keeping it.
    m = unless_skipped(ops, proceed, m, old_m)
    update = lars_update(ops, param, grad, m, nesterov=nesterov, **same)
    ratio = ops.ones_like(ops.sum(update))
    if adapt:
        measured = grad if lars_measures_grad(form) else update
        ratio = lars_ratio(
            ops,
            norm(ops, param, norm_kind),
            norm(ops, measured, norm_kind),
            weight_decay=weight_decay,
            trust_coefficient=trust_coefficient,
            epsilon=epsilon,
            form=form,
            phi_bounds=phi_bounds,
        )
    last: dict[str, Any] = dict(
        learning_rate=learning_rate, momentum=momentum, form=form
    )
    new_m = lars_late_moment(ops, update, m, ratio, step=step, **last)
    new_m = unless_skipped(ops, proceed, new_m, m)
    new = lars_param(
        ops, param, update, new_m, ratio, nesterov=nesterov, **last
    )
    new = unless_skipped(ops, proceed, new, param)
    return Step(new, new_m, None, ratio)
