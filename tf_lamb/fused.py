"""The compiled update: TensorFlow kernels that the front ends share.

One `tf.function(jit_compile=True)` serves all variables of one signature
(shape and dtypes) and is called once for each of them, so that XLA compiles as
often as there are signatures, not variables. Rate, decay, step and clipping
factor are tensors: nothing recompiles when they change. Norms are taken
between the two kernels by TensorFlow's own reduction, which on CPU reads memory
several times faster than XLA's.

Inside a train step that is compiled as a whole, the kernels are inlined.
"""

import functools
import threading
import types
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from tf_lamb import rules

ops = types.SimpleNamespace(
    abs=tf.abs,
    array=lambda x, dtype: tf.cast(x, dtype),
    cast=tf.cast,
    clip=tf.clip_by_value,
    convert_to_numpy=lambda x: x.numpy(),
    convert_to_tensor=tf.convert_to_tensor,
    equal=tf.equal,
    expm1=tf.math.expm1,
    isfinite=tf.math.is_finite,
    logical_and=tf.logical_and,
    max=tf.reduce_max,
    maximum=tf.maximum,
    minimum=tf.minimum,
    ones=tf.ones,
    ones_like=tf.ones_like,
    sqrt=tf.sqrt,
    square=tf.square,
    stack=tf.stack,
    sum=tf.reduce_sum,
    unstack=tf.unstack,
    where=tf.where,
)


class LambOptions(NamedTuple):
    """The arguments of `rules.lamb` that stay the same for a whole run."""

    beta_1: float
    beta_2: float
    epsilon: float
    bias_correction: bool
    nesterov: Optional[str]
    norm_kind: str
    phi_bounds: Optional[Tuple[float, float]]


class LarsOptions(NamedTuple):
    """The arguments of `rules.lars` that stay the same for a whole run."""

    momentum: float
    trust_coefficient: float
    epsilon: float
    form: str
    nesterov: bool
    norm_kind: str
    phi_bounds: Optional[Tuple[float, float]]


class Scalars(NamedTuple):
    """What changes from step to step, for one variable.

    Attributes:
      learning_rate: float32 scalar.
      weight_decay: float32 scalar, 0 for an excluded variable.
      step: float32 scalar, 1 at the first update.
      scale: float32 scalar that multiplies the gradient (clipping).
      proceed: bool scalar; False leaves parameter and moments as they were.
    """

    learning_rate: tf.Tensor
    weight_decay: tf.Tensor
    step: tf.Tensor
    scale: tf.Tensor
    proceed: tf.Tensor


_SCALAR_SPECS = Scalars(
    *[tf.TensorSpec((), tf.float32)] * 4, tf.TensorSpec((), tf.bool)
)
_kernels = {}
_kernels_lock = threading.Lock()


def trace_count() -> int:
    """How often this process has traced a kernel so far."""
    return sum(
        kernel.experimental_get_tracing_count() for kernel in _kernels.values()
    )


def _call(
    body: Callable,
    options: Any,
    arrays: Sequence[tf.Tensor],
    scalars: Scalars,
    jit_compile: bool,
):
    """`body(options, *arrays, scalars)`, compiled once for each signature."""
    if not jit_compile:
        return body(options, *arrays, scalars)
    key = (body, options, *((tuple(x.shape), x.dtype) for x in arrays))
    # Replicas of MirroredStrategy are threads.
    with _kernels_lock:
        if key not in _kernels:
            _kernels[key] = tf.function(
                functools.partial(body, options),
                input_signature=[
                    *(tf.TensorSpec(x.shape, x.dtype) for x in arrays),
                    _SCALAR_SPECS,
                ],
                jit_compile=True,
                autograph=False,
            )
    return _kernels[key](*arrays, scalars)


def _wide_dtype(x: tf.Tensor) -> tf.DType:
    return tf.float64 if x.dtype == tf.float64 else tf.float32


def half_squared_norm(x: tf.Tensor) -> tf.Tensor:
    """Half the sum of squares in float32 (float64 for float64), a scalar."""
    return tf.nn.l2_loss(rules.widen(ops, x))


def _measure(x: tf.Tensor, kind: str) -> tf.Tensor:
    """What `_norm` makes a norm of, by the fastest native reduction."""
    if kind == "l2":
        return half_squared_norm(x)
    return rules.norm(ops, x, kind)


def _norm(measure: tf.Tensor, kind: str) -> tf.Tensor:
    return tf.sqrt(2 * measure) if kind == "l2" else measure


def _scaled(grad: tf.Tensor, scalars: Scalars) -> tf.Tensor:
    grad = rules.widen(ops, grad)
    return grad * tf.cast(scalars.scale, grad.dtype)


def _lamb_direction(options: LambOptions, param, grad, m, v, scalars):
    dtype = _wide_dtype(param)
    direction = rules.lamb_direction(
        ops,
        param,
        _scaled(grad, scalars),
        m,
        v,
        tf.cast(scalars.step, dtype),
        beta_1=options.beta_1,
        beta_2=options.beta_2,
        epsilon=options.epsilon,
        weight_decay=tf.cast(scalars.weight_decay, dtype),
        bias_correction=options.bias_correction,
        nesterov=options.nesterov,
    )
    return (
        direction.update,
        tf.where(scalars.proceed, direction.m, m),
        tf.where(scalars.proceed, direction.v, v),
    )


