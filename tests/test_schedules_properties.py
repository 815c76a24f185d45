"""Schedules, whatever their arguments: range, ends, continuity, monotony."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import POWERS_OF_TWO, QUICK, assert_close
from tf_lamb import schedule_checks, schedules

SIZES = st.integers(1, 2**19)
RATES = st.one_of(st.just(0.0), st.floats(2.0**-20, 4.0))


@st.composite
def arguments_of(draw, decay_from=None):
    """Arguments of `warmup_polynomial`; the warmup ends before the decay."""
    total = draw(st.integers(1, 500))
    end, peak = sorted((draw(RATES), draw(RATES)))
    warmup = draw(st.integers(0, total - 1))
    decay_from = decay_from or draw(st.sampled_from(schedule_checks.DECAY_FROM))
    constant = 0
    if decay_from == "warmup_end":
        constant = draw(st.integers(0, total - 1 - warmup))
    return dict(
        learning_rate=peak,
        total_steps=total,
        warmup_steps=warmup,
        end_learning_rate=end,
        power=draw(st.sampled_from([0.5, 1.0, 2.0, 3.7])),
        decay_from=decay_from,
        constant_steps=constant,
    )


CONTINUOUS = arguments_of(decay_from="warmup_end")


def curve(arguments, steps=None):
    """The rates at all steps, and at some after the end."""
    if steps is None:
        steps = np.arange(arguments["total_steps"] + 5.0)
    return schedules.warmup_polynomial(np, steps, **arguments)


@QUICK
@given(arguments_of())
def test_the_rate_stays_between_0_and_its_peak(arguments):
    rates = curve(arguments)
    top = arguments["learning_rate"]
    assert (rates >= 0).all() and (rates <= top * (1 + 1e-15)).all()


@QUICK
@given(arguments_of())
def test_it_begins_at_0_and_ends_at_its_end(arguments):
    rates = curve(arguments)
    begin = 0.0 if arguments["warmup_steps"] else arguments["learning_rate"]
    assert_close(rates[0], begin, 1e-15, arguments["end_learning_rate"])
    end = rates[arguments["total_steps"] :]
    np.testing.assert_array_equal(end, arguments["end_learning_rate"])


@QUICK
@given(CONTINUOUS)
def test_it_rises_to_its_peak_and_then_goes_to_its_end(arguments):
    rates, w = curve(arguments), arguments["warmup_steps"]
    peak, end = arguments["learning_rate"], arguments["end_learning_rate"]
    held = rates[w : w + arguments["constant_steps"] + 1]
    assert_close(held, np.full_like(held, peak), 1e-15, end)
    slack = 1e-15 * max(peak, end)
    assert (np.diff(rates[: w + 1]) >= -slack).all()
    falling = np.diff(rates[w:]) * (1 if end >= peak else -1)
    assert (falling >= -slack).all()


@QUICK
@given(CONTINUOUS)
def test_the_distance_to_its_end_falls_as_a_power(arguments):
    """Of the share of the steps that are left."""
    total = arguments["total_steps"]
    w = arguments["warmup_steps"] + arguments["constant_steps"]
    peak, end = arguments["learning_rate"], arguments["end_learning_rate"]
    steps = np.arange(w, total + 1.0)
    left = (total - steps) / (total - w)
    distance = curve(arguments, steps) - end
    expected = (peak - end) * left ** arguments["power"]
    assert_close(distance, expected, 1e-12, peak + end)


@QUICK
@given(CONTINUOUS, st.floats(0, 1))
def test_it_is_continuous(arguments, place):
    """Around every step, and in between: as near as the slope says."""
    total, w = arguments["total_steps"], arguments["warmup_steps"]
    arguments["power"] = max(arguments["power"], 1.0)  # else steep at its end
    peak, end = arguments["learning_rate"], arguments["end_learning_rate"]
    left = total - w - arguments["constant_steps"]
    slope = arguments["power"] * abs(peak - end) / left
    if w:
        slope = max(slope, peak / w)
    steps = np.append(np.arange(total + 1.0), place * total)
    before, after = steps - 1e-6, steps + 1e-6
    jump = np.abs(curve(arguments, after) - curve(arguments, before))
    assert (jump[1:] <= 2.1e-6 * slope + 1e-12).all()


@QUICK
@given(arguments_of(decay_from="start"))
def test_from_the_start_it_falls_at_once_where_the_warmup_ends(arguments):
    arguments.update(power=1.0, end_learning_rate=0.0)
    w, peak = arguments["warmup_steps"], arguments["learning_rate"]
    share = w / arguments["total_steps"]
    assert_close(curve(arguments)[w], peak * (1 - share), 1e-14, peak)
    # From there on it is the decay without a warmup.
    plain = curve({**arguments, "warmup_steps": 0})
    np.testing.assert_array_equal(curve(arguments)[w:], plain[w:])


@QUICK
@given(arguments_of(), POWERS_OF_TWO, st.integers(1, 7))
def test_it_scales_with_its_rates_and_with_its_steps(arguments, scale, times):
    rates = curve(arguments)
    higher = {
        name: scale * arguments[name]
        for name in ("learning_rate", "end_learning_rate")
    }
    np.testing.assert_array_equal(curve({**arguments, **higher}), scale * rates)
    longer = {
        name: times * arguments[name]
        for name in ("total_steps", "warmup_steps", "constant_steps")
    }
    steps = times * np.arange(len(rates))
    got = curve({**arguments, **longer}, steps.astype(float))
    assert_close(got, rates, 1e-12)


@QUICK
@given(arguments_of(), st.integers(0, 600))
def test_a_step_alone_is_a_step_of_the_curve(arguments, step):
    """And the class computes the same, in float32."""
    whole = curve(arguments, np.arange(601.0))
    assert curve(arguments, np.array(float(step))) == whole[step]
    rate = schedules.WarmupPolynomial(**arguments)(step)
    assert rate.dtype == np.float32
    top = arguments["learning_rate"]
    # The root of the distance to the end, which float32 holds to 6e-8.
    assert_close(rate, whole[step], 1e-3, top)


@QUICK
@given(arguments_of())
def test_a_config_is_json_and_makes_the_same_schedule(arguments):
    schedule = schedules.WarmupPolynomial(**arguments, name="mine")
    config = json.loads(json.dumps(schedule.get_config()))
    again = schedules.WarmupPolynomial(**config)
    assert again.get_config() == schedule.get_config()
    assert again.get_config() == {**arguments, "name": "mine"}
    for step in (0, 1, arguments["warmup_steps"], arguments["total_steps"]):
        assert again(step) == schedule(step)


@QUICK
@given(st.lists(arguments_of(), min_size=1, max_size=4), st.data())
def test_phases_follow_each_other_from_their_own_step_0(phases, data):
    lengths = [data.draw(st.integers(1, 50)) for _ in phases]
    functions = [schedules.WarmupPolynomial(**phase) for phase in phases]
    whole = schedules.Rewarmup(functions, lengths)
    begin = 0
    for function, length in zip(functions, lengths):
        for step in (0, length // 2, length - 1):
            assert whole(begin + step) == function(step)
        begin += length
    # The last phase continues.
    assert whole(begin + 7) == functions[-1](lengths[-1] + 7)
    again = schedules.Rewarmup.from_config(whole.get_config())
    assert again.get_config() == whole.get_config()
    # Phases of phases are phases.
    first = schedules.Rewarmup(functions[:1], lengths[:1])
    nested = schedules.Rewarmup([first, *functions[1:]], lengths)
    for step in range(0, begin + 8, 5):
        assert nested(step) == whole(step)


@QUICK
@given(RATES, SIZES, SIZES, SIZES, st.sampled_from(schedules.SCALING_RULES))
def test_scaling_by_steps_is_scaling_at_once(rate, one, two, three, rule):
    def scale(rate, base, batch):
        return schedules.scale_learning_rate(
            rate, base_batch_size=base, global_batch_size=batch, rule=rule
        )

    at_once = scale(rate, one, three)
    assert_close(scale(scale(rate, one, two), two, three), at_once, 1e-14)
    assert scale(rate, one, one) == rate
    assert_close(scale(at_once, three, one), rate, 1e-14)
    assert (scale(1.0, one, two) > 1) == (two > one)


@QUICK
@given(RATES, SIZES, SIZES)
def test_the_square_of_the_root_rule_is_the_linear_rule(rate, one, two):
    sizes = dict(base_batch_size=one, global_batch_size=two)
    root = schedules.scale_learning_rate(1.0, rule="sqrt", **sizes)
    linear = schedules.scale_learning_rate(rate, rule="linear", **sizes)
    assert_close(rate * root**2, linear, 1e-14)
    # Warmup in epochs grows like the batch: in steps it stays.
    assert_close(schedules.scale_warmup(rate, **sizes) / two, rate / one, 1e-14)


@QUICK
@given(SIZES, SIZES)
def test_the_untuned_rule_grows_with_the_batch(one, two):
    one, two = sorted((one, two))
    for rule in (schedules.untuned_bert, schedules.untuned_imagenet):
        small, large = rule(one), rule(two)
        assert small.learning_rate <= large.learning_rate
        assert small.warmup <= large.warmup
        ratio = large.learning_rate / small.learning_rate
        assert_close(ratio, (two / one) ** 0.5, 1e-14)
    assert schedules.untuned_bert(two).warmup <= 1
