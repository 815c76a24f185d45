"""The rules as pure functions of NumPy arrays: equations and properties."""

import ml_dtypes
import numpy as np
import pytest

from tests.reference.lamb import ReferenceLAMB
from tests.reference.lamb_peers import PEERS
from tests.reference.lars import ReferenceLARS
from tf_lamb import arithmetic, hyperparameters, rules

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 9))


def _gradients(steps):
    rng = np.random.default_rng(1)
    return [rng.normal(size=X.shape) for _ in range(steps)]


def _small_gradients(steps):
    """Of norms below 1: what clips to 1 leaves them."""
    return [0.1 * g for g in _gradients(steps)]


def _lamb(x, grads, learning_rate=0.01, weight_decay=0.0, adapt=True, **hyper):
    m = v = np.zeros_like(x)
    for t, g in enumerate(grads, 1):
        x, m, v, ratio = rules.lamb(
            np,
            x,
            g,
            m,
            v,
            float(t),
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            adapt=adapt,
            hyper=rules.Lamb(**hyper),
        )
    return x, ratio


@pytest.mark.parametrize("norm", arithmetic.NORMS)
@pytest.mark.parametrize("nesterov", hyperparameters.NESTEROV_FORMS)
@pytest.mark.parametrize("bias_correction", [True, False])
def test_lamb_in_float64_equals_the_reference(norm, nesterov, bias_correction):
    shared = dict(
        learning_rate=0.01,
        weight_decay=0.1,
        nesterov=nesterov,
        bias_correction=bias_correction,
    )
    got, ratio = _lamb(X, _gradients(30), norm=norm, **shared)
    reference = ReferenceLAMB(norm=norm, **shared)
    params = {"x": X}
    for g in _gradients(30):
        params = reference.step(params, {"x": g})
    np.testing.assert_allclose(got, params["x"], rtol=0, atol=1e-13)
    assert ratio == pytest.approx(reference.trust_ratios["x"], rel=1e-12)


@pytest.mark.parametrize("form", PEERS)
@pytest.mark.parametrize("decays", [True, False])
def test_lamb_forms_in_float64_equal_their_sources(form, decays):
    own = hyperparameters.LAMB_FORMS[form]
    got, ratio = _lamb(
        X,
        _small_gradients(30),
        weight_decay=0.1 if decays else 0.0,
        adapt=decays or own.undecayed != "by_list",
        form=form,
        epsilon=own.epsilon,
        bias_correction=own.bias_correction,
        trust_ratio_bounds=own.trust_ratio_bounds,
    )
    peer = PEERS[form](0.01, 0.1, no_decay=() if decays else ("x",))
    params = {"x": X}
    for g in _small_gradients(30):
        params = peer.step(params, {"x": g})
    np.testing.assert_allclose(got, params["x"], rtol=0, atol=1e-13)
    assert ratio == pytest.approx(peer.trust_ratios["x"], rel=1e-12)


