"""Keras on JAX, with weights split over a mesh of devices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from official_models.common.data_parallel import Distributed
from official_models.common.errors import InputError

BATCH, MODEL = "batch", "model"
Layouts = Mapping[str, tuple[str | None, ...]]
# So that a script can be imported, and say which Keras it needs.
_BASE: Any = getattr(
    getattr(keras, "distribution", None), "ModelParallel", object
)


def parse(mesh: str | None, devices: int) -> tuple[int, int]:
    """The rows and columns of a flag such as "2x4".

    Args:
        mesh: AxB: A rows share the batch, the B devices of each the weights.
        devices: that there are.

    Raises:
        InputError: it has another form, or another number of devices.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", mesh or "")
    if not match:
        raise InputError(
            f"--mesh {mesh}: expected AxB, A rows of devices that share the "
            "batch times B that share the weights, such as "
            f"{_squarest(devices)}"
        )
    shape = int(match[1]), int(match[2])
    if math.prod(shape) != devices:
        raise InputError(
            f"--mesh {mesh}: {math.prod(shape)} devices, expected all "
            f"{devices} that there are, such as {_squarest(devices)}"
        )
    return shape


def _squarest(devices: int) -> str:
    """The mesh of these devices with the fewest in its longer side."""
    rows = next(n for n in range(math.isqrt(devices), 0, -1) if not devices % n)
    return f"{rows}x{devices // rows}"


def layout_map(mesh: Any, layouts: Layouts) -> keras.distribution.LayoutMap:
    """What Keras takes for layouts.

    Args:
        mesh: `keras.distribution.DeviceMesh` with the axes "batch" and
            "model"; None for one that only answers what splits a path.
        layouts: {regex of whole paths: what splits each axis}, such as
            `LAYOUTS` of `official_models.nlp.bert.layouts`.
    """
    found = keras.distribution.LayoutMap(mesh)
    for pattern, axes in layouts.items():
        found[pattern] = axes
    return found


def check_divides(
    variable: Any, axes: Sequence[Any], mesh: tuple[int, int]
) -> None:
    """Refuses to split an axis into parts of different sizes.

    Args:
        variable: of Keras.
        axes: what splits each of its axes.
        mesh: rows and columns.

    Raises:
        InputError: names the variable.
    """
    rows, columns = mesh
    for i, (size, axis) in enumerate(zip(variable.shape, axes)):
        if axis == MODEL and size % columns:
            raise InputError(
                f"--mesh {rows}x{columns}: axis {i} of {variable.path} "
                f"{list(variable.shape)} is split over {columns} devices; "
                f"expected a mesh whose second number divides {size}"
            )


class _ModelParallel(_BASE):
    """Keras' own, which says of a variable that has too few columns which."""

    def get_variable_layout(self, variable):
        layout = super().get_variable_layout(variable)
        axes = getattr(layout, "axes", ())  # that of split state is JAX's
        check_divides(variable, axes, self.device_mesh.shape)
        return layout


def make(mesh: str | None, layouts: Layouts | None) -> Distributed:
    """Spreads variables and batches over the devices of this machine.

    Args:
        mesh: as of `parse`.
        layouts: as of `layout_map`; None for a script without any.

    Raises:
        InputError: as `parse`; there are no layouts.
    """
    if layouts is None:
        raise InputError(
            "--strategy model_parallel: this model has no layouts; give "
            "data_parallel"
        )
    devices = keras.distribution.list_devices()
    shape = parse(mesh, len(devices))
    device_mesh = keras.distribution.DeviceMesh(shape, (BATCH, MODEL), devices)
    return Distributed(
        _ModelParallel(
            layout_map=layout_map(device_mesh, layouts),
            batch_dim_name=BATCH,
            auto_shard_dataset=False,
        )
    )
