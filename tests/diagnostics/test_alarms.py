"""Each alarm on a record that has it, once, and none on a healthy one."""

import math
import re

import numpy as np
import pytest

from tf_lamb.diagnostics.alarms import Alarms, Record, slope_over_depth

KEYS = [f"layer_{i}/kernel" for i in range(6)]
RANKS = [2] * 6


def _record(step=1, gradients=1.0, **more):
    norms = np.broadcast_to(np.asarray(gradients, float), 6)
    return Record(step, KEYS, RANKS, np.ones(6), norms, **more)


def _found(alarms, records):
    return [message for record in records for message in alarms.find(record)]


def test_a_healthy_run_is_silent():
    alarms = Alarms(num_classes=10, chance_steps=1)
    healthy = _record(
        gradients=[1, 2, 3, 4, 5, 6],
        loss=1.0,
        trust_ratios={KEYS[0]: 5.0},
        bounds={KEYS[0]: (0.0, 10.0)},
    )
    assert _found(alarms, [healthy] * 10) == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            _record(gradients=[1, math.nan, 1, 1, 1, math.inf]),
            "gradient of 'layer_1/kernel', 'layer_5/kernel' is not finite",
        ),
        (_record()._replace(weight_norms=np.full(6, np.inf)), "3 more is not"),
        (_record(loss=math.nan), "loss is nan"),
        (_record(gradients=10.0 ** -np.arange(6)), "explodes toward 'layer_0"),
        (_record(gradients=10.0 ** np.arange(6)), "vanishes toward 'layer_0"),
        (
            _record(gradients=[1, 1, 0, 1, 1, 1]),
            "gradient of 'layer_2/kernel' is 0 for 3 records",
        ),
        (
            _record(trust_ratios={KEYS[3]: 10}, bounds={KEYS[3]: (0.0, 10.0)}),
            r"'layer_3/kernel' stays at its bound \(0, 10\)",
        ),
        (_record(step=1000, loss=math.log(10)), "that of chance .* 'layer_5"),
    ],
)
def test_each_alarm_is_raised_once(record, words):
    found = _found(Alarms(num_classes=10), [record] * 8)
    assert len(found) == 1
    assert re.search(words, found[0])
    assert ";" in found[0] or ":" in found[0], "it names the cure"


def test_patience_counts_records_in_a_row():
    dead, alive = _record(gradients=[0, 1, 1, 1, 1, 1]), _record()
    alarms = Alarms(patience=3)
    assert _found(alarms, [dead, dead, alive, dead, dead]) == []
    assert len(_found(alarms, [dead])) == 1


def test_the_slope_is_of_kernels_in_decades():
    norms = np.array([1, 99, 10, 99, 100, 0, 1000.0])
    ranks = [2, 1, 2, 1, 2, 2, 2]
    assert slope_over_depth(norms, ranks) == pytest.approx(3)
    assert slope_over_depth(norms[:4], ranks[:4]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decades": 0}, "decades: expected a number > 0"),
        ({"patience": 0}, "patience: expected a whole number >= 1"),
        ({"num_classes": 1}, "num_classes: expected a whole number >= 2"),
        ({"chance_loss": -1}, "chance_loss: expected a number > 0"),
        ({"chance_margin": 2}, "chance_margin: expected a number in"),
        ({"num_classes": 2, "chance_loss": 1.0}, "expected one of them"),
    ],
)
def test_bad_thresholds(arguments, message):
    with pytest.raises(ValueError, match=message):
        Alarms(**arguments)
