"""The update on TensorFlow: compiled kernels, called on every device.

One kernel serves all variables of one signature (shape, dtypes, adapted or not)
and is called once for each of them: XLA compiles once for each signature, not
once for each variable. The kernel takes the handles of parameter and moments
and updates them in place; beside them a step needs less memory than one
variable. Learning rate, weight decay, step and clipping factor are tensors:
nothing recompiles when they change.

Inside a train step that is compiled as a whole, the kernels are inlined. Under
a distribution strategy a variable has a component on each device, and a kernel
is called with each device's own components.
"""

from __future__ import annotations

import threading
import types
from typing import Any, Callable, Hashable, Sequence

import tensorflow as tf

from tf_lamb import arithmetic, bundles, tf_accumulation, tf_contexts, tf_ops
from tf_lamb.averages import Variable
from tf_lamb.bundles import Bundle, Row, Scalars
from tf_lamb.tf_norms import norm_by_blocks

_HANDLE = tf.TensorSpec((), tf.resource)
_kernels: dict[tuple[Any, ...], Callable[..., tf.Tensor]] = {}
_kernels_lock = threading.Lock()
# A device of the context in which they were traced; every context has its own.
_context_device: list[Any] = []


def trace_count() -> int:
    """How many kernels this process has traced so far."""
    return len(_kernels)


def _forget_kernels_of_another_context() -> None:
    """Drops the kernels if TensorFlow's context was reset since their trace.

    Test suites do that. A kernel of the old context finds no variables.
    """
    if not tf.compat.v1.executing_eagerly_outside_functions():
        return  # a session's graph, which need not have a context
    device = tf.config.list_logical_devices("CPU")[0]
    with _kernels_lock:
        if _context_device and _context_device[0] is not device:
            _kernels.clear()
        _context_device[:] = [device]


def _stored_dtype(variable: tf.Variable) -> tf.DType:
    # A mixed-precision variable of Keras 2 shows the dtype it is cast to.
    return getattr(variable, "true_dtype", variable.dtype)


def wide_dtype(x: tf.Tensor | tf.Variable) -> tf.DType:
    """The dtype of the arithmetic on a variable: float32 or float64."""
    return tf.as_dtype(arithmetic.wide_dtype(_stored_dtype(x).name))


def _read(
    handle: tf.Tensor, shape: tf.TensorShape, dtype: tf.DType
) -> tf.Tensor:
    with tf.device(handle.device):
        value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
    return tf.ensure_shape(value, shape)


def _assign(handle: tf.Tensor, value: tf.Tensor) -> None:
    with tf.device(handle.device):
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def _packed(scalars: Scalars, dtype: tf.DType) -> tf.Tensor:
    """All as one vector `[5]`: one input of a kernel, not five."""
    return tf.stack(
        [
            tf.cast(x, dtype) if tf.is_tensor(x) else tf.constant(x, dtype)
            for x in scalars
        ]
    )


