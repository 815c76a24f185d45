"""The closed forms against batches that are drawn, and the linear students."""

import numpy as np
import pytest
from scipy import integrate, stats

from official_models.vision.batch_norm import teacher_student, theory
from tests.official_models.scripts import refusal

NAMES = tuple(theory.DISTRIBUTIONS)


def test_the_partition_is_the_integral_of_softplus():
    for h in (-3.0, 0.0, 2.5):
        below, _ = integrate.quad(theory.softplus, -40, h)
        assert theory.log_partition(h) == pytest.approx(below, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_distributions_are_standardized(name):
    law = theory.distribution(name)
    assert law.mean() == pytest.approx(0)
    assert law.var() == pytest.approx(1)
    known = {"gaussian": 0, "laplace": 3, "uniform": -1.2}
    assert theory.excess_kurtosis(name) == pytest.approx(known[name])


def test_the_expected_hessian():
    for name in NAMES:
        for gamma in (0.3, 2.0):
            found = theory.expected_hessian(name, gamma)
            assert found == pytest.approx((0.5, 0.5), abs=1e-6)
    rng = np.random.default_rng(0)
    z = rng.normal(size=1_000_000)
    sigmoid = 1 / (1 + np.exp(-(1.5 * z + 1)))
    assert theory.expected_hessian("gaussian", 1.5, 1.0) == pytest.approx(
        ((sigmoid * z * z).mean(), sigmoid.mean()), rel=5e-3
    )


def test_zeta_by_hand():
    # (0 + 2) / (8 * 4) * 0.5 + 0.25 / (2 * 4)
    assert theory.zeta(4, 0.0, 0.5, 0.25) == pytest.approx(0.0625)
    assert theory.zeta(8, -2.0, 1.0, 1.0) == pytest.approx(1 / 16)
    assert theory.zeta(4, 0.0, 1.0, 1.0) == pytest.approx(3 / 16)  # linear


@pytest.mark.parametrize("name", NAMES)
def test_the_variance_of_a_batchs_deviation(name):
    rng = np.random.default_rng(1)
    mean, deviation = theory.batch_statistics(name, 64, 20_000, rng)
    expected = theory.deviation_variance(64, theory.excess_kurtosis(name))
    assert deviation.var() == pytest.approx(expected, rel=0.1)
    assert mean.var() == pytest.approx(1 / 64, rel=0.05)
    _, unbiased = theory.batch_statistics(
        name, 64, 20_000, np.random.default_rng(1), unbiased=True
    )
    np.testing.assert_allclose(unbiased, deviation * np.sqrt(64 / 63))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("gamma", "beta"), [(1.0, 0.0), (0.7, 1.0)])
def test_the_gap_is_zeta_gamma_squared(name, gamma, beta):
    hessian = theory.expected_hessian(name, gamma, beta)
    kurtosis = theory.excess_kurtosis(name)
    times_m = {}
    for m in (32, 64, 128):
        gap = theory.monte_carlo_gap(name, m, gamma, beta, batches=3000)
        expected = theory.zeta(m, kurtosis, *hessian) * gamma**2
        assert gap.mean == pytest.approx(expected, rel=0.15)
        times_m[m] = gap.mean * m
    # Proportional to 1 / M.
    assert times_m[64] == pytest.approx(times_m[128], rel=0.1)


def test_the_gap_grows_with_the_kurtosis_and_repeats_itself():
    each = [theory.monte_carlo_gap(n, 32, batches=1000).mean for n in NAMES]
    gaussian, laplace, uniform = each
    assert uniform < gaussian < laplace
    again = theory.monte_carlo_gap("uniform", 32, batches=1000)
    assert again.mean == uniform
    biased = theory.monte_carlo_gap("uniform", 32, batches=1000, unbiased=False)
    assert biased.mean > again.mean  # batch norm's own s_B is too small
    refusal(lambda: theory.distribution("cauchy"), "cauchy", "gaussian, ")


def test_the_gamma_that_gradient_descent_finds():
    rng = np.random.default_rng(2)
    z = rng.normal(size=4000)
    z = (z - z.mean()) / z.std()
    y = 0.8 * z + rng.normal(size=4000)
    decay = theory.zeta(16, 0.0, 1.0, 1.0)
    gamma = 0.0
    for _ in range(200):
        gradient = -((y - gamma * z) * z).mean() + 2 * decay * gamma
        gamma -= 0.2 * gradient
    overlap = (y * z).mean()
    assert gamma == pytest.approx(theory.fitted_gamma(overlap, decay))
    assert theory.fitted_gamma(overlap, 0.0) == pytest.approx(overlap)


def _numeric(loss, x, step=1e-6):
    found = np.zeros_like(x)
    for i in range(len(x)):
        e = np.zeros_like(x)
        e[i] = step
        found[i] = (loss(x + e) - loss(x - e)) / (2 * step)
    return found


def test_gradients_of_the_students_and_their_rate():
    rng = np.random.default_rng(3)
    x, y, w = rng.normal(size=(8, 5)), rng.normal(size=8), rng.normal(size=5)

    def bn(v):
        h = x @ v[:-1]
        z = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
        return ((y - v[-1] * z) ** 2).mean() / 2

    def wn(v):
        z = x @ v[:-1] / np.linalg.norm(v[:-1])
        return ((y - v[-1] * z) ** 2).mean() / 2 + 0.1 * v[-1] ** 2

    at = np.append(w, 1.3)
    for loss, found in (
        (bn, teacher_student.bn_gradients(w, 1.3, x, y)),
        (wn, teacher_student.wn_gradients(w, 1.3, x, y, 0.1)),
    ):
        np.testing.assert_allclose(
            np.append(found.weight, found.gamma), _numeric(loss, at), atol=1e-6
        )
        assert abs(w @ found.weight) < 1e-4  # of a normalized weight
    # A step turns the direction by rate * gamma / |w|^2 times a gradient that
    # |w| and gamma do not change.
    base = teacher_student.wn_gradients(w, 1.0, x, 0 * y, 0.0).weight
    other = teacher_student.wn_gradients(3 * w, 1.0, x, 0 * y, 0.0).weight
    np.testing.assert_allclose(other / 3, base / 9)
    assert theory.effective_rate(0.1, 2.0, 4.0) == pytest.approx(0.0125)


def test_students_learn_and_the_decay_shrinks_gamma():
    task = teacher_student.Task(20, 5.0, 0.0, 10, 600)
    errors = {k: teacher_student.train(k, task, 1) for k in ("bn", "wn", "sgd")}
    assert errors["sgd"].error < 1e-3
    assert all(found.error < 0.02 for found in errors.values())
    assert errors["wn"].gamma == pytest.approx(
        theory.fitted_gamma(1.0, theory.zeta(10, 0, 1, 1)), abs=0.06
    )
    refusal(lambda: teacher_student.train("x", task, 1), "bn, wn, sgd")
    refusal(lambda: teacher_student.Task(load=0.1), "load 0.1", "16")


def test_paired_differences():
    from official_models.vision.batch_norm import experiments

    one, other = [1.0, 2.0, 4.0], [0.5, 1.0, 3.5]
    found = experiments.paired(one, other)
    assert found["difference"] == pytest.approx(2 / 3)
    assert found["p"] == pytest.approx(stats.ttest_rel(one, other)[1])
    assert experiments.paired([1.0], [2.0])["p"] is None
    assert experiments.paired([1.0, 2.0], [1.0, 2.0])["p"] is None
