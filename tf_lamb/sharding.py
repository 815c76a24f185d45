"""The optimizer's state, split over the devices that share the data (ZeRO-1).

On JAX, under a `keras.distribution`, the moments of LAMB and LARS lie where
their parameters lie: with `DataParallel` every device holds all of them, with
`ModelParallel` each row of the mesh does. `shard_state` splits them over the
data axis of the mesh too, so that D rows hold a D-th each::

    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    model = make_model()
    optimizer = sharding.shard_state(tf_lamb.LAMB(1e-2))
    model.compile(optimizer, "mse")

The numbers stay those of one device, to rounding: XLA partitions one program,
in which a norm is a sum over all parts of its variable.

References:
  Rajbhandari et al. 2019 (arXiv:1910.02054), section 5.1: stage 1, P_os
"""

from __future__ import annotations

import math
from typing import Any, Iterable, Mapping, Sequence

import keras

# Of an axis of an array: not split, by an axis of the mesh, by several.
Axis = str | tuple[str, ...] | None


def split_axes(
    shape: Sequence[int],
    axes: Sequence[Axis],
    over: str,
    sizes: Mapping[str, int],
) -> tuple[Axis, ...]:
    """How a variable's state is split, where the variable is split by `axes`.

    The first axis that is whole and that the devices of `over` divide; if there
    is none, the first that is split already and can be split further.

    Args:
      shape: of the variable.
      axes: for each axis of `shape`, what splits it; None for nothing.
      over: axis of the mesh over which the state is split too.
      sizes: {axis of the mesh: devices along it}.

    Returns:
      `axes` with `over` in one more place; unchanged if no axis can be split,
      as of a bias of three, or if `over` has one device.

    Example:
      >>> split_axes((3, 8), (None, None), "batch", {"batch": 4, "model": 2})
      (None, 'batch')
      >>> split_axes((3, 8), (None, "model"), "batch", {"batch": 4, "model": 2})
      (None, ('model', 'batch'))
    """
    found = tuple(axes)
    names = [_names(axis) for axis in found]
    if sizes[over] == 1 or any(over in axis for axis in names):
        return found
    for split_already in (False, True):
        for i, (size, axis) in enumerate(zip(shape, names)):
            parts = math.prod(sizes[n] for n in axis) * sizes[over]
            if bool(axis) == split_already and size and size % parts == 0:
                new = (*axis, over) if axis else over
                return (*found[:i], new, *found[i + 1 :])
    return found


def _names(axis: Axis) -> tuple[str, ...]:
    """The axes of the mesh that split an axis."""
    if axis is None:
        return ()
    return (axis,) if isinstance(axis, str) else tuple(axis)


def shard_state(optimizer: Any) -> Any:
    """Makes LAMB or LARS split its state over the data axis of the mesh.

    Moments, averages of weights (EMA) and accumulated gradients are made in
    parts, by `split_axes` with the distribution's `batch_dim_name`; what no
    axis of can be split stays as its variable is. Weights and the equations
    stay as they are; a step sends the new weights besides, which each device
    computes for its part.

    Call it before the optimizer is built. It is no part of the config: of a
    copy, or a loaded optimizer, it is called again before `build`. Files have
    whole arrays, which any mesh reads.

    `fit` keeps the layouts from step to step. A jitted loop of one's own gives
    them to `jax.jit` as `out_shardings`, or XLA chooses those of the weights.

    Args:
      optimizer: `tf_lamb.LAMB` or `tf_lamb.LARS` of Keras 3, not built.

    Returns:
      `optimizer`.

    Raises:
      TypeError: it is another one. A loss scaler is made of one that was given
        to this function.
      RuntimeError: Keras does not run on JAX.
      ValueError: it is built already; when it is built: no distribution is
        set, or a variable is older than the distribution.
    """
    if not hasattr(optimizer, "_state_layout"):
        raise TypeError(
            "shard_state: expected LAMB or LARS of tf_lamb.keras3, got "
            f"{type(optimizer).__name__}"
        )
    if keras.config.backend() != "jax":
        raise RuntimeError(
            f"shard_state: Keras runs on {keras.config.backend()}, expected "
            "jax; start with KERAS_BACKEND=jax"
        )
    if optimizer.built:
        raise ValueError(
            f"shard_state: {optimizer.name} is built, its state is made; call "
            "shard_state before compile and fit"
        )
    optimizer._state_layout = _split_layout
    return optimizer


def _split_layout(variable: Any) -> Any:
    """Layout of a variable's state; JAX's, since Keras' splits by one axis."""
    import jax  # installed where Keras runs on it

    distribution = keras.distribution.distribution()
    if distribution is None:
        raise ValueError(
            "shard_state: no distribution is set; call "
            "keras.distribution.set_distribution before the model is made"
        )
    layout = getattr(variable, "_layout", None)
    if layout is None:
        raise ValueError(
            f"shard_state: variable {variable.path!r} was made before the "
            "distribution was set; call keras.distribution.set_distribution "
            "before the model is made"
        )
    placed = getattr(layout, "backend_layout", layout)
    rank = len(variable.shape)
    axes = (*placed.spec, *([None] * rank))[:rank]
    split = split_axes(
        variable.shape, axes, distribution.batch_dim_name, placed.mesh.shape
    )
    if split == axes:
        return layout
    sharding: Any = jax.sharding
    return sharding.NamedSharding(placed.mesh, sharding.PartitionSpec(*split))


def bytes_per_device(variables: Iterable[Any]) -> int:
    """Bytes of variables on the device that holds most of them, on JAX.

    Args:
      variables: of Keras, such as `model.trainable_variables` or
        `optimizer.variables`.

    Raises:
      RuntimeError: Keras does not run on JAX.
    """
    if keras.config.backend() != "jax":
        raise RuntimeError(
            f"bytes_per_device: Keras runs on {keras.config.backend()}; start "
            "with KERAS_BACKEND=jax"
        )
    found: dict[Any, int] = {}
    for variable in variables:
        for shard in variable.value.addressable_shards:
            held = found.get(shard.device, 0)
            found[shard.device] = held + shard.data.nbytes
    return max(found.values(), default=0)
