"""What is read from a program's text."""

import importlib.util

import pytest

if importlib.util.find_spec("jax") is None:
    pytest.skip("JAX is not installed", allow_module_level=True)

from tpu.plan import hlo

PROGRAM = """HloModule step

ENTRY %main (a: f32[8,4], b: bf16[16]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = bf16[16]{0} parameter(1)
  %chip = f32[4]{0:S(1)} constant({0, 0, 0, 0})
  %sum = (f32[8,4]{1,0}, bf16[16]{0}) all-reduce(%a, %b), channel_id=1
  %x = f32[8,4]{1,0} get-tuple-element(%sum), index=0
  %start = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%x), channel_id=2
  %whole = f32[16,4]{1,0} all-gather-done(%start)
  %part = f32[4,4]{1,0} reduce-scatter(%x), channel_id=3
  ROOT %y = f32[8,4]{1,0} fusion(%x, %chip), kind=kLoop
}
"""


def test_collectives_with_the_bytes_of_the_whole_array():
    assert hlo.collectives(PROGRAM) == [
        hlo.Collective("all-reduce", 8 * 4 * 4 + 16 * 2),
        hlo.Collective("all-gather", 16 * 4 * 4),
        hlo.Collective("reduce-scatter", 8 * 4 * 4),
    ]


def test_on_chip_memory_is_no_hbm_traffic():
    loop = PROGRAM.splitlines()[-2]
    fusion = "\nENTRY %main () -> f32[8,4] {\n" + "\n".join(
        line for line in PROGRAM.splitlines() if "constant" in line
    )
    fusion += "\n  %x = f32[8,4]{1,0} parameter(0)\n" + loop + "\n}"
    # x in and y out; the constant is on the chip.
    assert hlo.hbm_bytes(fusion) == 2 * 8 * 4 * 4
