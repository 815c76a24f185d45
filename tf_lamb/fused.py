"""The compiled update: TensorFlow kernels that all front ends share.

One kernel serves all variables of one signature (shape, dtypes, adapted or not)
and is called once for each of them: XLA compiles once for each signature, not
once for each variable. The kernel takes the handles of parameter and moments
and updates them in place; beside them a step needs less memory than one
variable. Learning rate, weight decay, step and clipping factor are tensors:
nothing recompiles when they change.

For a sum, XLA's CPU compiler reads memory at a fifth of the speed of a loop
over elements. Therefore on CPUs a norm is computed in two parts: blocks of rows
are added to each other, which is such a loop, and the remaining block is summed
up (benchmarks/README.md has the figures).

Inside a train step that is compiled as a whole, the kernels are inlined.
"""

from __future__ import annotations

import functools
import threading
import types
from typing import Any, Callable, NamedTuple, Sequence

import tensorflow as tf

from tf_lamb import arithmetic, rules

# TensorFlow's functions under NumPy's and Keras' names.
ops: Any = types.SimpleNamespace(
    abs=tf.abs,
    all=tf.reduce_all,
    arange=tf.range,
    array=lambda x, dtype: tf.cast(x, dtype),
    cast=tf.cast,
    clip=tf.clip_by_value,
    cond=tf.cond,
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
    reshape=tf.reshape,
    right_shift=tf.bitwise.right_shift,
    sqrt=tf.sqrt,
    square=tf.square,
    stack=tf.stack,
    sum=tf.reduce_sum,
    unstack=tf.unstack,
    view=tf.bitcast,
    where=tf.where,
    zeros_like=tf.zeros_like,
)


class LambOptions(NamedTuple):
    """The arguments of `rules.lamb` that stay the same for a whole run."""

    beta_1: float
    beta_2: float
    epsilon: float
    bias_correction: bool
    nesterov: str | None
    norm_kind: str
    phi_bounds: tuple[float, float] | None


class LarsOptions(NamedTuple):
    """The arguments of `rules.lars` that stay the same for a whole run."""

    momentum: float
    trust_coefficient: float
    epsilon: float
    form: str
    nesterov: bool
    norm_kind: str
    phi_bounds: tuple[float, float] | None


class Scalars(NamedTuple):
    """The inputs of one variable's update that change from step to step.

    Attributes:
      learning_rate: floating scalar.
      weight_decay: floating scalar, 0 for an excluded variable.
      step: floating scalar, 1 at the first update.
      scale: floating scalar that multiplies the gradient (clipping).
      proceed: bool scalar; False leaves parameter and moments as they were.
    """

    learning_rate: tf.Tensor
    weight_decay: tf.Tensor
    step: tf.Tensor
    scale: tf.Tensor
    proceed: tf.Tensor

    def packed(self, dtype: tf.DType = tf.float32) -> tf.Tensor:
        """All as one vector `[5]`: one input of a kernel, not five.

        Args:
          dtype: `wide_dtype` of the variable.
        """
        return tf.stack(
            [
                tf.cast(x, dtype) if tf.is_tensor(x) else tf.constant(x, dtype)
                for x in self
            ]
        )

    @classmethod
    def unpacked(cls, vector: tf.Tensor) -> Scalars:
        """The scalars of a vector that `packed` made."""
        rate, decay, step, scale, proceed = tf.unstack(vector)
        return cls(rate, decay, step, scale, proceed > 0)


_HANDLE = tf.TensorSpec((), tf.resource)
_kernels: dict[tuple[Any, ...], Callable[..., tf.Tensor]] = {}
_kernels_lock = threading.Lock()

# How many blocks of rows a norm adds up first, on CPUs: 16 where it reads one
# array, 4 for a direction, which reads three.
_BLOCKS = 16
_BLOCKS_OF_DIRECTION = 4
_SMALL = 16384  # with fewer elements it does not pay


def trace_count() -> int:
    """How many kernels this process has traced so far."""
    return len(_kernels)


class _Norms:
    """Norms of functions of arrays, computed as suits the device.

    Args:
      kind: one of `arithmetic.NORMS`.
      in_blocks: whether to add up blocks of rows first.
    """

    def __init__(self, kind: str, in_blocks: bool) -> None:
        self._kind = kind
        self._in_blocks = in_blocks

    def __call__(
        self,
        blocks: int,
        function: Callable[..., tf.Tensor],
        *arrays: tf.Tensor,
    ) -> tf.Tensor:
        """The norm of `function(*arrays)`, which works by element."""
        n, size = len(arrays[0].shape), arrays[0].shape.num_elements()
        rows = [_as_rows(x) for x in arrays]
        height = rows[0].shape[0] // blocks if n else 0
        if not (self._in_blocks and n > 1 and size >= _SMALL and height):
            return arithmetic.norm(ops, function(*arrays), self._kind)
        # `tf.split`, because every slice would be four operations of the graph.
        heights = [height] * blocks + [rows[0].shape[0] - blocks * height]
        *parts, rest = (
            self._terms(function(*block))
            for block in zip(*(tf.split(x, heights) for x in rows))
        )
        if self._kind == "linf":
            total = tf.reduce_max(functools.reduce(tf.maximum, parts))
            # The maximum over no rows is -inf.
            return tf.maximum(total, tf.reduce_max(rest))
        total = tf.reduce_sum(tf.add_n(parts)) + tf.reduce_sum(rest)
        return tf.sqrt(total) if self._kind == "l2" else total

    def _terms(self, x: tf.Tensor) -> tf.Tensor:
        x = arithmetic.widen(ops, x)
        return tf.square(x) if self._kind == "l2" else tf.abs(x)


