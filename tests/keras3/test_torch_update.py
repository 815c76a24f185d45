"""The update on torch by lists and blocks: all options, at any block length."""

import operator

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.parity_cases import cases, make

if keras.config.backend() != "torch":
    pytest.skip("torch's own update", allow_module_level=True)

import torch

from tf_lamb import keras3_loop, torch_lists, torch_update
from tf_lamb.torch_lists import Tensors


@pytest.fixture
def counts(monkeypatch):
    """How often each of two ways of updating was gone."""
    found = {"blocks": 0, "alone": 0}

    def counted(name, function):
        def call(*args):
            found[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(
        torch_update, "_by_block", counted("blocks", torch_update._by_block)
    )
    monkeypatch.setattr(
        torch_update.Loop,
        "_apply",
        counted("alone", torch_update.Loop._apply),
    )
    return found


@pytest.mark.parametrize("optimizer, arguments, changes", list(cases()))
def test_blocks_of_five_equal_the_reference(
    optimizer, arguments, changes, counts, monkeypatch
):
    monkeypatch.setattr(torch_update, "ON_PROCESSOR", 5)
    ours, reference = make(tf_lamb, optimizer, arguments, changes)
    got = problems.values_of(problems.run(ours, 6))
    expected = problems.run_reference(reference, 6)
    assert problems.distance(got, expected) < 3e-6
    for name, ratio in ours.trust_ratios.items():
        assert ratio == pytest.approx(reference.trust_ratios[name], rel=1e-5)
    one_pass = arguments.get("cautious") or arguments.get("form") == "lans"
    if not one_pass and not counts["alone"]:
        assert counts["blocks"]


def _run(optimizer, sizes, steps, executor=None):
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(rng.normal(size=n).astype("float32"), name=f"v{i}")
        for i, n in enumerate(sizes)
    ]
    if executor:
        optimizer._executor = lambda: executor
    for _ in range(steps):
        grads = [
            torch.tensor(rng.normal(size=n).astype("float32")) for n in sizes
        ]
        optimizer.apply(grads, variables)
    return np.concatenate([v.numpy().ravel() for v in variables])


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 1.0}])
@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_as_variable_by_variable(name, clipping, counts):
    """Some are lists, one is longer than a block, one is empty."""
    sizes = [(3, 4), (7,), (), (0,), (2**18 + 5,), (600, 500)]
    make_one = getattr(tf_lamb, name)
    ours = make_one(0.1, weight_decay=0.01, **clipping)
    found = _run(ours, sizes, 3)
    assert counts == {"blocks": 6, "alone": 0}
    other = make_one(0.1, weight_decay=0.01, **clipping)
    expected = _run(other, sizes, 3, keras3_loop.Loop(other._ops))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    for key, ratio in ours.trust_ratios.items():
        assert ratio == pytest.approx(other.trust_ratios[key], rel=1e-5)


def test_bfloat16_moments_go_alone(counts):
    """Their rounding depends on an element's place in its own shape."""
    optimizer = tf_lamb.LAMB(0.1, moment_dtype="bfloat16")
    _run(optimizer, [(3, 4), (5,)], 2)
    assert counts == {"blocks": 0, "alone": 4}


def test_a_step_that_is_skipped_changes_nothing():
    variable = keras.Variable(np.ones(4, "float32"), name="v")
    optimizer = tf_lamb.LAMB(0.1)
    optimizer.apply([torch.ones(4)], [variable])
    before = [v.numpy().copy() for v in (variable, *optimizer._slots[0])]
    optimizer.apply([torch.tensor([1.0, float("inf"), 0, 0])], [variable])
    after = [v.numpy() for v in (variable, *optimizer._slots[0])]
    assert optimizer.skipped_steps == 1
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)


