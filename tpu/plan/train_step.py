"""A Keras model's own train step, traced for the devices of a slice."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tpu.plan.workloads import Workload

AXIS = "batch"


def trace(workload: Workload, batch_size: int, devices, shard_state=False):
    """Traces one step: gradients, the optimizer's update, metrics.

    Weights are on every device, the batch's first axis is split over them.

    Args:
        workload: model and batches.
        batch_size: B, a multiple of the devices.
        devices: as a topology lists them.
        shard_state: split the optimizer's moments over the devices, along
            the first axis that divides.

    Returns:
        What `jax.jit(...).trace` gives; `.lower` and `.compile` go on with it.
    """
    model = workload.model
    mesh = Mesh(np.asarray(devices), (AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    batch = workload.batch(batch_size)
    model._symbolic_build(data_batch=batch)  # of losses and metrics

    def placed(variables, place):
        return [
            jax.ShapeDtypeStruct(
                tuple(v.shape), v.dtype, sharding=place(tuple(v.shape))
            )
            for v in variables
        ]

    def moments(shape):
        return _split_first(shape, mesh) if shard_state else everywhere

    def same(shape):
        return everywhere

    state = (
        placed(model.trainable_variables, same),
        placed(model.non_trainable_variables, same),
        placed(model.optimizer.variables, moments),
        placed(model.metrics_variables, same),
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


def _split_first(shape, mesh):
    """Along the first axis that the devices divide; else everywhere."""
    for axis, size in enumerate(shape):
        if size >= mesh.size and size % mesh.size == 0:
            before = [None] * axis
            return NamedSharding(mesh, PartitionSpec(*before, AXIS))
    return NamedSharding(mesh, PartitionSpec())


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
