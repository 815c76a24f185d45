"""Schedules as functions of NumPy arrays, and the papers' tables."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest

from tf_lamb import schedule_checks, schedules

BATCHES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
# You et al. 2020, the tables of untuned LAMB: rate = peak / 2^k.
HALVINGS = (3, 2.5, 2, 1.5, 1, 0.5, 0)
BERT_WARMUP = (1 / 320, 1 / 160, 1 / 80, 1 / 40, 1 / 20, 1 / 10, 1 / 5)
IMAGENET_WARMUP_EPOCHS = (0.3125, 0.625, 1.25, 2.5, 5, 10, 20)


def _curve(**arguments):
    steps = np.arange(1001.0)
    return schedules.warmup_polynomial(
        np, steps, **{"learning_rate": 0.5, "total_steps": 1000, **arguments}
    )


@pytest.mark.parametrize("i", range(7))
def test_untuned_tables(i):
    bert = schedules.untuned_bert(BATCHES[i])
    assert bert.learning_rate == pytest.approx(5e-3 / 2 ** HALVINGS[i], 1e-14)
    assert bert.warmup == pytest.approx(BERT_WARMUP[i], 1e-14)
    imagenet = schedules.untuned_imagenet(BATCHES[i])
    assert imagenet.learning_rate == pytest.approx(0.04 / 2 ** HALVINGS[i])
    assert imagenet.warmup == IMAGENET_WARMUP_EPOCHS[i]


def test_albert_is_the_column_of_4096():
    """ALBERT's published defaults: 0.00176 and 3125 of 125000 steps."""
    rule = schedules.untuned_bert(4096)
    assert rule.learning_rate == pytest.approx(0.00176, rel=5e-3)
    assert rule.warmup * 125_000 == pytest.approx(3125)


def test_linear_epoch_warmup_is_a_constant_number_of_steps():
    steps = [
        schedules.untuned_imagenet(batch).warmup * 1_281_167 / batch
        for batch in BATCHES
    ]
    assert max(steps) == pytest.approx(min(steps))


def test_linear_scaling():
    sizes = {"base_batch_size": 256, "global_batch_size": 1024}
    scale = schedules.scale_learning_rate
    assert scale(0.1, rule="linear", **sizes) == pytest.approx(0.4)
    assert scale(0.1, rule="sqrt", **sizes) == pytest.approx(0.2)


def test_warmup_is_linear_from_zero_and_the_decay_ends_at_the_end():
    curve = _curve(warmup_steps=200, end_learning_rate=0.1)
    assert curve[0] == 0 and curve[100] == pytest.approx(0.25)
    assert curve[200] == pytest.approx(0.5) == curve.max()
    assert curve[600] == pytest.approx(0.3)
    assert curve[1000] == pytest.approx(0.1)
    assert np.abs(np.diff(curve)).max() < 0.003  # no jump anywhere


def test_decay_from_start_jumps_by_the_warmup_ratio():
    """The published BERT's rate falls by 20% at once at ratio 1/5."""
    curve = _curve(warmup_steps=200, decay_from="start")
    assert curve[199] == pytest.approx(0.4975)
    assert curve[200] == pytest.approx(0.5 * (1 - 200 / 1000))
    assert curve[1000] == 0


def test_warmup_constant_decay():
    """LANS' schedule: a trapezium whose area is that of its three parts."""
    curve = _curve(warmup_steps=400, constant_steps=300)
    expected = np.interp(np.arange(1001), [0, 400, 700, 1000], [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(curve, expected, rtol=0, atol=1e-15)
    assert (curve[400:701] == 0.5).all() and curve[701] < 0.5
    assert curve[:-1].sum() == pytest.approx(0.5 * (200 + 300 + 150))
    curve = _curve(constant_steps=1000, end_learning_rate=0.1)
    assert (curve[:1000] == 0.5).all()
    curve = _curve(constant_steps=500, power=2.0, end_learning_rate=0.1)
    assert curve[500] == 0.5 and curve[750] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"constant_steps": 9},
            "at most 8 = total_steps - warmup_steps, got 9",
        ),
        (
            {"constant_steps": 1, "decay_from": "start"},
            "at most 0, since decay_from='start' decays from step 0, got 1",
        ),
    ],
)
def test_a_constant_rate_needs_its_steps(change, message):
    with pytest.raises(ValueError) as caught:
        schedules.WarmupPolynomial(0.5, 10, 2, **change)
    assert str(caught.value) == f"constant_steps: expected {message}."


