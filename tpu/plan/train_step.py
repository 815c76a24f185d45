"""A Keras model's own train step, traced for the devices of a slice."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from official_models.common import model_parallel
from official_models.common.model_parallel import BATCH, MODEL
from tf_lamb import sharding
from tpu.plan.workloads import Workload


def trace(
    workload: Workload,
    batch_size: int,
    devices,
    shape: tuple[int, int],
    shard_state: bool = False,
):
    """Traces one step: gradients, the optimizer's update, metrics.

    Args:
        workload: model and batches.
        batch_size: B, a multiple of the mesh's rows.
        devices: as a topology lists them.
        shape: rows of the mesh, which share the batch, and columns, which
            share the weights by the workload's layouts; in one column every
            device has all weights.
        shard_state: split the optimizer's state over the rows too, by
            `sharding.split_axes`.

    Returns:
        What `jax.jit(...).trace` gives; `.lower` and `.compile` go on with it.
    """
    model = workload.model
    mesh = Mesh(np.asarray(devices).reshape(shape), (BATCH, MODEL))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(BATCH))
    batch = workload.batch(batch_size)
    model._symbolic_build(data_batch=batch)  # of losses and metrics

    def placed(variables, axes):
        return [
            jax.ShapeDtypeStruct(
                tuple(v.shape),
                v.dtype,
                sharding=NamedSharding(mesh, PartitionSpec(*axes(v))),
            )
            for v in variables
        ]

    axes = _Axes(workload, dict(mesh.shape), shard_state)
    state = (
        placed(model.trainable_variables, axes.of_weight),
        placed(model.non_trainable_variables, axes.of_weight),
        placed(model.optimizer.variables, axes.of_state),
        placed(model.metrics_variables, lambda v: ()),
    )
    data = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch
    )

    def step(state, data):
        logs, state = model.train_step(state, data)
        return state, logs

    results = (jax.tree.map(lambda x: x.sharding, state), everywhere)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=results)
    return jitted.trace(state, data)


class _Axes:
    """What splits the axes of each variable."""

    def __init__(self, workload, sizes, shard_state):
        self.sizes, self.shard_state = sizes, shard_state
        layouts = workload.layouts if sizes[MODEL] > 1 else {}
        self.layout_map = model_parallel.layout_map(None, layouts)
        # A slot is named after its variable: its path, "_" and a word.
        self.weights = {
            v.path.replace("/", "_"): v
            for v in workload.model.trainable_variables
        }

    def of_weight(self, variable):
        layout = self.layout_map[variable.path]
        axes = (None,) * len(variable.shape) if layout is None else layout.axes
        model_parallel.check_divides(
            variable, axes, (self.sizes[BATCH], self.sizes[MODEL])
        )
        return axes

    def of_state(self, variable):
        name = variable.path.rpartition("/")[2]
        owners = [
            path
            for path, v in self.weights.items()
            if name.startswith(f"{path}_")
            and tuple(v.shape) == tuple(variable.shape)
        ]
        if not owners:
            return ()
        axes = self.of_weight(self.weights[max(owners, key=len)])
        if not self.shard_state:
            return axes
        return sharding.split_axes(variable.shape, axes, BATCH, self.sizes)


def model_flops(jaxpr) -> int:
    """FLOPs of the matrix products and convolutions of a traced program.

    2 for a multiplication with its addition. Elementwise work, which the peak
    is not about, is left out; a convolution counts as if none of its window
    lay outside of the image.

    Args:
        jaxpr: such as `traced.jaxpr`; of a program without rematerialisation,
            or what is computed twice counts twice.
    """
    total = 0
    for equation in _inner(jaxpr).eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "conv_general_dilated":
            total += _conv_flops(equation)
        repeats = equation.params.get("length", 1) if name == "scan" else 1
        for value in equation.params.values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(_inner(item), "eqns"):
                    total += repeats * model_flops(item)
    return total


def _inner(jaxpr):
    """The jaxpr inside a closed one."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def _dot_flops(equation):
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    summed = math.prod(left[axis] for axis in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * summed


def _conv_flops(equation):
    """2 products for each pair of a result and one of its inputs.

    A strided convolution's gradients are convolutions with holes: what falls
    into a hole is not counted, so that all three cost the same.
    """
    image, kernel = (v.aval.shape for v in equation.invars)
    result = equation.outvars[0].aval.shape
    numbers = equation.params["dimension_numbers"]
    window = [kernel[i] for i in numbers.rhs_spec[2:]]
    channels = kernel[numbers.rhs_spec[1]]
    holes = math.prod(equation.params["lhs_dilation"]) * math.prod(
        equation.params["rhs_dilation"]
    )
    return 2 * math.prod(result) * math.prod(window) * channels // holes
