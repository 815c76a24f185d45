"""Seconds of a step, from what the compiler says and what is published.

Nothing here was measured on a TPU. Two estimates of the computing time:

    compiler   XLA's `optimal_seconds`: its own model of each loop. Not given,
               that is negative, for some programs, of v5e and v6e above all.
    roofline   max(FLOPs / peak, HBM bytes / bandwidth) of the whole program,
               from published figures and `hlo.hbm_bytes`.

and of the communication, which neither has: bytes over what a chip can send,
with a ring's or torus' share of bytes, without latency.
"""

import dataclasses

from tpu.plan.chips import Slice
from tpu.plan.hlo import Collective


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of one training step.

    Attributes:
        compiler: XLA's estimate without communication; None if not given.
        roofline: the bound of FLOPs and bytes; None if not published.
        bound_by: "FLOPs" or "HBM", the roofline's larger side.
        communication: of the collectives; None if not published.
    """

    compiler: float | None
    roofline: float | None
    bound_by: str | None
    communication: float | None

    @property
    def compute(self) -> float | None:
        """The compiler's estimate, else the roofline."""
        return self.roofline if self.compiler is None else self.compiler

    @property
    def source(self) -> str:
        """Where `compute` comes from."""
        return "roofline" if self.compiler is None else "compiler"

    @property
    def overlapped(self) -> float | None:
        """With all communication hidden behind computing."""
        if self.compute is None:
            return None
        return max(self.compute, self.communication or 0.0)

    @property
    def serial(self) -> float | None:
        """With none of it hidden."""
        if self.compute is None:
            return None
        return self.compute + (self.communication or 0.0)


def communication(collectives: list[Collective], where: Slice) -> float | None:
    """Seconds of a program's collectives over all chips of a slice.

    All-reduce is a reduce-scatter and an all-gather; in either a chip sends
    (n - 1) / n of the whole. Cores of one chip are taken to share its memory
    for free.

    Args:
        collectives: of the program of one device.
        where: the slice, of n chips.
    """
    bandwidth = where.ring_bandwidth
    if where.chips == 1:
        return 0.0
    if bandwidth is None:
        return None
    share = (where.chips - 1) / where.chips
    passes = {"all-reduce": 2}
    return sum(
        passes.get(item.kind, 1) * item.bytes * share / bandwidth
        for item in collectives
    )


def step(
    where: Slice,
    flops: float,
    hbm_bytes: float,
    optimal_seconds: float,
    collectives: list[Collective],
) -> Step:
    """Estimates of a compiled step.

    Args:
        where: the slice.
        flops: of one device.
        hbm_bytes: that it moves.
        optimal_seconds: of XLA's cost analysis; not positive if not given.
        collectives: of its program.
    """
    chip = where.chip
    sides = {"FLOPs": flops * chip.devices / chip.peak_flops}
    if chip.hbm_bandwidth is not None:
        sides["HBM"] = hbm_bytes * chip.devices / chip.hbm_bandwidth
    known = len(sides) == 2
    bound_by = max(sides, key=sides.get)
    return Step(
        compiler=optimal_seconds if optimal_seconds > 0 else None,
        roofline=sides[bound_by] if known else None,
        bound_by=bound_by if known else None,
        communication=communication(collectives, where),
    )
