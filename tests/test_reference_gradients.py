"""The naive references: gradients clipped, accumulated, skipped, averaged."""

import numpy as np
import pytest

from tests.reference.clipping import clip
from tests.reference.lamb import ReferenceLAMB
from tests.reference.lars import FORMS, ReferenceLARS
from tests.reference_steps import (
    assert_close,
    gradients,
    run,
    variables,
)

CLIPS = [{}, {"clipnorm": 0.3}, {"clipvalue": 0.1}, {"global_clipnorm": 0.5}]
NAN, INF = float("nan"), float("inf")

# What both optimizers do with gradients: clip, accumulate, skip, average.

BOTH = [
    pytest.param(ReferenceLAMB, {"weight_decay": 0.1}, id="lamb"),
    *(
        pytest.param(
            ReferenceLARS, {"weight_decay": 0.1, "form": form}, id=form
        )
        for form in FORMS
    ),
]
both = pytest.mark.parametrize("optimizer, arguments", BOTH)


def test_clip_on_paper():
    grads = {
        "a": np.array([3.0, -4.0]),
        "b": np.array([12.0]),
        "c": None,
        "d": np.zeros(2),
    }
    for arguments, a, b in [
        ({}, [3.0, -4.0], [12.0]),
        ({"clipnorm": 6.0}, [3.0, -4.0], [6.0]),
        ({"clipnorm": 1.0}, [0.6, -0.8], [1.0]),
        ({"clipvalue": 3.5}, [3.0, -3.5], [3.5]),
        ({"global_clipnorm": 6.5}, [1.5, -2.0], [6.0]),
        ({"global_clipnorm": 13.5}, [3.0, -4.0], [12.0]),
    ]:
        clipped = clip(grads, **arguments)
        np.testing.assert_allclose(clipped["a"], a, rtol=1e-15)
        np.testing.assert_allclose(clipped["b"], b, rtol=1e-15)
        assert clipped["c"] is None
        np.testing.assert_array_equal(clipped["d"], np.zeros(2))


@both
@pytest.mark.parametrize("clips", CLIPS, ids=str)
def test_k_accumulated_micro_batches_equal_one_large_batch(
    optimizer, arguments, clips
):
    micro = gradients(12)
    large = [
        {
            name: np.mean([g[name] for g in micro[i : i + 4]], axis=0)
            for name in variables()
        }
        for i in range(0, 12, 4)
    ]
    one = run(optimizer(0.1, **arguments, **clips), large)
    k = run(optimizer(0.1, **arguments, **clips, accumulation_steps=4), micro)
    assert_close(one, k, atol=1e-14)


@both
def test_incomplete_accumulation_changes_nothing(optimizer, arguments):
    params, given = variables(), gradients(2)
    accumulating = optimizer(0.1, accumulation_steps=3, **arguments)
    assert_close(run(accumulating, given), params, atol=0)
    assert accumulating.average == {}


@both
def test_the_rate_counts_calls(optimizer, arguments):
    asked = []

    def rate(n):
        asked.append(n)
        return 0.1 * (n + 1)

    k = run(optimizer(rate, accumulation_steps=2, **arguments), gradients(2))
    assert asked[-1] == 1
    mean = {name: sum(g[name] for g in gradients(2)) / 2 for name in k}
    assert_close(k, run(optimizer(0.2, **arguments), [mean]), atol=1e-14)


@both
def test_a_missing_gradient_leaves_its_variable_alone(optimizer, arguments):
    first, second, third = gradients(3)
    second["kernel"] = None
    told = optimizer(0.1, **arguments)
    before = run(told, [first])
    states = [told.m, told.v] if optimizer is ReferenceLAMB else [told.buf]
    held = [state["kernel"].copy() for state in states]
    ratio = told.trust_ratios["kernel"]
    after = told.step(before, second)
    np.testing.assert_array_equal(after["kernel"], before["kernel"])
    for state, kernel in zip(states, held):
        np.testing.assert_array_equal(state["kernel"], kernel)
    assert told.trust_ratios["kernel"] == ratio
    assert np.all(after["scale"] != before["scale"])
    assert np.all(told.step(after, third)["kernel"] != after["kernel"])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@both
def test_a_step_that_is_not_finite_is_skipped(optimizer, arguments, value):
    first, second, third = gradients(3)
    bad = {name: x.copy() for name, x in second.items()}
    bad["bias"][1] = value
    kept = {"clipvalue": 1.0, "ema_momentum": 0.9, **arguments}
    one, other = optimizer(0.1, **kept), optimizer(0.1, **kept)
    without = run(one, [first, third])
    assert_close(run(other, [first, bad, third]), without, atol=0)
    assert_close(one.average, other.average, atol=0)
    assert (one.skipped_steps, other.skipped_steps) == (0, 1)
    let_through = optimizer(0.1, skip_nonfinite=False, **arguments)
    with np.errstate(invalid="ignore"):
        after = run(let_through, [bad])
    assert not np.all(np.isfinite(after["bias"]))
    assert let_through.skipped_steps == 0


@both
def test_one_bad_micro_batch_costs_its_own_update_only(optimizer, arguments):
    grads = gradients(4)
    bad = [{name: x.copy() for name, x in g.items()} for g in grads]
    bad[0]["kernel"][0, 0] = NAN
    told = optimizer(0.1, accumulation_steps=2, **arguments)
    expected = optimizer(0.1, accumulation_steps=2, **arguments)
    assert_close(run(told, bad), run(expected, grads[2:]), atol=0)
    assert told.skipped_steps == 1


def test_a_gradient_missing_in_one_micro_batch_counts_as_zero():
    grads = gradients(2)
    zeros = {**grads[1], "kernel": np.zeros((5, 4))}
    missing = {**grads[1], "kernel": None}
    left, right = (
        run(ReferenceLAMB(0.1, accumulation_steps=2), [grads[0], second])
        for second in (zeros, missing)
    )
    assert_close(left, right, atol=0)


@both
def test_the_average_starts_at_the_first_update(optimizer, arguments):
    grads = gradients(4)
    told = optimizer(0.1, ema_momentum=0.75, accumulation_steps=2, **arguments)
    first = run(told, grads[:2])
    assert_close(told.average, first, atol=0)
    second = run(told, grads[2:], first)
    expected = {n: 0.75 * first[n] + 0.25 * second[n] for n in first}
    assert_close(told.average, expected, atol=1e-15)


@both
def test_arguments_are_not_written_to(optimizer, arguments):
    params, grads = variables(), gradients(3)
    run(optimizer(0.1, **arguments), grads, params)
    assert_close(params, variables(), atol=0)
    for given, fresh in zip(grads, gradients(3)):
        assert_close(given, fresh, atol=0)


@pytest.mark.parametrize(
    "optimizer, arguments, word",
    [
        (ReferenceLAMB, {"nesterov": True}, "nesterov"),
        (ReferenceLAMB, {"norm": "l3"}, "norm"),
        (ReferenceLAMB, {"accumulation_steps": 0}, "accumulation_steps"),
        (ReferenceLAMB, {"clipnorm": 1.0, "clipvalue": 1.0}, "clipnorm"),
        (ReferenceLARS, {"form": "you"}, "form"),
        (ReferenceLARS, {"norm": "l3"}, "norm"),
        (ReferenceLARS, {"form": "you2020", "nesterov": True}, "nesterov"),
    ],
)
def test_wrong_arguments_are_named(optimizer, arguments, word):
    with pytest.raises(ValueError, match=word):
        optimizer(**arguments)
