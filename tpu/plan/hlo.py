"""What an optimized XLA program moves, read from its text."""

import dataclasses
import math
import re

_SIZES = {
    **{"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4},
    **{"bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s8": 1, "u8": 1, "pred": 1},
}
# An array in an instruction: dtype[shape]{layout}; S(k) is not HBM.
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (.*?) ([\w-]+)\((.*)")
_NOTHING_MOVED = (
    "bitcast",
    "constant",
    "get-tuple-element",
    "parameter",
    "tuple",
)
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One communication of all devices.

    Attributes:
        kind: of `COLLECTIVES`.
        bytes: of the whole array, before a reduce-scatter and after an
            all-gather, on one device.
    """

    kind: str
    bytes: int


def _arrays(text):
    """[(bytes, whether in HBM)] of the arrays in an HLO type."""
    return [
        (
            _SIZES.get(dtype, 0)
            * math.prod(map(int, filter(None, sizes.split(",")))),
            "S(" not in (layout or ""),
        )
        for dtype, sizes, layout in _ARRAY.findall(text)
    ]


def _instructions(hlo, entry_only):
    """(name, type, opcode, the rest) of the instructions of a program."""
    start = hlo.index("\nENTRY ") if entry_only else 0
    for line in hlo[start:].splitlines():
        match = _INSTRUCTION.match(line)
        if match:
            yield match.groups()


def hbm_bytes(hlo: str) -> int:
    """Bytes that an optimized program reads from and writes to HBM.

    Each loop reads its operands and writes its results once; an asynchronous
    copy moves its destination's size. Padding is not counted.

    Args:
        hlo: `compiled.as_text()`.
    """
    types, total = {}, 0
    for name, kind, opcode, rest in _instructions(hlo, entry_only=True):
        types[name] = kind
        if opcode in _NOTHING_MOVED or opcode.endswith("-done"):
            continue
        operands = [
            array
            for operand in re.findall(r"%([\w.-]+)", rest.split(")")[0])
            for array in _arrays(types.get(operand, ""))
        ]
        results = _arrays(kind)
        if opcode.endswith("-start"):  # (destination, source, context)
            at = 1 if opcode == "slice-start" else 0
            size, written = results[at]
            total += size * (written + operands[0][1])
        else:
            total += sum(size for size, hbm in operands + results if hbm)
    return total


def collectives(hlo: str) -> list[Collective]:
    """The communication of a program, in the order of its text.

    Args:
        hlo: `compiled.as_text()`.
    """
    types, found = {}, []
    for name, kind, opcode, rest in _instructions(hlo, entry_only=False):
        types[name] = kind
        bare = opcode.removesuffix("-start")
        if bare not in COLLECTIVES or opcode.endswith("-done"):
            continue
        operands = sum(
            size
            for operand in re.findall(r"%([\w.-]+)", rest.split(")")[0])
            for size, _ in _arrays(types.get(operand, ""))
        )
        results = sum(size for size, _ in _arrays(kind))
        if opcode.endswith("-start") and bare != "all-reduce":
            # (source, destination, contexts)
            results -= operands
        whole = results if bare == "all-gather" else operands
        found.append(Collective(bare, whole or results))
    return found