def test_power_and_no_warmup():
    curve = _curve(power=2.0)
    assert curve[0] == 0.5
    assert curve[500] == pytest.approx(0.125)
    later = schedules.warmup_polynomial(
        np, np.array(5e3), learning_rate=1.0, total_steps=10, power=0.5
    )
    assert later == 0


def test_rewarmup_starts_each_phase_from_zero():
    """The 76-minute run: 7,037 steps, then 1,562 with a warmup of its own."""
    lengths = (7037, 1562)

    def phase(steps):
        return lambda s: schedules.warmup_polynomial(
            np, s, learning_rate=1.0, total_steps=steps, warmup_steps=100
        )

    steps = np.arange(float(sum(lengths)))
    curve = schedules.rewarmup(
        np, steps, [phase(n) for n in lengths], list(lengths)
    )
    assert curve[0] == 0 and curve[100] == 1
    assert curve[7036] == pytest.approx(1 / 6937)
    assert curve[7037] == 0 and curve[7137] == 1
    three = schedules.rewarmup(
        np,
        np.arange(6.0),
        [lambda s: s, lambda s: 10 + s, lambda s: 20 + s],
        [2, 2, 2],
    )
    assert three.tolist() == [0, 1, 10, 11, 20, 21]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"learning_rate": -1}, "learning_rate"),
        ({"total_steps": 0}, "total_steps: expected a whole number >= 1"),
        ({"warmup_steps": 11}, "warmup_steps: expected at most total_steps"),
        ({"power": 0}, "power"),
        ({"decay_from": "end"}, "decay_from: expected one of"),
    ],
)
def test_bad_arguments(change, message):
    arguments = dict(
        learning_rate=1.0,
        total_steps=10,
        warmup_steps=0,
        end_learning_rate=0.0,
        power=1.0,
        decay_from="start",
        constant_steps=0,
    )
    with pytest.raises(ValueError, match=message):
        schedule_checks.check_warmup_polynomial(**{**arguments, **change})
    with pytest.raises(ValueError, match="global_batch_size"):
        schedules.untuned_bert(0)


_ARGUMENTS = dict(
    learning_rate=0.5,
    total_steps=10,
    warmup_steps=2,
    end_learning_rate=0.25,
    power=1.0,
    decay_from="start",
    constant_steps=0,
)
_NO_NUMBER = [
    *("1", b"1", True, None, [1], {}, math.nan, math.inf, -1, 10**400),
    *(10**5000, np.array([1.0]), np.ones(30), Decimal("nan"), 1j, object()),
]
_NO_COUNT = [*_NO_NUMBER, 1.5, 2**63, np.float32(2.5)]
REFUSED = {
    "learning_rate": [*_NO_NUMBER, 1e39],
    "end_learning_rate": [*_NO_NUMBER, 1.0, 0.5000001],
    "power": [*_NO_NUMBER, 0, 0.0, 1e-46],
    "total_steps": [*_NO_COUNT, 0],
    "warmup_steps": [*_NO_COUNT, 11],
    "constant_steps": [*_NO_COUNT, 9],
    "decay_from": ["end", None, 1, ["start"], np.array(["start", "end"]), b""],
    "name": [None, 5, b"x", []],
}


@pytest.mark.parametrize("argument", REFUSED)
def test_what_a_schedule_refuses(argument):
    for value in REFUSED[argument]:
        with pytest.raises(ValueError) as caught:
            schedules.WarmupPolynomial(**{**_ARGUMENTS, argument: value})
            print(repr(value), "was taken")  # if it fails
        message = str(caught.value)
        assert message.startswith(f"{argument}: expected "), message
        assert ", got " in message and "\n" not in message, message
        assert len(message) < 200, message