def test_without_state_the_variables_stay():
    variable = keras.Variable(np.ones(4, "float32"), name="v")
    optimizer = tf_lamb.LAMB(0.1)
    optimizer.build([variable])
    # The values themselves, no copies: they are left as they are.
    state = [v.value for v in optimizer.variables]
    optimizer.stateless_apply(state, [torch.ones(4)], [variable.value])
    (new,), _ = optimizer.stateless_apply(
        state, [torch.ones(4)], [torch.full((4,), 2.0)]
    )
    assert not any(slot.numpy().any() for slot in optimizer._slots[0])
    np.testing.assert_array_equal(variable.numpy(), np.ones(4))
    optimizer.apply([torch.ones(4)], [variable])
    # |x| / |u| is 2 there and 1 here: a step of a tenth of each.
    np.testing.assert_allclose(new.detach().numpy(), 1.8, rtol=1e-5)
    np.testing.assert_allclose(variable.numpy(), 0.9, rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [operator.add, operator.sub, operator.mul, operator.truediv]
    + [operator.gt, operator.ge, operator.eq],
)
def test_arithmetic_of_lists(function):
    rng = np.random.default_rng(1)
    parts = [torch.tensor(rng.normal(size=n)) for n in ((2, 3), (4,), ())]
    numbers = [torch.tensor(x) for x in (0.5, 2.0, -1.0)]
    ours = Tensors(parts)
    for other, each in (
        (Tensors(numbers), numbers),
        (2.0, [2.0] * 3),
        (torch.tensor(2.0, dtype=torch.float64), [2.0] * 3),
    ):
        for a, b, result in zip(parts, each, function(ours, other).parts):
            torch.testing.assert_close(result, function(a, b))
        if function in (operator.gt, operator.ge, operator.eq):
            continue
        for a, b, result in zip(parts, each, function(other, ours).parts):
            torch.testing.assert_close(result, function(torch.as_tensor(b), a))


def test_norms_of_lists():
    x = Tensors([torch.tensor([3.0, -4.0]), torch.zeros(0)])
    for kind, expected in (("l2", 5), ("l1", 7), ("linf", 4)):
        found = torch_lists.norm(kind, x).parts
        assert [float(part) for part in found] == [expected, 0]


def test_a_long_norm_keeps_its_digits():
    x = torch.linspace(0.5, 1.5, 3_000_001)
    exact = float(np.linalg.norm(x.numpy().astype("float64")))
    assert float(torch_lists.norm_of("l2", x)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("l1", 2**25), ("l2", 2**12.5)])
def test_a_norm_of_equal_numbers_keeps_them_all(kind, expected):
    """One after another, float32 ones add up to 2^24 and no further."""
    found = torch_lists.norm_of(kind, torch.ones(2**25))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [2**10, 2**18, 2**22])
def test_a_constant_variable_has_the_right_ratio(n):
    """LARS of `c` everywhere, by gradients of 1: ratio = norms' quotient."""
    c = np.float32(0.01234)
    for norm in ("l1", "l2", "linf"):
        optimizer = tf_lamb.LARS(
            0.1, trust_coefficient=1.0, momentum=0.0, epsilon=0.0, norm=norm
        )
        variable = keras.Variable(np.full(n, c), name="w")
        optimizer.build([variable])
        optimizer.apply([torch.ones(n)], [variable])
        assert optimizer.trust_ratios["w"] == pytest.approx(c, rel=2e-6)


@pytest.mark.parametrize("n", [2**12, 2**25])
def test_cautious_counts_every_element(n):
    variable = keras.Variable(np.zeros(n, "float32"), name="w")
    optimizer = tf_lamb.LAMB(
        1e-3,
        cautious=True,
        weight_decay=0.0,
        exclude_from_layer_adaptation=["w"],
    )
    optimizer.build([variable])
    grad = torch.ones(n)
    optimizer.apply([grad], [variable])
    grad[: n // 4] *= -0.5  # a quarter disagrees with the first moment
    before = float(variable.value[-1])
    optimizer.apply([grad], [variable])
    moved = before - float(variable.value[-1])
    assert moved == pytest.approx(1e-3 / 0.75, rel=1e-4)