def update_in_place(
    bundle: Bundle, scalars: Sequence[tf.Tensor], *, jit_compile: bool = True
) -> tf.Tensor:
    """Updates variables and moments by the kernel of their signature.

    Args:
      bundle: constants, which are the kernel's too; variables of this device;
        dense gradients. Its scalars are not read.
      scalars: for each variable `[5]`, `Scalars` in the dtype of the variables'
        arithmetic.
      jit_compile: False runs the same operations uncompiled.

    Returns:
      The trust ratio.
    """
    hyper, adapt, norm_of, rows, grads, _ = bundle
    variables = bundle.variables
    # One program cannot write to several parameter servers.
    jit_compile &= len({row.variable.device for row in rows}) == 1
    shapes = [row.variable.shape for row in rows]
    dtypes = tuple(map(_stored_dtype, variables[0]))
    if norm_of is None:
        device = tf.DeviceSpec.from_string(rows[0].variable.device or "")
        by_blocks = jit_compile and device.device_type == "CPU"
        norm_of = norm_by_blocks if by_blocks else arithmetic.whole_norm

    def kernel(*arguments: tf.Tensor) -> tf.Tensor:
        per_variable = len(dtypes) + 2
        parts = [
            arguments[i : i + per_variable]
            for i in range(0, len(arguments), per_variable)
        ]
        members = []
        for shape, (*handles, grad, scalars) in zip(shapes, parts):
            param, *slots = (
                _read(h, shape, d) for h, d in zip(handles, dtypes)
            )
            rate, decay, step, scale, proceed = tf.unstack(scalars)
            grad = tf.cast(grad, scale.dtype) * scale
            members.append(bundles.Values(param, slots, grad, decay))
        new, ratio = bundles.update(
            tf_ops,
            hyper,
            members,
            step,
            learning_rate=rate,
            adapt=adapt,
            proceed=proceed > 0,
            norm_of=norm_of,
        )
        for (*handles, _, _), values in zip(parts, new):
            for handle, value in zip(handles, values):
                _assign(handle, value)
        return ratio

    arguments: list[tf.Tensor] = []
    specs: list[tf.TensorSpec] = []
    for row, grad, vector in zip(variables, grads, scalars):
        arguments += [*(v.handle for v in row), grad, vector]
        specs += [_HANDLE] * len(row)
        specs += [tf.TensorSpec(x.shape, x.dtype) for x in (grad, vector)]
    if not jit_compile:
        return kernel(*arguments)
    inputs = tuple(spec.dtype for spec in specs)
    constants = type(hyper), hyper, adapt, norm_of
    key: tuple[Any, ...] = (
        *constants,
        tuple(tuple(shape.as_list()) for shape in shapes),
        dtypes,
        inputs,
    )
    # Replicas of MirroredStrategy are threads.
    with _kernels_lock:
        if key not in _kernels:
            function = tf.function(
                kernel, specs, jit_compile=True, autograph=False
            )
            with tf.device(None), tf.control_dependencies(None):
                _kernels[key] = function.get_concrete_function()
    return _kernels[key](*arguments)


