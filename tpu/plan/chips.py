"""TPUs as published, and slices of them.

Figures are those of https://cloud.google.com/tpu/docs, pages v3, v4, v5e, v5p
and v6e, read 2026-11-25. `link_bandwidth` is what a chip sends over all its
links at once: "all-reduce bandwidth per Pod" divided by the Pod's chips for v3,
v4, v5e and v6e (v3: 340 TB/s / 1,024), half of the "bidirectional inter-chip
interconnect bandwidth" for v5p. v2: peak from the announcement (180 TFLOP/s a
board of four); its page has neither bandwidth, so that v2's are left out and
with them its roofline.
"""

import dataclasses
import math
import re

from official_models.common.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip.

    Attributes:
        generation: such as "v3".
        devices: devices that JAX sees of a chip, 1 or 2.
        peak_flops: bfloat16 matrix products, FLOP/s.
        hbm_bytes: memory.
        hbm_bandwidth: bytes/s; None if not published.
        link_bandwidth: bytes/s sent over all links; None if not published.
        dimensions: of the torus.
        wraps: length from which an axis is a ring, and of which it has to be
            a multiple.
    """

    generation: str
    devices: int
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float | None
    link_bandwidth: float | None
    dimensions: int
    wraps: int


_GIB = 2**30
CHIPS = {
    chip.generation: chip
    for chip in (
        Chip("v2", 2, 45e12, 16 * _GIB, None, None, 2, 16),
        Chip("v3", 2, 123e12, 32 * _GIB, 900e9, 340e12 / 1024, 2, 32),
        Chip("v4", 2, 275e12, 32 * _GIB, 1200e9, 1.1e15 / 4096, 3, 4),
        Chip("v5e", 1, 197e12, 16e9, 819e9, 51.2e12 / 256, 2, 16),
        Chip("v5p", 1, 459e12, 95 * _GIB, 2765e9, 600e9, 3, 4),
        Chip("v6e", 1, 918e12, 32e9, 1638e9, 102.4e12 / 256, 2, 16),
    )
}
EXAMPLES = "v3:32x32, v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:16x16"


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a Pod.

    Attributes:
        name: such as "v3:32x32", as libtpu takes it.
        chip: what it is made of.
        shape: chips along each axis.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Chips in all."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Devices as JAX counts them: the cores of v2 to v4, else chips."""
        return self.chips * self.chip.devices

    @property
    def ring_bandwidth(self) -> float | None:
        """Bytes/s that a chip can send in a collective over the slice.

        Every axis has its share of the links; of an axis that is no ring only
        half of them count, because its ends have a neighbour on one side only.
        """
        chip = self.chip
        if chip.link_bandwidth is None:
            return None
        share = sum(
            1.0 if n >= chip.wraps and n % chip.wraps == 0 else 0.5
            for n in self.shape
            if n > 1
        )
        return chip.link_bandwidth / chip.dimensions * share


def parse(name: str) -> Slice:
    """The slice of a name such as "v3:32x32".

    Raises:
        InputError: not a name of this form, or of an unknown generation.
    """
    match = re.fullmatch(r"(v\d+[ep]?):(\d+(?:x\d+){1,2})", name)
    if not match or match[1] not in CHIPS:
        raise InputError(
            f"--topology {name!r}: expected a generation of "
            f"{', '.join(CHIPS)} and its chips, such as {EXAMPLES}"
        )
    shape = tuple(map(int, match[2].split("x")))
    return Slice(name, CHIPS[match[1]], shape)
