"""--hours under a clock that the test moves: what fits, the rate, resuming."""

import json

import keras
import numpy as np
import pytest
from absl import flags

import tf_lamb
from official_models.common import hours
from official_models.common.hours import Limit, Pace, Stretch, Times
from official_models.nlp.bert import pretrain
from tests.official_models import scripts
from tests.official_models.common import test_run


class Clock:
    """Seconds that go by when they are told to."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def limit(folder, clock, steps=1000, seconds=100.0):
    times = Times(folder, seconds / 3600, clock)
    schedule = tf_lamb.schedules.WarmupPolynomial(1.0, steps, steps // 10)
    return Limit(schedule, steps, seconds, times, 0)


def go(limit, clock, cost, step=0, row=5, until=None):
    """Trains by the clock: each step takes `cost(step)`; gives the rates."""
    rates, first = [], step + 1
    while not limit.is_over and step != until:
        for _ in range(row):
            rates.append(limit.rate(step))
            clock.seconds += cost(step)
            step += 1
            if step == first:
                limit.speed.add(step, limit.times.used())
        limit.row(step, row)
    return rates


def test_positions_are_continuous_and_end_at_the_last_step():
    pace = Pace(100)
    assert [pace.position(s) for s in (0, 7, 100)] == [0, 7, 100]
    pace.revise(10, 30)  # the 90 that are left, in 30
    assert pace.end == 40
    assert [pace.position(s) for s in (9, 10, 11, 40)] == [9, 10, 13, 100]
    pace.revise(20, 100)  # no more than there are
    assert pace.end == 100
    assert pace.position(19) == 37 and pace.position(20) == 40
    assert pace.position(60) == 70 and pace.position(100) == 100
    pace.forget_after(15)
    assert pace.end == 40 and pace.position(20) == 40


def test_it_ends_on_time_with_its_rate_decayed(tmp_path, clock, capsys):
    found = limit(tmp_path, clock)
    rates = go(found, clock, lambda step: 5.0 if step == 0 else 0.5)
    assert clock.seconds == pytest.approx(100, abs=2.5)
    assert max(rates) > 0.9 and rates[-1] < 0.01
    peak = int(np.argmax(rates))
    assert np.all(np.diff(rates[:peak]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    # The first step, which compiles, is not in the pace.
    assert (
        "about 190 of 1,000 steps fit; on this machine the phase ends after "
        "about 1.7 minutes of the run, of 1.7 at most."
    ) in capsys.readouterr().out


@pytest.mark.parametrize("later", [0.25, 1.0])
def test_a_machine_that_changes_its_pace(tmp_path, clock, later):
    found = limit(tmp_path, clock)
    cost = lambda step: 0.5 if step < 100 else later  # noqa: E731
    rates = go(found, clock, cost)
    assert clock.seconds == pytest.approx(100, rel=0.05)
    assert rates[-1] < 0.02
    assert np.abs(np.diff(rates[30:])).max() < 0.02  # no jumps


def test_steps_that_all_fit_have_the_rates_of_the_schedule(
    tmp_path, clock, capsys
):
    found = limit(tmp_path, clock, steps=50)
    rates = go(found, clock, lambda step: 0.01)
    assert rates == [float(found.schedule(step)) for step in range(50)]
    said = capsys.readouterr().out
    assert "all 50 steps fit; on this machine the phase ends after" in said
    assert found.pace.end == 50


def test_a_pace_that_collapses_is_said(tmp_path, clock, capsys):
    found = limit(tmp_path, clock)
    rates = go(found, clock, lambda step: 0.5 if step < 50 else 40.0)
    said = capsys.readouterr().out
    assert "The time was up after step 55 of the phase" in said
    assert "the rate decays in 5 steps more" in said
    assert rates[-1] > 0 and len(rates) == 60
    assert found.rate(60) == 0


def test_a_resumed_run_knows_how_much_time_was_used(tmp_path, clock):
    cost = lambda step: 0.5  # noqa: E731
    first = limit(tmp_path, clock)
    before = go(first, clock, cost, until=100)  # and is killed
    clock.seconds += 1000  # nothing runs
    again = limit(tmp_path, clock)
    assert again.times.used() == pytest.approx(50)
    assert again.resume(80, 5)  # of the last checkpoint
    assert again.rate(79) == before[79]
    rates = go(again, clock, cost, step=80)
    assert rates[0] == pytest.approx(before[80], abs=0.01)
    # Half of the time for the steps that are left, some of them once more.
    assert len(rates) == pytest.approx(100, abs=3)
    assert clock.seconds - 1000 == pytest.approx(100, abs=3)
    assert rates[-1] < 0.01


def test_no_time_is_left_at_the_checkpoint(tmp_path, clock):
    first = limit(tmp_path, clock)
    go(first, clock, lambda step: 0.5)
    assert not limit(tmp_path, clock).resume(first.pace.end, 5)
    again = limit(tmp_path, clock)
    clock.seconds += 10
    assert again.resume(152, 5)  # stopped in the middle of a row
    assert again.pace.end == 155
    assert again.rate(152) == pytest.approx(first.rate(152), abs=1e-6)
    assert again.resume(0, 5)  # one row at least is trained


def test_a_later_phase_begins_anew(tmp_path, clock):
    times = Times(tmp_path, 1, clock)
    times.write(0, [Stretch(0, 0.0, 10)], end=10)
    times.write(1, [Stretch(0, 0.0, 20), Stretch(5, 6.0, 9)])
    read = Times(tmp_path, 1, clock)
    assert (read.end(0), read.end(1), read.end(2)) == (10, None, None)
    assert read.stretches(1)[1] == Stretch(5, 6.0, 9)
    read.write(0, [Stretch(0, 0.0, 10)])
    assert Times(tmp_path, 1, clock).stretches(1) == []


@pytest.mark.parametrize(
    "text",
    [
        *('{"seconds": 3}', "[]", '{"seconds": "x"}', "{"),
        '{"seconds": 3, "phases": [{"end": 3, "stretches": [[1, 2, 3]]}]}',
    ],
)
def test_a_damaged_record(tmp_path, clock, text):
    (tmp_path / hours.RECORD).write_text(text)
    scripts.refusal(
        lambda: Times(tmp_path, 1, clock), "hours.json", "remove it"
    )


def model_of(clock, rate):
    """A model of which each step takes a second of the clock."""
    model = test_run.small()

    class Ticking(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            clock.seconds += 1

    fit = model.fit
    model.compile(tf_lamb.LAMB(rate), "mse", metrics=["mae"])
    model.fit = lambda *args, callbacks, **kwargs: fit(
        *args, callbacks=[Ticking(), *callbacks], **kwargs
    )
    return model


def start(folder, model, limit=None, **options):
    return test_run.start(folder, model, total_steps=16, limit=limit, **options)


def weights(run):
    return [np.array(v) for v in run.model.trainable_variables]


def test_a_run_ends_with_its_time(tmp_path, clock):
    found = limit(tmp_path, clock, steps=16, seconds=8)
    run = start(tmp_path, model_of(clock, 1.0), found)
    run.fit(test_run.batches)
    rows = test_run.table(tmp_path)
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    assert float(rows[-1]["learning_rate"]) == 0
    assert run.end_step == 8 and clock.seconds == 8
    found.ended(8)
    record = json.loads((tmp_path / hours.RECORD).read_text())
    assert record["seconds"] == 8 and record["phases"][0]["end"] == 8
    # Its last step is saved; the same command trains nothing.
    again = limit(tmp_path, clock, steps=16, seconds=8.5)
    run = start(tmp_path, model_of(clock, 1.0), again)
    assert run.first_step == run.end_step == 8
    run.fit(lambda *_: pytest.fail("no data needed"))


def test_a_run_without_time_has_a_last_row(tmp_path, clock, capsys):
    model = model_of(clock, 1.0)
    start(tmp_path, model, limit(tmp_path, clock, 16, 8)).save(4)
    late = limit(tmp_path, clock, 16, 8)
    clock.seconds += 9
    run = start(tmp_path, model_of(clock, 1.0), late)
    run.fit(test_run.batches)
    assert (run.first_step, run.end_step) == (4, 6)
    assert "The time was up after step 4" in capsys.readouterr().out
    assert late.rate(6) == 0


def test_with_time_for_all_steps_the_weights_are_the_same(tmp_path, clock):
    rate = tf_lamb.WarmupPolynomial(0.1, 16, 2)
    plain = start(tmp_path / "plain", model_of(clock, rate))
    plain.fit(test_run.batches)
    folder = tmp_path / "timed"
    folder.mkdir()
    found = Limit(rate, 16, 1000, Times(folder, 1, clock), 0)
    timed = start(folder, model_of(clock, 0.5), found)
    timed.fit(test_run.batches)
    for one, other in zip(weights(plain), weights(timed), strict=True):
        # The rate is computed outside the step.
        np.testing.assert_allclose(one, other, rtol=1e-5)
    shown = (test_run.table(run.folder) for run in (plain, timed))
    rates = [[row["learning_rate"] for row in rows] for rows in shown]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_hours_that_are_none(value):
    with scripts.flags_of(pretrain):
        flags.FLAGS(["pretrain", f"--hours={value}"])
        scripts.refusal(
            lambda: hours.check_flags(None), f"--hours {value}", "above 0"
        )


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(hours.strategies, "can_stop", lambda strategy: False)
    with scripts.flags_of(pretrain):
        flags.FLAGS(["pretrain", "--hours=2"])
        scripts.refusal(
            lambda: hours.check_flags(None), "--hours 2: for one process"
        )