def _as_rows(x: tf.Tensor) -> tf.Tensor:
    """`x` as a matrix of its last axis' rows."""
    return tf.reshape(x, [-1, x.shape[-1]]) if len(x.shape) > 1 else x


def _stored_dtype(variable: tf.Variable) -> tf.DType:
    # A mixed-precision variable of Keras 2 shows the dtype it is cast to.
    return getattr(variable, "true_dtype", variable.dtype)


def _read(
    handle: tf.Tensor, shape: tf.TensorShape, dtype: tf.DType
) -> tf.Tensor:
    value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
    return tf.ensure_shape(value, shape)


def _update_in_place(
    rule: Callable[..., tuple[tf.Tensor, ...]],
    options: Any,
    adapt: bool,
    variables: Sequence[tf.Variable],
    grad: tf.Tensor,
    scalars: tf.Tensor,
    jit_compile: bool,
) -> tf.Tensor:
    """Calls the kernel of `rule` for this signature; returns the trust ratio.

    Args:
      rule: function of options, adapt, norms, the variables' values, the
        gradient and the scalars; returns new values and the ratio.
      options: hashable, constants of the kernel.
      adapt: whether the trust ratio applies, a constant too.
      variables: parameter and slots, of one shape.
      grad: dense gradient, same shape.
      scalars: `[5]`, `Scalars.packed`.
      jit_compile: False runs the same operations uncompiled.
    """
    shape = variables[0].shape
    dtypes = tuple(map(_stored_dtype, variables))
    on_cpu = (
        tf.DeviceSpec.from_string(variables[0].device or "").device_type
        == "CPU"
    )
    norms = _Norms(options.norm_kind, jit_compile and on_cpu)

    def kernel(*arguments: tf.Tensor) -> tf.Tensor:
        *handles, grad, scalars = arguments
        old = [_read(h, shape, d) for h, d in zip(handles, dtypes)]
        now = Scalars.unpacked(scalars)
        *new, ratio = rule(options, adapt, norms, *old, grad, now)
        for handle, value in zip(handles, new):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        return ratio

    arguments = [*(v.handle for v in variables), grad, scalars]
    if not jit_compile:
        return kernel(*arguments)
    inputs = grad.dtype, scalars.dtype
    key = (rule, options, adapt, on_cpu, tuple(shape), dtypes, inputs)
    # Replicas of MirroredStrategy are threads.
    with _kernels_lock:
        if key not in _kernels:
            specs = [_HANDLE] * len(variables)
            specs += [
                tf.TensorSpec(shape, grad.dtype),
                tf.TensorSpec((len(Scalars._fields),), scalars.dtype),
            ]
            function = tf.function(
                kernel, specs, jit_compile=True, autograph=False
            )
            with tf.device(None), tf.control_dependencies(None):
                _kernels[key] = function.get_concrete_function()
    return _kernels[key](*arguments)


def wide_dtype(x: tf.Tensor | tf.Variable) -> tf.DType:
    """The dtype of the arithmetic on a variable: float32 or float64."""
    return tf.as_dtype(arithmetic.wide_dtype(_stored_dtype(x).name))


def half_squared_norm(x: tf.Tensor) -> tf.Tensor:
    r"""Half the sum of squares.

    $$\tfrac12 \sum x_i^2$$

    Args:
      x: tensor of any shape and floating dtype.

    Returns:
      A scalar, float32 (float64 for a float64 `x`).
    """
    return tf.nn.l2_loss(arithmetic.widen(ops, x))


