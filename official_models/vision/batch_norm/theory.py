r"""The decay of gamma that is hidden in batch normalization, in closed form.

One unit is `h = gamma z + beta` with `z = (w x - mu_P) / s`, normalized by the
population's mean and deviation. A batch of M examples has other ones,

$$\mu_B \sim N(\mu_P, s^2 / M), \qquad
  s_B \sim N(s, (\rho + 2) s^2 / 4M)$$

with rho the excess kurtosis of `w x`. The loss is that of a generalized linear
model whose mean is softplus, a smooth rectifier:

$$\ell(h, y) = A(h) - y h, \qquad A' = softplus, \quad A'' = sigmoid$$

To second order in the deviations, and averaged over y given x,

$$E_B\,\ell(BN) \approx \ell(PN) + \zeta \gamma^2, \qquad
  \zeta = \frac{\rho + 2}{8 M} I(\gamma) + \frac{1}{2 M} E[sigmoid(h)], \qquad
  I(\gamma) = E[sigmoid(h)\, z^2]$$

I is the *expected* Hessian. The square of the gradient at one's own labels is
no substitute: where the model fits, it is nearly 0.

References:
    Luo et al. 2019, "Towards Understanding Regularization in Batch
    Normalization" (arXiv:1809.00846)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from official_models.common.errors import InputError

Array = np.ndarray
# Each with mean 0 and variance 1.
DISTRIBUTIONS: dict[str, Any] = {
    "gaussian": stats.norm(),
    "laplace": stats.laplace(scale=0.5**0.5),
    "uniform": stats.uniform(loc=-(3**0.5), scale=2 * 3**0.5),
}
_RAYS = 512  # values of z that stand for its distribution
_BATCHES_AT_ONCE = 500


class Gap(NamedTuple):
    """How much a batch's statistics add to a loss, on average.

    Attributes:
        mean: Over the batches.
        error: Standard error of the mean.
    """

    mean: float
    error: float


def distribution(name: str) -> Any:
    """A frozen distribution of `scipy.stats`, of mean 0 and variance 1.

    Args:
        name: A key of `DISTRIBUTIONS`.

    Raises:
        InputError: It is none of them.
    """
    if name not in DISTRIBUTIONS:
        raise InputError(
            f"distribution {name!r}: expected one of {', '.join(DISTRIBUTIONS)}"
        )
    return DISTRIBUTIONS[name]


def excess_kurtosis(name: str) -> float:
    """rho: 0 of a Gaussian, 3 of a Laplace, -1.2 of a uniform distribution."""
    return float(distribution(name).stats(moments="k"))


def log_partition(h: Array) -> Array:
    r"""$A(h) = -Li_2(-e^h)$, whose derivative is softplus; h below 700."""
    return -special.spence(1 + np.exp(h))


def softplus(h: Array) -> Array:
    """log(1 + exp(h))."""
    return np.logaddexp(0, h)


def expected_hessian(
    name: str, gamma: float, beta: float = 0.0
) -> tuple[float, float]:
    """I(gamma) and E[sigmoid(h)], by quadrature.

    Args:
        name: Of the distribution of z.
        gamma: Scale of the unit.
        beta: Shift of the unit.

    Returns:
        I(gamma) = E[sigmoid(h) z^2] and E[sigmoid(h)]. Both are 1/2 where z is
        symmetric and beta is 0, whatever gamma is.
    """
    law = distribution(name)
    curvature = law.expect(lambda z: special.expit(gamma * z + beta) * z * z)
    activity = law.expect(lambda z: special.expit(gamma * z + beta))
    return float(curvature), float(activity)


def zeta(
    batch_size: int,
    kurtosis: float,
    curvature: float = 0.5,
    activity: float = 0.5,
) -> float:
    r"""The strength of the hidden decay, $\zeta$ of $\zeta \gamma^2$.

    $$\zeta = \frac{\rho + 2}{8 M} I(\gamma) + \frac{1}{2 M} E[sigmoid(h)]$$

    Args:
        batch_size: M, at least 1.
        kurtosis: rho, the excess kurtosis, at least -2.
        curvature: I(gamma); 1 of a linear unit with a squared loss.
        activity: E[sigmoid(h)]; 1 of the same.
    """
    return (kurtosis + 2) / (8 * batch_size) * curvature + activity / (
        2 * batch_size
    )


def deviation_variance(batch_size: int, kurtosis: float) -> float:
    r"""$Var(s_B) = (\rho + 2) / 4M$, of a population with s = 1."""
    return (kurtosis + 2) / (4 * batch_size)


def batch_statistics(
    name: str,
    batch_size: int,
    batches: int,
    rng: np.random.Generator,
    *,
    unbiased: bool = False,
) -> tuple[Array, Array]:
    """Mean and deviation of batches.

    Args:
        name: Of the distribution.
        batch_size: M, at least 2 if `unbiased`.
        batches: How many.
        rng: Draws them.
        unbiased: Whether the variance is a sum divided by M - 1. Batch
            normalization divides by M, so that its s_B is too small by about
            3 / 4M (Gaussian), which the theory does not have.

    Returns:
        mu_B and s_B, [batches] each.
    """
    x = distribution(name).rvs((batches, batch_size), random_state=rng)
    return x.mean(axis=1), x.std(axis=1, ddof=int(unbiased))


def monte_carlo_gap(
    name: str,
    batch_size: int,
    gamma: float = 1.0,
    beta: float = 0.0,
    *,
    batches: int = 4000,
    seed: int = 0,
    unbiased: bool = True,
) -> Gap:
    r"""$E_B\,\ell(BN) - \ell(PN)$, by drawing batches.

    The example z is not one of the batch. Given x, y has the mean softplus(h),
    and the loss is linear in y, so that its expectation over y is exact; the
    one over z is a mean over equally likely quantiles.

    Args:
        name: Of the distribution of z.
        batch_size: M, at least 2.
        gamma: Scale of the unit.
        beta: Shift of the unit.
        batches: How many are drawn.
        seed: Of the draws.
        unbiased: As for `batch_statistics`. True, since the theory has s_B
            with the mean s.
    """
    rng = np.random.default_rng(seed)
    mean, deviation = batch_statistics(
        name, batch_size, batches, rng, unbiased=unbiased
    )
    z = distribution(name).ppf((np.arange(_RAYS) + 0.5) / _RAYS)
    z = z / z.std()  # the tails beyond the last quantile are missing
    h = gamma * z + beta
    # Draws come in pairs of +mu_B and -mu_B: both are equally likely.
    found = [
        _excess(z, h, gamma, beta, part, deviation) for part in (mean, -mean)
    ]
    each = (found[0] + found[1]) / 2
    return Gap(float(each.mean()), float(each.std(ddof=1) / batches**0.5))


def _excess(z, h, gamma, beta, mean, deviation) -> Array:
    """E_z[A(h_B) - A(h) - softplus(h) (h_B - h)] of each batch, [batches]."""
    parts = []
    for first in range(0, len(mean), _BATCHES_AT_ONCE):
        rows = slice(first, first + _BATCHES_AT_ONCE)
        of_batch = (z - mean[rows, None]) / deviation[rows, None]
        h_b = gamma * of_batch + beta
        excess = log_partition(h_b) - log_partition(h) - softplus(h) * (h_b - h)
        parts.append(excess.mean(axis=1))
    return np.concatenate(parts)


def fitted_gamma(overlap: float, decay: float) -> float:
    r"""Gamma of a linear student with a decay: $R_0 / (1 + 2 \zeta)$.

    It minimizes $E[(y - \gamma z)^2] / 2 + \zeta \gamma^2$.

    Args:
        overlap: R_0 = E[y z], the teacher's projection on the student.
        decay: zeta.
    """
    return overlap / (1 + 2 * decay)


def effective_rate(learning_rate: float, gamma: float, norm: float) -> float:
    r"""The rate of a normalized weight's direction, $\eta \gamma / |w|^2$."""
    return learning_rate * gamma / norm**2
