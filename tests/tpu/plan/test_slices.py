"""Slices, and the time of collectives on them, by hand."""

import importlib.util

import pytest

if importlib.util.find_spec("jax") is None:
    pytest.skip("JAX is not installed", allow_module_level=True)

from official_models.common.errors import InputError
from tpu.plan import chips, estimate
from tpu.plan.hlo import Collective


@pytest.mark.parametrize(
    "name, chips_, devices",
    [
        ("v2:2x2", 4, 8),
        ("v3:32x32", 1024, 2048),
        ("v4:4x4x4", 64, 128),
        ("v5e:4x4", 16, 16),
        ("v5p:2x2x1", 4, 4),
    ],
)
def test_sizes(name, chips_, devices):
    where = chips.parse(name)
    assert (where.chips, where.devices) == (chips_, devices)


@pytest.mark.parametrize(
    "kind, name",
    [
        ("v2-8", "v2:2x2"),
        ("v3-8", "v3:2x2"),
        ("v3-32", "v3:4x4"),
        ("v3-2048", "v3:32x32"),
        ("v4-8", "v4:2x2x1"),
        ("v4-32", "v4:2x2x4"),
        ("v5p-128", "v5p:4x4x4"),
        ("v5litepod-8", "v5e:2x4"),
        ("v5e-256", "v5e:16x16"),
        ("v6e-1", "v6e:1x1"),
    ],
)
def test_accelerator_types(kind, name):
    assert chips.parse(kind).name == name


@pytest.mark.parametrize(
    "name",
    [
        *("v9:1x1", "v3", "v3:4", "v3:4x", "tpu:2x2", "v9-8", "v3-", ""),
        "v3:" + "9" * 4300 + "x2",
    ],
)
def test_unknown_names(name):
    with pytest.raises(InputError, match="expected a generation") as refused:
        chips.parse(name)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "name, part",
    [
        ("v3:0x0", "1 to 16,384 chips"),
        ("v3:999x999", "1 to 16,384 chips"),
        ("v5e:4x4x4", "v5e has 2 axes, got 3"),
        ("v4:4x4", "v4 has 3 axes, got 2"),
        ("v3-12", "12 cores, two a chip; expected a power of two"),
        ("v3-7", "7 cores"),
        ("v6e-0", "0 chips"),
    ],
)
def test_slices_that_there_are_not(name, part):
    with pytest.raises(InputError) as refused:
        chips.parse(name)
    assert part in str(refused.value)


def test_rings_have_all_their_links():
    # Both axes are rings: everything that the chip can send.
    v5e = chips.CHIPS["v5e"]
    assert chips.parse("v5e:16x16").ring_bandwidth == v5e.link_bandwidth
    # Neither is one.
    assert chips.parse("v5e:4x8").ring_bandwidth == v5e.link_bandwidth / 2
    # One ring, one line, and an axis of one chip.
    v4 = chips.CHIPS["v4"]
    assert chips.parse("v4:4x2x1").ring_bandwidth == pytest.approx(
        v4.link_bandwidth * (1 + 0.5) / 3
    )


def test_an_all_reduce_sends_twice_what_an_all_gather_does():
    where = chips.parse("v5e:16x16")
    n, size = 256, 10**9
    once = size * (n - 1) / n / 200e9
    gather = estimate.communication([Collective("all-gather", size)], where)
    reduce = estimate.communication([Collective("all-reduce", size)], where)
    assert gather == pytest.approx(once)
    assert reduce == pytest.approx(2 * once)


def test_an_unpublished_link_is_not_guessed():
    where = chips.parse("v2:4x4")
    found = estimate.step(where, 1e12, 1e9, 0.5, [Collective("all-reduce", 8)])
    assert found.communication is None and found.roofline is None
    assert found.compute == 0.5 and found.source == "compiler"


def test_the_roofline_names_its_binding_side():
    where = chips.parse("v5e:2x2")
    flops = estimate.step(where, 197e12, 819e9 / 2, -1.0, [])
    assert (flops.bound_by, flops.roofline) == ("FLOPs", pytest.approx(1.0))
    hbm = estimate.step(where, 197e12 / 2, 819e9, -1.0, [])
    assert (hbm.bound_by, hbm.roofline) == ("HBM", pytest.approx(1.0))
    # The compiler gives none: it is said where the figure comes from.
    assert hbm.compiler is None and hbm.source == "roofline"


def test_a_core_of_two_has_half_of_the_chip():
    # v3: two devices a chip share its peak.
    found = estimate.step(chips.parse("v3:2x2"), 123e12 / 2, 0.0, -1.0, [])
    assert found.roofline == pytest.approx(1.0)