def test_a_rate_at_the_end_above_the_peak_is_refused():
    """It would be no decay, and `learning_rate` no peak."""
    line = "^end_learning_rate: expected at most learning_rate = 0.01, got 1.0"
    with pytest.raises(ValueError, match=line):
        schedules.WarmupPolynomial(0.01, 10, end_learning_rate=1.0)
    constant = schedules.WarmupPolynomial(0.01, 10, end_learning_rate=0.01)
    assert [float(constant(s)) for s in (0, 5, 20)] == pytest.approx([0.01] * 3)


def test_numbers_of_numpy_are_kept_as_those_of_python():
    given = dict(
        learning_rate=np.float32(0.5),
        total_steps=np.int64(10),
        warmup_steps=np.array(2),
        end_learning_rate=Decimal("0.25"),
        power=np.array(1.0),
        constant_steps=np.float32(3),
    )
    config = schedules.WarmupPolynomial(**given).get_config()
    kept = {**_ARGUMENTS, "decay_from": "warmup_end", "constant_steps": 3}
    assert config == {**kept, "name": "WarmupPolynomial"}
    assert all(type(config[n]) is type(x) for n, x in kept.items())
    assert json.loads(json.dumps(config)) == config
    both = schedules.Rewarmup([lambda s: s] * 2, np.array([3, 4]))
    assert both.phase_steps == [3, 4]


@pytest.mark.parametrize(
    "phases, phase_steps, argument",
    [
        (10**400, [1], "phases"),
        ([], [], "phases"),
        ([0.5], [1], r"phases\[0\]"),
        ("12", [1, 2], "phases"),
        (None, [1], "phases"),
        ([abs], 3, "phase_steps"),
        ([abs], "3", "phase_steps"),
        ([abs], ["3"], "phase_steps"),
        ([abs], [0], "phase_steps"),
        ([abs], [10**400], "phase_steps"),
        ([abs], [1, 2], "phase_steps"),
        ([abs], np.array(3), "phase_steps"),
    ],
)
def test_what_rewarmup_refuses(phases, phase_steps, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected") as caught:
        schedules.Rewarmup(phases, phase_steps)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "function, arguments, bad",
    [
        (schedules.scale_learning_rate, {"learning_rate": 1}, "learning_rate"),
        (schedules.scale_warmup, {"warmup": 1}, "warmup"),
    ],
)
def test_what_scaling_refuses(function, arguments, bad):
    sizes = {"base_batch_size": 8, "global_batch_size": 16}
    function(**arguments, **sizes)
    for argument, values in {
        bad: _NO_NUMBER,
        "base_batch_size": [*_NO_COUNT, 0],
        "global_batch_size": [*_NO_COUNT, 0],
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{argument}: expected"):
                function(**{**arguments, **sizes, argument: value})


def test_classes_compute_with_numpy_and_survive_their_config():
    """The front ends derive their schedules; these need no framework."""
    warmup = schedules.WarmupPolynomial(0.5, 1000, warmup_steps=200)
    curve = _curve(warmup_steps=200)
    values = [warmup(step) for step in range(1001)]
    np.testing.assert_allclose(values, curve, atol=1e-6)
    both = schedules.Rewarmup([warmup, warmup], [1000, 1000])
    again = schedules.Rewarmup.from_config(both.get_config())
    for schedule in (both, again):
        assert [float(schedule(s)) for s in (100, 1100, 1200)] == pytest.approx(
            [0.25, 0.25, 0.5]
        )


def test_the_phase_that_is_no_schedule_is_named():
    phases = [schedules.WarmupPolynomial(0.1, 10), 0.1]
    with pytest.raises(
        ValueError, match=r"^phases\[1\]: .*a schedule, got 0.1"
    ):
        schedules.Rewarmup(phases, [10, 20])
