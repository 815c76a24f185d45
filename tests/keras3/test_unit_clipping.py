"""`clip_by_unit` beside skipping, other limits and the forms of LAMB."""

import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.reference.clipping import clip_by_unit

OPTIMIZERS = [tf_lamb.LAMB, tf_lamb.LARS]


@pytest.mark.parametrize("cls", OPTIMIZERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_skipped(cls, bad):
    optimizer = cls(0.1, clip_by_unit=0.1)
    variables = problems.run(optimizer, 2)
    before = problems.values_of([*variables, *optimizer.variables])
    grads = problems.gradients(2)
    grads["kernel"][1, 2] = bad
    problems.apply(optimizer, variables, grads)
    after = problems.values_of([*variables, *optimizer.variables])
    changed = {n for n in after if (after[n] != before[n]).any()}
    assert changed == {"iteration", "skipped_steps"}
    assert int(optimizer.skipped_steps) == 1


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_a_large_unit_is_clipped_and_the_others_are_not(cls):
    """The first moment after one step is the gradient times a number.

    (LARS' in a form whose momentum has no rate.)
    """

    def moment(grads, **arguments):
        optimizer = cls(0.0, weight_decay=0.0, **arguments)
        variables = problems.make_variables(problems.initial_values())
        problems.apply(optimizer, variables, grads)
        moments = problems.values_of(optimizer._slots[0])
        (kernel,) = list(moments.values())[:1]
        return kernel

    name = {"form": "model_garden"} if cls is tf_lamb.LARS else {}
    grads = problems.gradients(0)
    grads["kernel"] *= 1e-3
    plain = moment(grads, **name)
    np.testing.assert_array_equal(
        moment(grads, clip_by_unit=0.1, **name), plain
    )
    grads["kernel"][:, 3] *= 1e5
    x = problems.initial_values()["kernel"]
    clipped = moment(grads, clip_by_unit=0.1, **name)
    others = [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose(clipped[:, others], plain[:, others], rtol=1e-6)
    limit = 0.1 * np.linalg.norm(x[:, 3])
    share = 0.1 if cls is tf_lamb.LAMB else 1.0
    got = np.linalg.norm(clipped[:, 3])
    assert got == pytest.approx(share * limit, rel=1e-5)


@pytest.mark.parametrize("cls", OPTIMIZERS)
@pytest.mark.parametrize("other", ["clipnorm", "clipvalue"])
def test_beside_another_limit_of_one_variable_it_is_refused(cls, other):
    with pytest.raises(ValueError) as caught:
        cls(0.1, clip_by_unit=0.01, **{other: 1.0})
    assert str(caught.value) == (
        f"clip_by_unit: expected None beside {other}, got 0.01; leave one of "
        "them out, or write global_clipnorm, which it goes with."
    )


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_it_stays_once_the_optimizer_is_built(cls):
    optimizer = cls(0.1, clip_by_unit=0.01)
    problems.run(optimizer, 1)
    with pytest.raises(AttributeError, match="clip_by_unit: it stays 0.01"):
        optimizer.clip_by_unit = 0.02


def test_a_form_clips_the_global_norm_as_before():
    optimizer = tf_lamb.LAMB(form="apex", clip_by_unit=0.01)
    assert (optimizer.global_clipnorm, optimizer.clip_by_unit) == (1.0, 0.01)


def test_lans_divides_what_is_clipped():
    """The units of a gradient keep their lengths beside each other."""

    def end(**arguments):
        optimizer = tf_lamb.LAMB(0.02, form="lans", **arguments)
        return problems.values_of(problems.run(optimizer, 5))

    assert problems.distance(end(clip_by_unit=0.05), end()) > 1e-4


def test_a_group_has_a_limit_of_its_own_or_none():
    """The head is left out, as in the paper; a layer keeps its own units."""

    def end(**arguments):
        optimizer = tf_lamb.LARS(0.02, trust_coefficient=0.1, **arguments)
        return problems.values_of(problems.run(optimizer, 5))

    clipped, free = end(clip_by_unit=0.05), end()
    groups = [tf_lamb.Group("kernel", clip_by_unit=np.inf)]
    mixed = end(clip_by_unit=0.05, groups=groups)
    assert problems.distance(mixed, {**clipped, "kernel": free["kernel"]}) == 0
    groups = [tf_lamb.Group("kernel", clip_by_unit=0.05)]
    mixed = end(groups=groups)
    assert problems.distance(mixed, {**free, "kernel": clipped["kernel"]}) == 0
    with pytest.raises(ValueError, match="clip_by_unit: .* beside clipnorm"):
        end(groups=groups, clipnorm=1.0)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_units_of_variables_with_one_trust_ratio_are_those_of_each(cls):
    layer = {"groups": [tf_lamb.Group("", trust_ratio_per="layer")]}
    values, grads = problems.initial_values(), problems.gradients(0)
    by_optimizer, by_hand = (
        cls(0.1, clip_by_unit=0.05, **layer),
        cls(0.1, **layer),
    )
    variables = problems.make_variables(values)
    problems.apply(by_optimizer, variables, grads)
    expected = problems.make_variables(values)
    clipped = {n: clip_by_unit(g, values[n], 0.05) for n, g in grads.items()}
    assert any(np.abs(clipped[n] - grads[n]).max() > 0.1 for n in grads)
    problems.apply(by_hand, expected, clipped)
    problems.assert_equal(variables, expected, 1e-6)
    assert by_optimizer.trust_ratios["bias"] == pytest.approx(
        by_hand.trust_ratios["kernel"], rel=1e-5
    )