def _lamb_apply(options, param, update, param_measure, measure, scalars):
    ratio = rules.trust_ratio(
        ops,
        _norm(param_measure, options.norm_kind),
        _norm(measure, options.norm_kind),
        phi_bounds=options.phi_bounds,
    )
    rate = tf.cast(scalars.learning_rate, ratio.dtype) * ratio
    new_param = rules.descend(ops, param, update, rate)
    return tf.where(scalars.proceed, new_param, param), ratio


def lamb(
    param: tf.Variable,
    grad: tf.Tensor,
    m: tf.Variable,
    v: tf.Variable,
    scalars: Scalars,
    *,
    adapt: bool,
    options: LambOptions,
    jit_compile: bool = True,
) -> tf.Tensor:
    """Updates `param`, `m` and `v` in place by `rules.lamb`.

    Args:
      param: variable of any shape and floating dtype.
      grad: dense gradient, same shape.
      m: first moment.
      v: second moment.
      scalars: what changes from step to step.
      adapt: whether the trust ratio applies.
      options: what does not change.
      jit_compile: False runs the same operations uncompiled.

    Returns:
      The trust ratio, a scalar.
    """
    x = tf.convert_to_tensor(param)
    moments = (tf.convert_to_tensor(m), tf.convert_to_tensor(v))
    # Norm and bounds are not the first kernel's concern, nor part of its key.
    update, new_m, new_v = _call(
        _lamb_direction,
        options._replace(norm_kind="", phi_bounds=None),
        (x, grad, *moments),
        scalars,
        jit_compile,
    )
    # The trust ratio of norms that are 0 is 1.
    measures = [tf.zeros((), update.dtype)] * 2
    if adapt:
        measures = [_measure(y, options.norm_kind) for y in (x, update)]
    new_param, ratio = _call(
        _lamb_apply, options, (x, update, *measures), scalars, jit_compile
    )
    m.assign(new_m)
    v.assign(new_v)
    param.assign(new_param)
    return ratio


def _lars_direction(options: LarsOptions, param, grad, m, scalars):
    return rules.lars_direction(
        ops,
        param,
        _scaled(grad, scalars),
        m,
        momentum=options.momentum,
        weight_decay=tf.cast(scalars.weight_decay, _wide_dtype(param)),
        form=options.form,
        nesterov=options.nesterov,
    )


def _lars_measured(options: LarsOptions, param, grad, m, scalars):
    return _lars_direction(options, param, grad, m, scalars).update


def _lars_apply(
    options: LarsOptions, param, grad, m, param_measure, measure, scalars
):
    dtype = _wide_dtype(param)
    measured_norm = _norm(measure, options.norm_kind)
    if rules.lars_measures_grad(options.form):
        # It was taken before clipping.
        measured_norm *= tf.cast(scalars.scale, dtype)
    ratio = rules.lars_ratio(
        ops,
        _norm(param_measure, options.norm_kind),
        measured_norm,
        weight_decay=tf.cast(scalars.weight_decay, dtype),
        trust_coefficient=options.trust_coefficient,
        epsilon=options.epsilon,
        form=options.form,
        phi_bounds=options.phi_bounds,
    )
    step = rules.lars_apply(
        ops,
        param,
        _lars_direction(options, param, grad, m, scalars),
        ratio,
        learning_rate=tf.cast(scalars.learning_rate, dtype),
        momentum=options.momentum,
        form=options.form,
        nesterov=options.nesterov,
    )
    return (
        tf.where(scalars.proceed, step.param, param),
        tf.where(scalars.proceed, step.m, m),
        ratio,
    )


def lars(
    param: tf.Variable,
    grad: tf.Tensor,
    m: tf.Variable,
    scalars: Scalars,
    *,
    adapt: bool,
    options: LarsOptions,
    jit_compile: bool = True,
) -> tf.Tensor:
    """Updates `param` and `m` in place by `rules.lars`.

    Args:
      param: variable of any shape and floating dtype.
      grad: dense gradient, same shape.
      m: momentum buffer.
      scalars: what changes from step to step; `step` is not used.
      adapt: whether the local rate applies.
      options: what does not change.
      jit_compile: False runs the same operations uncompiled.

    Returns:
      The local rate, a scalar.
    """
    x, buffer = tf.convert_to_tensor(param), tf.convert_to_tensor(m)
    measures = [tf.zeros((), _wide_dtype(x))] * 2
    if adapt:
        measured = grad
        if not rules.lars_measures_grad(options.form):
            # This form needs a vector's norm before the update can begin.
            measured = _call(
                _lars_measured, options, (x, grad, buffer), scalars, jit_compile
            )
        measures = [_measure(y, options.norm_kind) for y in (x, measured)]
    new_param, new_m, ratio = _call(
        _lars_apply, options, (x, grad, buffer, *measures), scalars, jit_compile
    )
    m.assign(new_m)
    param.assign(new_param)
    return ratio


# Name -> (update in place, type of its options).
RULES = {"lamb": (lamb, LambOptions), "lars": (lars, LarsOptions)}


def dense(grad):
    """`grad` as a dense tensor; rows of equal index are added up."""
    # LAMB's moments decay densely, so a sparse path would be a second rule.
    return tf.convert_to_tensor(grad)