@pytest.mark.parametrize("form", hyperparameters.LARS_FORMS)
@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_in_float64_equals_the_reference(form, nesterov):
    if nesterov and form == "you2020":
        with pytest.raises(ValueError):
            ReferenceLARS(form=form, nesterov=nesterov)
        return
    hyper = rules.Lars(
        form=form, nesterov=nesterov, epsilon=1e-3, trust_coefficient=0.1
    )
    reference = ReferenceLARS(
        lambda step: 0.1 * 0.9**step,
        weight_decay=0.1,
        form=form,
        nesterov=nesterov,
        epsilon=1e-3,
        trust_coefficient=0.1,
    )
    params, x, m = {"x": X}, X, np.zeros_like(X)
    for i, g in enumerate(_gradients(30)):
        x, m, _, _ = rules.lars(
            np,
            x,
            g,
            m,
            learning_rate=0.1 * 0.9**i,
            weight_decay=0.1,
            hyper=hyper,
        )
        params = reference.step(params, {"x": g})
    np.testing.assert_allclose(x, params["x"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("norm", arithmetic.NORMS)
@pytest.mark.parametrize("phi_bounds", [None, (0.5, 1.5), (20.0, 30.0)])
def test_step_length_is_rate_times_phi(norm, phi_bounds):
    """|dx(i)| = lr * phi(|x(i)|), in the norm that was asked for."""
    x = X
    m = v = np.zeros_like(X)
    for t, g in enumerate(_gradients(5), 1):
        new, m, v, _ = rules.lamb(
            np,
            x,
            g,
            m,
            v,
            float(t),
            learning_rate=0.01,
            weight_decay=0.1,
            hyper=rules.Lamb(norm=norm, phi_bounds=phi_bounds),
        )
        length = arithmetic.norm(np, x, norm)
        if phi_bounds:
            length = np.clip(length, *phi_bounds)
        moved = arithmetic.norm(np, new - x, norm)
        assert moved == pytest.approx(0.01 * length, rel=1e-12)
        x = new


@pytest.mark.parametrize("bounds", [(0.2, 0.7), (0.0, 0.7), (0.2, np.inf)])
def test_trust_ratio_is_bounded_unless_a_norm_is_0(bounds):
    ratios = [
        rules.trust_ratio(np, np.float64(x), np.float64(u), bounds=bounds)
        for x, u in ((1, 10), (5, 10), (9, 10), (1, 1e-9), (0, 1), (1, 0))
    ]
    low, high = bounds
    expected = [max(0.1, low), 0.5, min(0.9, high)]
    assert ratios[:3] == pytest.approx(expected, rel=1e-15)
    assert ratios[3] == pytest.approx(min(1e9, high))
    assert ratios[4:] == [1, 1]


def test_gradient_scale_changes_only_what_epsilon_does():
    small, _ = _lamb(X, _gradients(30), epsilon=1e-12)
    large, _ = _lamb(X, [1e3 * g for g in _gradients(30)], epsilon=1e-12)
    np.testing.assert_allclose(small, large, rtol=0, atol=1e-9)


def test_without_moments_and_decay_it_is_a_sign_step():
    """beta_1 = beta_2 = 0, lambda = 0: lr |x| sign(g) / sqrt(d)."""
    (g,) = _gradients(1)
    got, _ = _lamb(X, [g], beta_1=0.0, beta_2=0.0, epsilon=1e-15)
    length = 0.01 * np.linalg.norm(X) / np.sqrt(X.size)
    np.testing.assert_allclose(got, X - length * np.sign(g), atol=1e-12)


def test_bias_correction_cancels_for_an_adapted_tensor_without_decay():
    """Up to epsilon; on a tensor that is not adapted it does not."""
    grads = _gradients(30)
    corrected, _ = _lamb(X, grads)
    plain, _ = _lamb(X, grads, bias_correction=False)
    assert 1e-9 < np.abs(corrected - plain).max() < 1e-3
    corrected, _ = _lamb(X, grads, adapt=False)
    plain, _ = _lamb(X, grads, adapt=False, bias_correction=False)
    assert np.abs(corrected - plain).max() > 0.01


@pytest.mark.parametrize("rule", ["lamb", "lars"])
def test_zeros_and_excluded_tensors_have_ratio_1(rule):
    zeros, ones = np.zeros((3,)), np.ones((3,))

    def ratio(param, grad, **arguments):
        if rule == "lamb":
            return rules.lamb(
                np, param, grad, zeros, zeros, 1.0, learning_rate=1, **arguments
            ).trust_ratio
        return rules.lars(
            np, param, grad, zeros, learning_rate=1, **arguments
        ).trust_ratio

    assert ratio(zeros, ones) == 1
    assert ratio(ones, zeros) == 1
    assert ratio(zeros, zeros) == 1
    assert ratio(5 * ones, ones, adapt=False) == 1
    assert ratio(5 * ones, ones) != 1


def test_loss_scale_does_not_change_lars():
    """With weight decay 0 the trajectory ignores the loss' scale."""

    def run(factor):
        x, m = X, np.zeros_like(X)
        for g in _gradients(10):
            x, m, _, _ = rules.lars(
                np,
                x,
                factor * g,
                m,
                learning_rate=1.0,
                hyper=rules.Lars(trust_coefficient=0.1),
            )
        return x

    np.testing.assert_allclose(run(1.0), run(1e3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind, expected", [("l2", 70_000**0.5), ("l1", 7e4)])
def test_norms_of_narrow_tensors_are_float32(dtype, kind, expected):
    ones = np.ones(70_000, dtype)
    got = arithmetic.norm(np, ones, kind)
    assert got.dtype == np.float32
    assert got == pytest.approx(expected)


def test_results_keep_the_dtypes_of_what_they_replace():
    param, grad = X.astype("float16"), X.astype("float16")
    m = v = np.zeros(X.shape, "float32")
    step = rules.lamb(np, param, grad, m, v, 1.0, learning_rate=0.01)
    assert step.param.dtype == np.float16
    assert step.m.dtype == step.v.dtype == np.float32
    step = rules.lars(np, param, grad, m, learning_rate=0.01)
    assert step.param.dtype == np.float16
    assert step.m.dtype == np.float32


def test_moments_of_large_float16_gradients_do_not_overflow():
    g = np.full((4,), 300.0, "float16")  # 300^2 is infinite in float16
    zeros = np.zeros((4,), "float32")
    step = rules.lamb(
        np, np.ones(4, "float16"), g, zeros, zeros, 1.0, learning_rate=0.1
    )
    assert np.isfinite(step.v).all() and np.isfinite(step.param).all()


def test_a_bfloat16_momentum_needs_the_step():
    m = np.zeros(X.shape, ml_dtypes.bfloat16)
    for form in hyperparameters.LARS_FORMS:
        with pytest.raises(ValueError, match="step: expected the count"):
            rules.lars(
                np, X, X, m, learning_rate=0.1, hyper=rules.Lars(form=form)
            )
