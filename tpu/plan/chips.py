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


# Accelerator types, as clouds name slices: generation, and whether the number
# is of cores (two a chip) and not of chips.
_TYPES = {
    "v2": ("v2", True),
    "v3": ("v3", True),
    "v4": ("v4", True),
    "v5p": ("v5p", True),
    "v5e": ("v5e", False),
    "v5litepod": ("v5e", False),
    "v6e": ("v6e", False),
}
# More than any Pod has.
_MOST_CHIPS = 2**14


def parse(name: str) -> Slice:
    """The slice of a name such as "v3:32x32" or "v3-2048".

    An accelerator type stands for the slice whose axes are as equal as its
    number of chips allows, which has to be a power of two.

    Raises:
        InputError: not a name of these forms, of an unknown generation, or of
            another number of axes than its chips are linked along.
    """
    match = re.fullmatch(r"(v\d+[ep]?):(\d{1,5}(?:x\d{1,5}){1,2})", name)
    kind = re.fullmatch(r"(v\w+)-(\d{1,6})", name)
    if kind and kind[1] in _TYPES:
        generation, shape = _of_type(name, kind[1], int(kind[2]))
    elif match and match[1] in CHIPS:
        generation, shape = match[1], tuple(map(int, match[2].split("x")))
    else:
        raise InputError(
            f"--topology {name[:80]!r}: expected a generation of "
            f"{', '.join(CHIPS)} and its chips, such as {EXAMPLES}, or an "
            "accelerator type, such as v3-8 or v5litepod-16"
        )
    chip = CHIPS[generation]
    if len(shape) != chip.dimensions:
        raise InputError(
            f"--topology {name}: {generation} has {chip.dimensions} axes, got "
            f"{len(shape)}; such as {EXAMPLES}"
        )
    if not 1 <= math.prod(shape) <= _MOST_CHIPS:
        raise InputError(
            f"--topology {name}: expected 1 to {_MOST_CHIPS:,} chips, such as "
            f"{EXAMPLES}"
        )
    return Slice(f"{generation}:{'x'.join(map(str, shape))}", chip, shape)


def _of_type(name: str, kind: str, number: int) -> tuple[str, tuple[int, ...]]:
    """Generation and shape of an accelerator type."""
    generation, of_cores = _TYPES[kind]
    chips, odd = divmod(number, 2) if of_cores else (number, 0)
    if odd or chips < 1 or chips & (chips - 1) or chips > _MOST_CHIPS:
        unit = "cores, two a chip" if of_cores else "chips"
        raise InputError(
            f"--topology {name}: {number} {unit}; expected a power of two; "
            f"name the axes of another slice, such as {EXAMPLES}"
        )
    power, dimensions = chips.bit_length() - 1, CHIPS[generation].dimensions
    if (dimensions, chips) == (3, 4):
        return generation, (2, 2, 1)
    axes = ((power + i) // dimensions for i in range(dimensions))
    return generation, tuple(2**n for n in axes)
