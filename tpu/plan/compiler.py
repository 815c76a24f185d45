"""Compiles a train step for a slice that is not there, and reads the result."""

import dataclasses
import importlib.util
import re
import time

from jax.experimental import topologies

from official_models.common.errors import InputError
from tpu.plan import chips, hlo, train_step
from tpu.plan.workloads import Workload


@dataclasses.dataclass(frozen=True)
class Program:
    """What the compiler made of a step, for one device.

    Bytes are None where the compiler gave up for want of memory.

    Attributes:
        fits: whether it compiled.
        used_bytes: of HBM, all in all.
        limit_bytes: of HBM that the compiler may use; None where it fits,
            since it says so only of a program that does not.
        argument_bytes: weights, moments and batch.
        temporary_bytes: activations and what else does not outlive the step.
        code_bytes: of the program itself.
        flops: of the program, rematerialisation included.
        hbm_bytes: read from and written to HBM.
        optimal_seconds: XLA's estimate; negative where it gives none.
        collectives: its communication.
        compile_seconds: on this machine.
    """

    fits: bool
    used_bytes: float
    compile_seconds: float
    limit_bytes: float | None = None
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    code_bytes: int | None = None
    flops: float | None = None
    hbm_bytes: int | None = None
    optimal_seconds: float | None = None
    collectives: tuple[hlo.Collective, ...] = ()


def devices(where: chips.Slice) -> list:
    """The slice's devices, as libtpu describes them.

    Raises:
        InputError: libtpu is not installed, or does not know the slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "libtpu is not installed; expected the environment of `make "
            ".venv-plan` (pip install libtpu)"
        )
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=where.name
        ).devices
    except Exception as error:  # XLA's, of several classes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"--topology {where.name}: {reason}; expected a slice that libtpu "
            f"knows, such as {chips.EXAMPLES}"
        ) from None
    if len(found) != where.devices:
        raise InputError(
            f"--topology {where.name}: libtpu has {len(found)} devices in it, "
            f"expected {where.devices}; this libtpu is not one we know"
        )
    return found


def compile_step(
    workload: Workload,
    batch_size: int,
    where: chips.Slice,
    shape: tuple[int, int],
    shard_state: bool = False,
) -> Program:
    """Compiles a workload's train step for a slice.

    Args:
        workload: model and batches.
        batch_size: global, a multiple of the mesh's rows.
        where: the slice.
        shape: of the mesh, as of `train_step.trace`.
        shard_state: as of `train_step.trace`.
    """
    traced = train_step.trace(
        workload, batch_size, devices(where), shape, shard_state
    )
    start = time.perf_counter()
    try:
        compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    except Exception as error:
        return _refused(error, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.argument_size_in_bytes
    temporary = memory.temp_size_in_bytes + fresh
    code = memory.generated_code_size_in_bytes
    return Program(
        fits=True,
        used_bytes=held + temporary + code,
        compile_seconds=seconds,
        argument_bytes=held,
        temporary_bytes=temporary,
        code_bytes=code,
        flops=cost["flops"],
        hbm_bytes=hlo.hbm_bytes(text),
        optimal_seconds=cost.get("optimal_seconds", -1.0),
        collectives=tuple(hlo.collectives(text)),
    )


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_NO_ROOM = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)


def _refused(error, seconds):
    """A program without room, from the compiler's words; else its error."""
    found = (form.search(str(error)) for form in _NO_ROOM)
    match = next(filter(None, found), None)
    if not match:
        raise error
    used, limit = (float(match[i]) * _UNITS[match[i + 1]] for i in (1, 3))
    return Program(
        fits=False,
        used_bytes=used,
        limit_bytes=limit,
        compile_seconds=seconds,
    )