class Devices:
    """The `update.Executor` of TensorFlow: kernels, on every device.

    Args:
      strategy: the strategy under which the variables were made.
      jit_compile: whether the update is compiled.
    """

    has_branches = True

    def __init__(
        self, strategy: tf.distribute.Strategy, jit_compile: bool = True
    ) -> None:
        self._strategy = strategy
        self._jit_compile = jit_compile

    def dense(self, grads: Sequence[Any]) -> Sequence[tf.Tensor]:
        """The gradients as dense tensors.

        Of `tf.IndexedSlices`, rows of equal index are added up. LAMB's moments
        decay densely, so a sparse path would be a second rule.
        """
        return [tf.convert_to_tensor(g) for g in grads]

    @staticmethod
    def shaped(
        grads: Sequence[tf.Tensor | None], variables: Sequence[Variable]
    ) -> list[Any]:
        """Gradients, each of its variable's shape.

        Where TensorFlow does not know a shape before the step runs, it is
        checked then; a mismatch is a `tf.errors.InvalidArgumentError`.
        """
        return [
            g
            if g is None or g.shape.is_fully_defined()
            else tf.ensure_shape(g, v.shape)
            for g, v in zip(grads, variables)
        ]

    def sum_over_replicas(
        self, grads: Sequence[tf.Tensor]
    ) -> Sequence[tf.Tensor]:
        """The sums of all replicas' gradients, in every replica."""
        replica = tf.distribute.get_replica_context()
        # With one replica it would add an operation for each gradient.
        if replica.num_replicas_in_sync == 1:
            return grads
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))

    def accumulate_or_update(
        self,
        is_update_step: tf.Tensor,
        function: Callable[..., Any],
        sums: Sequence[tf.Variable],
        grads: Sequence[tf.Tensor],
        state: Sequence[Variable] = (),
    ) -> None:
        """Adds each replica's gradients to its sums, or calls `function`."""
        tf_accumulation.accumulate_or_update(
            self._strategy, is_update_step, function, sums, grads
        )

    def assign(self, variable: tf.Variable, value: tf.Variable) -> None:
        """Sets a variable to another one, rounded to nearest, on all devices.

        It is called outside the replicas.
        """
        tf_contexts.assign_everywhere(variable, value)

    def squared_norms(
        self, grads: Sequence[tf.Tensor], dtype: str
    ) -> tf.Tensor:
        """Sums of squares, `[len(grads)]`, in `dtype`."""
        halves = [tf.nn.l2_loss(arithmetic.widen(tf_ops, g)) for g in grads]
        return 2 * tf.stack([tf.cast(half, dtype) for half in halves])

    def apply(self, parts: Sequence[Bundle]) -> Sequence[tf.Tensor]:
        """Applies the rule to each bundle; returns their trust ratios.

        What changes from step to step is packed once for all variables that
        share it, not once for each variable.
        """
        _forget_kernels_of_another_context()
        packed: dict[Hashable, tf.Tensor] = {}

        def vector(row: Row, now: Scalars) -> tf.Tensor:
            dtype = wide_dtype(row.variable)
            key = dtype, *map(id, now)
            if key not in packed:
                packed[key] = _packed(now, dtype)
            return packed[key]

        def function(first: tf.Variable, *rest: Any) -> tf.Tensor:
            place, rows, grads, scalars = rest
            here = [
                row._replace(variable=variable, slots=slots)
                for row, (variable, *slots) in zip(parts[place].rows, rows)
            ]
            return update_in_place(
                parts[place]._replace(rows=here, grads=grads),
                scalars,
                jit_compile=self._jit_compile,
            )

        return self._on_devices(
            function,
            [
                (
                    bundle.rows[0].variable,
                    i,
                    [list(v) for v in bundle.variables],
                )
                for i, bundle in enumerate(parts)
            ],
            [
                [list(bundle.grads) for bundle in parts],
                [list(map(vector, b.rows, b.scalars)) for b in parts],
            ],
        )

    def each(
        self,
        function: Callable[..., Any],
        rows: Sequence[Sequence[Variable]],
        scalars: Sequence[tf.Tensor],
    ) -> None:
        """Calls `function(*row, *scalars)` on every device, for each row."""
        self._on_devices(function, rows, [[x] * len(rows) for x in scalars])

    def _on_devices(
        self,
        function: Callable[..., Any],
        rows: Sequence[Sequence[Any]],
        replica_columns: Sequence[Sequence[tf.Tensor]],
    ) -> list[Any]:
        """Calls `function(*row, *values)` on each device of the row's variable.

        Args:
          function: called with the device's own component of every variable.
          rows: variables, the first of which says where, and constants.
          replica_columns: the last arguments, tensors that each replica has
            computed for itself; each column has one value a row.

        Returns:
          The results on the first device, one for each row.
        """
        # Otherwise `extended.update` has AutoGraph convert its every call.
        function = tf.autograph.experimental.do_not_convert(function)

        def across_replicas(
            distribution: tf.distribute.Strategy, *columns: Any
        ) -> list[Any]:
            return [
                self._update(distribution, function, *row, *values)
                for row, *values in zip(rows, *columns)
            ]

        return self._merged(across_replicas, *replica_columns)

    def _merged(self, function: Callable[..., Any], *columns: Any) -> Any:
        """Calls `function(strategy, *columns)` outside the replicas."""
        return tf.__internal__.distribute.interim.maybe_merge_call(
            function, self._strategy, *columns
        )

    def _update(
        self,
        distribution: tf.distribute.Strategy,
        function: Callable[..., Any],
        variable: tf.Variable,
        *rest: Any,
    ) -> Any:
        """Calls `function` on each device; returns the first one's result."""
        return distribution.extended.update(
            variable, function, args=rest, group=False
        )[0]


def held(
    before: types.SimpleNamespace | None, value: float, dtype: str
) -> types.SimpleNamespace:
    """A number that compiled steps read as a variable: `held(...).variable`.

    It is no state: a checkpoint does not have it, and loading one leaves it as
    it is.

    Args:
      before: what an earlier call returned, which is changed; or None.
      value: the number.
      dtype: of the variable.
    """
    if before is not None:
        before.variable.assign(value)
        return before
    with tf.init_scope():
        variable = tf.Variable(
            value,
            dtype=dtype,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
    # In a namespace TensorFlow does not track it.
    return types.SimpleNamespace(variable=variable)
