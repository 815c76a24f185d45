"""One plan: compile, estimate; and what fits where the wish does not."""

import dataclasses
from collections.abc import Callable

from official_models.common import model_parallel
from official_models.common.errors import InputError
from tpu.plan import chips, compiler, estimate, train_step, workloads

MAX_COMPILES = 5  # of a search, minutes each
# The room that is aimed at, of what the compiler may use.
_AIM = 0.96


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked.

    Attributes:
        model: as of `workloads.make`.
        options: as of `workloads.make`.
        topology: such as "v3:32x32".
        batch_size: global.
        shard_state: split the optimizer's moments over the devices that share
            the batch.
        mesh: such as "2x4", as `--mesh` of the training scripts; None for
            every weight on every device.
    """

    model: str
    options: workloads.Options
    topology: str
    batch_size: int
    shard_state: bool = False
    mesh: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Devices that share the batch, and those that share the weights.

        Raises:
            InputError: the mesh has not as many as the slice.
        """
        devices = self.where.devices
        if self.mesh is None:
            return devices, 1
        return model_parallel.parse(self.mesh, devices)

    @property
    def where(self) -> chips.Slice:
        """The slice."""
        return chips.parse(self.topology)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was found.

    Attributes:
        job: what was asked.
        program: the compiler's part.
        step: estimates, None if it does not fit.
        model_flops: of matrix products and convolutions in a step on all
            devices together, without what rematerialisation repeats.
    """

    job: Job
    program: compiler.Program
    step: estimate.Step | None
    model_flops: int

    def utilisation(self, seconds: float) -> float:
        """Model FLOPs utilisation, if a step takes so many seconds."""
        where = self.job.where
        return (
            self.model_flops / seconds / (where.chips * where.chip.peak_flops)
        )


def check(job: Job) -> None:
    """Raises `InputError` for a batch that the devices cannot share."""
    parts = job.shape[0]
    if job.batch_size < 1 or job.batch_size % parts:
        of = job.topology if job.mesh is None else f"a column of {job.mesh}"
        raise InputError(
            f"--batch_size {job.batch_size}: expected a multiple of the "
            f"{parts} devices of {of}"
        )


def make(job: Job) -> Plan:
    """Compiles and estimates a job.

    Raises:
        InputError: the job makes no sense, or libtpu is not there.
    """
    check(job)
    where = job.where
    found = compiler.devices(where)
    workload = workloads.make(job.model, job.options)
    if job.mesh is not None and workload.layouts is None:
        raise InputError(
            f"--mesh {job.mesh}: --model {job.model} has no layouts; give its "
            "module LAYOUTS, {regex of paths: what splits each axis}"
        )
    try:
        program = compiler.compile_step(
            workload, job.batch_size, where, job.shape, job.shard_state
        )
    except InputError:
        raise
    except Exception as error:
        if ":" not in job.model:
            raise  # a fault of ours
        raise InputError(
            f"--model {job.model}: its train step cannot be traced: "
            f"{workloads.place(error)}; --debug shows the whole traceback"
        ) from error
    step = None
    if program.fits:
        step = estimate.step(
            where,
            program.flops,
            program.hbm_bytes,
            program.optimal_seconds,
            program.collectives,
        )
    if job.options.rematerialize != "none":
        options = dataclasses.replace(job.options, rematerialize="none")
        workload = workloads.make(job.model, options)
    traced = train_step.trace(workload, job.batch_size, found, job.shape)
    return Plan(job, program, step, train_step.model_flops(traced.jaxpr))


def rematerialized(job: Job) -> Job | None:
    """The same job with rematerialisation, None if that is not ours to set."""
    if ":" in job.model or job.options.rematerialize != "none":
        return None
    options = dataclasses.replace(job.options, rematerialize="blocks")
    return dataclasses.replace(job, options=options)


def largest_batch(
    refused: Plan, make: Callable[[Job], Plan] = make
) -> Plan | None:
    """The largest batch that fits, found by compiling a few.

    What a program needs grows about linearly with the batch: of two that were
    compiled a third is guessed, and compiled in its turn.

    Args:
        refused: a plan that does not fit.
        make: compiles a job.

    Returns:
        Its plan; None if not even one example a device fits.
    """
    devices = refused.job.shape[0]
    limit = _AIM * refused.program.limit_bytes
    above = refused.job.batch_size // devices, refused.program.used_bytes
    best, below, tried = None, (0, 0.0), set()
    for _ in range(MAX_COMPILES):
        slope = (above[1] - below[1]) / (above[0] - below[0])
        guess = int(below[0] + (limit - below[1]) / slope)
        size = _round_down(min(guess, above[0] - 1))
        if best is None:
            size = min(size, max(above[0] // 2, 1))
        size = max(size, 1)
        if size in tried or size <= below[0] or size >= above[0]:
            break
        tried.add(size)
        job = dataclasses.replace(refused.job, batch_size=size * devices)
        plan = make(job)
        point = size, plan.program.used_bytes
        if plan.program.fits:
            best, below = plan, point
        else:
            above = point
    return best


def _round_down(size):
    """To a multiple of 8, of which the vector unit works through rows."""
    return size // 8 * 8 if size >= 16 else size