def _scaled(grad: tf.Tensor, scalars: Scalars, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(grad, dtype) * tf.cast(scalars.scale, dtype)


def _lamb(
    options: LambOptions,
    adapt: bool,
    norms: _Norms,
    x: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    grad: tf.Tensor,
    scalars: Scalars,
) -> tuple[tf.Tensor, ...]:
    """`rules.lamb`, with norms of a direction that is never stored."""
    dtype = wide_dtype(x)
    step = tf.cast(scalars.step, dtype)
    g = _scaled(grad, scalars, dtype)
    betas: dict[str, float] = dict(beta_1=options.beta_1, beta_2=options.beta_2)
    new_m, new_v = rules.lamb_moments(ops, g, m, v, step, **betas)
    new_m = tf.where(scalars.proceed, new_m, m)
    new_v = tf.where(scalars.proceed, new_v, v)

    def update(
        x: tf.Tensor, g: tf.Tensor, m: tf.Tensor, v: tf.Tensor
    ) -> tf.Tensor:
        return rules.lamb_update(
            ops,
            x,
            g,
            m,
            v,
            step,
            epsilon=options.epsilon,
            weight_decay=tf.cast(scalars.weight_decay, dtype),
            bias_correction=options.bias_correction,
            nesterov=options.nesterov,
            **betas,
        )

    ratio = tf.ones((), dtype)
    if adapt:
        ratio = rules.trust_ratio(
            ops,
            norms(_BLOCKS, tf.identity, x),
            norms(_BLOCKS_OF_DIRECTION, update, x, g, new_m, new_v),
            phi_bounds=options.phi_bounds,
        )
    rate = tf.cast(scalars.learning_rate, dtype) * ratio
    new_x = rules.descend(ops, x, update(x, g, new_m, new_v), rate)
    return tf.where(scalars.proceed, new_x, x), new_m, new_v, ratio


def lamb(
    param: tf.Variable,
    grad: tf.Tensor,
    m: tf.Variable,
    v: tf.Variable,
    scalars: tf.Tensor,
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
      scalars: `[5]`, what changes from step to step, `Scalars.packed`.
      adapt: whether the trust ratio applies.
      options: constants of the run.
      jit_compile: False runs the same operations uncompiled.

    Returns:
      The trust ratio, a scalar.
    """
    return _update_in_place(
        _lamb, options, adapt, (param, m, v), grad, scalars, jit_compile
    )


def _lars(
    options: LarsOptions,
    adapt: bool,
    norms: _Norms,
    x: tf.Tensor,
    m: tf.Tensor,
    grad: tf.Tensor,
    scalars: Scalars,
) -> tuple[tf.Tensor, ...]:
    """`rules.lars`, with norms of a direction that is never stored."""
    dtype = wide_dtype(x)
    decay = tf.cast(scalars.weight_decay, dtype)
    rate = tf.cast(scalars.learning_rate, dtype)
    step = tf.cast(scalars.step, dtype)
    g = _scaled(grad, scalars, dtype)
    same: dict[str, Any] = dict(momentum=options.momentum, form=options.form)
    moment = rules.lars_moment(
        ops, x, g, m, weight_decay=decay, step=step, **same
    )
    moment = tf.where(scalars.proceed, moment, m)

    def update(x: tf.Tensor, g: tf.Tensor, m: tf.Tensor) -> tf.Tensor:
        return rules.lars_update(
            ops,
            x,
            g,
            m,
            weight_decay=decay,
            nesterov=options.nesterov,
            **same,
        )

    ratio = tf.ones((), dtype)
    if adapt:
        if rules.lars_measures_grad(options.form):
            measured = norms(_BLOCKS, tf.identity, g)
        else:
            measured = norms(_BLOCKS_OF_DIRECTION, update, x, g, moment)
        ratio = rules.lars_ratio(
            ops,
            norms(_BLOCKS, tf.identity, x),
            measured,
            weight_decay=decay,
            trust_coefficient=options.trust_coefficient,
            epsilon=options.epsilon,
            form=options.form,
            phi_bounds=options.phi_bounds,
        )
    direction = update(x, g, moment)
    last: dict[str, Any] = dict(learning_rate=rate, **same)
    new_m = rules.lars_late_moment(
        ops, direction, moment, ratio, step=step, **last
    )
    if new_m is not moment:
        # Selected before it is used: the next loop reads it where it is stored.
        new_m = tf.where(scalars.proceed, new_m, m)
    new_x = rules.lars_param(
        ops, x, direction, new_m, ratio, nesterov=options.nesterov, **last
    )
    return tf.where(scalars.proceed, new_x, x), new_m, ratio


def lars(
    param: tf.Variable,
    grad: tf.Tensor,
    m: tf.Variable,
    scalars: tf.Tensor,
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
      scalars: `[5]`, what changes from step to step, `Scalars.packed`;
        `step` is used where the momentum is bfloat16.
      adapt: whether the local rate applies.
      options: constants of the run.
      jit_compile: False runs the same operations uncompiled.

    Returns:
      The local rate, a scalar.
    """
    return _update_in_place(
        _lars, options, adapt, (param, m), grad, scalars, jit_compile
    )


# Name -> (update in place, type of its options).
RULES: dict[str, tuple[Callable[..., tf.Tensor], type[Any]]] = {
    "lamb": (lamb, LambOptions),
    "lars": (lars, LarsOptions),
}


def dense(grad: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    """A gradient as a dense tensor.

    Args:
      grad: `[*shape]`, any floating dtype; of `tf.IndexedSlices`, rows of equal
        index are added up.

    Returns:
      `[*shape]`, the same dtype.
    """
    # LAMB's moments decay densely, so a sparse path would be a second rule.
    return tf.convert_to_tensor(grad)
