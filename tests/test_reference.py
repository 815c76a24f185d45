"""The naive references against optax; LAMB's on paper and by property."""

import numpy as np
import pytest

from tests.reference.lamb import ReferenceLAMB, norm_of
from tests.reference.lars import ReferenceLARS
from tests.reference_steps import (
    assert_close,
    distance,
    gradients,
    one_step,
    run,
    variables,
)

INF = float("inf")

# Parity with optax 0.2.8 in float64.


@pytest.fixture
def optax():
    """optax with 64-bit JAX types, for the length of one test."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield optax
    jax.config.update("jax_enable_x64", before)


def run_optax(transform, grads, params):
    import jax
    import optax

    params = jax.tree.map(jax.numpy.asarray, params)
    assert all(x.dtype == np.float64 for x in params.values())
    state = transform.init(params)
    for g in grads:
        updates, state = transform.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.asarray(x) for name, x in params.items()}


KERNEL_ONLY = {"kernel": True, "bias": False, "scale": False}
EXCLUDED = ("bias", "scale")


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_equals_optax_over_30_steps(optax, weight_decay):
    grads = gradients(30)
    ours = ReferenceLAMB(0.01, weight_decay=weight_decay, no_decay=EXCLUDED)
    theirs = optax.lamb(0.01, weight_decay=weight_decay, mask=KERNEL_ONLY)
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


def test_lamb_equals_optax_under_a_schedule_and_a_global_clip(optax):
    grads = gradients(30)
    ours = ReferenceLAMB(lambda n: 0.02 / (1 + n), global_clipnorm=2.0)
    theirs = optax.chain(
        optax.clip_by_global_norm(2.0), optax.lamb(lambda n: 0.02 / (1 + n))
    )
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


def test_lamb_nadam_equals_optax_nadam_with_a_trust_ratio(optax):
    grads = gradients(30)
    ours = ReferenceLAMB(0.01, weight_decay=0.1, nesterov="nadam")
    theirs = optax.chain(
        optax.scale_by_adam(eps=1e-6, nesterov=True),
        optax.add_decayed_weights(0.1),
        optax.scale_by_trust_ratio(),
        optax.scale_by_learning_rate(0.01),
    )
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_lars_equals_optax_over_30_steps(optax, nesterov, epsilon):
    grads = gradients(30)
    ours = ReferenceLARS(
        lambda n: 1.0 / (1 + n),
        weight_decay=0.1,
        trust_coefficient=0.02,
        epsilon=epsilon,
        form="optax",
        nesterov=nesterov,
        no_decay=EXCLUDED,
        no_adapt=["scale"],
    )
    theirs = optax.lars(
        lambda n: 1.0 / (1 + n),
        weight_decay=0.1,
        weight_decay_mask=KERNEL_ONLY,
        trust_coefficient=0.02,
        eps=epsilon,
        trust_ratio_mask={"kernel": True, "bias": True, "scale": False},
        nesterov=nesterov,
    )
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


# LAMB on paper.


def test_lamb_first_step_on_paper():
    # r = sign(g) = (1, -1); u = r + (6, 8) / 2 = (4, 3); ratio 10 / 5.
    lamb = ReferenceLAMB(0.1, epsilon=0.0, weight_decay=0.5)
    x = one_step(lamb, [6.0, 8.0], [7.0, -2.0])
    np.testing.assert_allclose(x, [5.2, 7.4], rtol=1e-14)
    assert lamb.trust_ratios["x"] == pytest.approx(2.0, rel=1e-14)
    np.testing.assert_allclose(lamb.m["x"], [0.7, -0.2], rtol=1e-14)
    np.testing.assert_allclose(lamb.v["x"], [0.049, 0.004], rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, x",
    [
        # phi(10) = 5, 10, 20: ratio 1, 2, 4.
        ({"phi_bounds": (1.0, 5.0)}, [5.6, 7.7]),
        ({"phi_bounds": (1.0, 50.0)}, [5.2, 7.4]),
        ({"phi_bounds": (20.0, 50.0)}, [4.4, 6.8]),
        # The ratio 2 is bounded: 1.5, 2, 3; then phi(10) = 5 and ratio 1.
        ({"trust_ratio_bounds": (0.5, 1.5)}, [5.4, 7.55]),
        ({"trust_ratio_bounds": (0.5, 2.5)}, [5.2, 7.4]),
        ({"trust_ratio_bounds": (3.0, 4.0)}, [4.8, 7.1]),
        (
            {"phi_bounds": (1.0, 5.0), "trust_ratio_bounds": (1.5, 4.0)},
            [5.4, 7.55],
        ),
        # Ratio 1; then u = r and ratio 10 / sqrt(2).
        ({"no_adapt": ["x"]}, [5.6, 7.7]),
        ({"no_decay": ["x"]}, [6 - 0.5**0.5, 8 + 0.5**0.5]),
    ],
)
def test_lamb_options_on_paper(arguments, x):
    lamb = ReferenceLAMB(0.1, epsilon=0.0, weight_decay=0.5, **arguments)
    found = one_step(lamb, [6.0, 8.0], [7.0, -2.0])
    np.testing.assert_allclose(found, x, rtol=1e-14)


def test_lamb_norms_of_the_ratio_on_paper():
    # x = (6, 8), u = r = (1, -1): ratio 10 / sqrt(2), 14 / 2, 8 / 1.
    for norm, ratio in [("l2", 50**0.5), ("l1", 7.0), ("linf", 8.0)]:
        lamb = ReferenceLAMB(epsilon=0.0, norm=norm)
        one_step(lamb, [6.0, 8.0], [7.0, -2.0])
        assert lamb.trust_ratios["x"] == pytest.approx(ratio, rel=1e-14)


def test_lamb_bias_correction_on_paper():
    # g = 1, then 11: m_hat = (1 + 22) / 3, v_hat = (1 + 242) / 3 = 81.
    lamb = ReferenceLAMB(0.27, 0.5, 0.5, 0.0, no_adapt=["x"])
    params = {"x": np.array([1.0])}
    params = lamb.step(params, {"x": np.array([1.0])})
    assert params["x"] == pytest.approx(0.73, rel=1e-14)
    params = lamb.step(params, {"x": np.array([11.0])})
    assert params["x"] == pytest.approx(0.73 - 0.27 * 23 / 27, rel=1e-14)


@pytest.mark.parametrize(
    "bias_correction, nesterov, beta_2, r",
    [
        # m = g / 2; undone by the correction at t = 1.
        (True, None, 0.75, 1.0),
        # (1/2) / sqrt(1/16).
        (False, None, 15 / 16, 2.0),
        # m_hat = (1/4) / (3/4) + 1 = 4/3.
        (True, "nadam", 0.75, 4 / 3),
        # v_hat = (1 + 2 beta_2) / (1 + beta_2) = 36/25.
        (True, "nadam_both", 11 / 14, 10 / 9),
        # m_hat = 1/4 + 1/2; sqrt(v_hat) = sqrt(1/4).
        (False, "nadam", 0.75, 1.5),
        # v_hat = 1 - beta_2^2 = 9/25.
        (False, "nadam_both", 0.8, 1.25),
    ],
)
def test_lamb_nesterov_on_paper(bias_correction, nesterov, beta_2, r):
    lamb = ReferenceLAMB(
        0.1,
        0.5,
        beta_2,
        0.0,
        bias_correction=bias_correction,
        nesterov=nesterov,
        no_adapt=["x"],
    )
    x = one_step(lamb, [1.0, 1.0], [3.0, -4.0])
    np.testing.assert_allclose(x, [1 - 0.1 * r, 1 + 0.1 * r], rtol=1e-14)


def test_lamb_counts_updates_of_all_variables_on_paper():
    # x first moves at t = 2: m_hat = (g / 2) / (3 / 4), v_hat = g^2.
    lamb = ReferenceLAMB(0.3, 0.5, 0.0, 0.0, no_adapt=["x"])
    params = {"x": np.ones(1), "y": np.ones(1)}
    params = lamb.step(params, {"x": None, "y": np.ones(1)})
    assert params["x"] == 1.0
    assert lamb.m["x"] == lamb.v["x"] == 0.0
    params = lamb.step(params, {"x": np.full(1, 5.0), "y": None})
    assert params["x"] == pytest.approx(1 - 0.3 * 2 / 3, rel=1e-14)


# LAMB by property: the acceptance items of the algorithm.


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
@pytest.mark.parametrize("bounds", [None, (3.0, 3.5), (0.1, 0.2)])
def test_lamb_moves_each_adapted_tensor_by_lr_phi(norm, bounds):
    lamb = ReferenceLAMB(0.01, weight_decay=0.1, norm=norm, phi_bounds=bounds)
    before = variables()
    for number, g in enumerate(gradients(5)):
        after = lamb.step(before, g)
        for name in before:
            size = norm_of(before[name], norm)
            if number > 0 or name != "bias":
                low, high = bounds or (0.0, INF)
                moved = norm_of(after[name] - before[name], norm)
                expected = 0.01 * min(max(size, low), high)
                assert moved == pytest.approx(expected, rel=1e-12)
        before = after


def test_lamb_without_moments_is_a_sign_step():
    params, (g,) = variables(), gradients(1)
    after = ReferenceLAMB(0.1, 0.0, 0.0, 0.0).step(params, g)
    for name in ("kernel", "scale"):
        x, d = params[name], params[name].size
        step = 0.1 * norm_of(x, "l2") * np.sign(g[name]) / np.sqrt(d)
        np.testing.assert_allclose(after[name], x - step, rtol=0, atol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("nesterov", [None, "nadam", "nadam_both"])
def test_lamb_gradient_times_1000_changes_only_epsilon_effects(
    weight_decay, nesterov
):
    grads = gradients(20)
    large = [{name: 1000 * x for name, x in g.items()} for g in grads]

    def gap(epsilon):
        left, right = (
            run(
                ReferenceLAMB(
                    0.01,
                    epsilon=epsilon,
                    weight_decay=weight_decay,
                    nesterov=nesterov,
                ),
                given,
            )
            for given in (grads, large)
        )
        return distance(left, right)

    assert gap(0.0) < 1e-12
    assert 1e-12 < gap(1e-6) < 1e-5
    assert gap(0.1) > 1e-4


def test_lamb_bias_correction_cancels_only_in_adapted_tensors():
    left, right = (
        run(
            ReferenceLAMB(
                0.01,
                epsilon=0.0,
                bias_correction=corrected,
                no_adapt=["bias"],
            ),
            gradients(30),
        )
        for corrected in (True, False)
    )
    for name in ("kernel", "scale"):
        np.testing.assert_allclose(left[name], right[name], rtol=1e-10)
    assert np.max(np.abs(left["bias"] - right["bias"])) > 0.01


@pytest.mark.parametrize("zero", ["x", "u"])
def test_lamb_ratio_of_a_zero_norm_is_1_whatever_phi(zero):
    lamb = ReferenceLAMB(0.1, epsilon=1e-3, phi_bounds=(5.0, 10.0))
    x = np.zeros(2) if zero == "x" else np.ones(2)
    g = np.ones(2) if zero == "x" else np.zeros(2)
    after = one_step(lamb, x, g)
    assert lamb.trust_ratios["x"] == 1.0
    expected = x - 0.1 / 1.001 if zero == "x" else x
    np.testing.assert_allclose(after, expected, rtol=1e-12)
