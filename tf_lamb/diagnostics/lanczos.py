r"""Eigenvalues of a symmetric matrix that is known by its products only.

`k` steps of Lanczos from a unit vector `q` give a tridiagonal `T = Q^T A Q`
whose eigenvalues ("Ritz values") approach the outer ones of `A`, and whose
quadrature

$$q^\top f(A)\, q \approx \sum_i \tau_i^2 f(\theta_i),\qquad
  T u_i = \theta_i u_i,\quad \tau_i = u_i[0]$$

is exact for polynomials up to degree `2k - 1`. For random `q` with signs as
elements, `n` times it estimates `tr f(A)` without bias. All is float64, every
vector is made orthogonal to all before it, twice.

References:
  Golub and Meurant 2010; Ubaru, Chen and Saad 2017 (stochastic Lanczos
  quadrature); Hutchinson 1989; Ghorbani et al. 2019 (arXiv:1901.10159).
"""

from __future__ import annotations

import math
import tempfile
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check

__all__ = ["Estimate", "Ritz", "density", "moment", "quadrature", "run"]

# A basis below this many bytes stays in memory; a larger one is a file.
IN_MEMORY = 16 << 20
CHUNK = 1 << 16  # numbers that are worked on at once


class Ritz(NamedTuple):
    """What a run of Lanczos found.

    Attributes:
      values: `theta`, ascending, `[k]`.
      weights: `tau^2`, which add up to 1, `[k]`.
      residuals: `|A y - theta y|` of each unit Ritz vector `y`, `[k]`: an
        eigenvalue of `A` is no farther than this from the Ritz value.
      size: `n`, rows of `A`.
    """

    values: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray
    size: int


class Estimate(NamedTuple):
    """A mean over random vectors.

    Attributes:
      value: the mean.
      standard_error: of it; infinite for one vector.
    """

    value: float
    standard_error: float


def run(
    product: Callable[[np.ndarray], np.ndarray],
    size: int,
    steps: int,
    random: np.random.Generator,
    *,
    folder: str | None = None,
    progress: Callable[[int], None] = lambda step: None,
) -> Ritz:
    """Lanczos from a random vector of signs.

    Args:
      product: `A v` of a float64 vector `[size]`.
      size: `n`, rows of `A`.
      steps: `k`, at most `n`; fewer are taken where `A` has no more different
        eigenvalues.
      random: draws the vector.
      folder: for the basis, `k n` float64, where it is above 16 MiB; None: the
        system's folder for temporary files. The file is gone at the end.
      progress: called after each product with its number, from 1.

    Raises:
      ValueError: a product is not finite.
    """
    size, steps = check.count("size", size), check.count("steps", steps)
    steps = min(steps, size)
    with tempfile.TemporaryFile(dir=folder) as file:
        if 8 * steps * size > IN_MEMORY:
            basis: Any = np.memmap(file, np.float64, "w+", shape=(steps, size))
        else:
            basis = np.empty((steps, size))
        for begin in range(0, size, CHUNK):
            signs = random.integers(0, 2, min(CHUNK, size - begin))
            basis[0, begin : begin + CHUNK] = signs * 2.0 - 1
        basis[0] /= np.linalg.norm(basis[0])
        alphas, betas = _steps(product, basis, progress)
        del basis
    values, vectors = np.linalg.eigh(
        np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    )
    return Ritz(values, vectors[0] ** 2, abs(betas[-1] * vectors[-1]), size)


def _steps(
    product: Any, basis: np.ndarray, progress: Any
) -> tuple[np.ndarray, np.ndarray]:
    """From the unit vector `basis[0]`."""
    alphas, betas = [], []
    for k in range(len(basis)):
        next_one = np.asarray(product(basis[k]), np.float64)
        if not np.isfinite(next_one).all():
            raise ValueError(
                "product: not finite; the loss or its derivative overflows at "
                "these weights, or the data are not finite."
            )
        norm = np.linalg.norm(next_one)
        alphas.append(float(basis[k] @ next_one))
        for _ in range(2):
            for row in basis[: k + 1]:
                _subtract(next_one, row @ next_one, row)
        betas.append(float(np.linalg.norm(next_one)))
        progress(k + 1)
        if betas[-1] <= 1e-12 * norm or k + 1 == basis.shape[1]:
            betas[-1] = 0.0  # the space is invariant
            break
        if k + 1 < len(basis):
            np.divide(next_one, betas[-1], out=basis[k + 1])
        del next_one  # the basis, perhaps a file, has it
    return np.array(alphas), np.array(betas)


def _subtract(array: np.ndarray, factor: float, row: np.ndarray) -> None:
    """`array -= factor * row`, without a third array of that size."""
    for begin in range(0, len(array), CHUNK):
        part = slice(begin, begin + CHUNK)
        array[part] -= factor * row[part]


def moment(runs: Sequence[Ritz], power: int = 1) -> Estimate:
    """`tr A^power` with its standard error.

    Args:
      runs: of independent random vectors.
      power: >= 1; exact for each vector up to `2k - 1`. 1: Hutchinson's trace.
    """
    found = [r.size * float(r.weights @ r.values**power) for r in runs]
    error = math.inf
    if len(found) > 1:
        error = float(np.std(found, ddof=1)) / math.sqrt(len(found))
    return Estimate(float(np.mean(found)), error)


def quadrature(runs: Sequence[Ritz]) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the spectral density, the mean of the runs'.

    Args:
      runs: of independent random vectors.

    Returns:
      Nodes, ascending, and weights that add up to 1.
    """
    nodes = np.concatenate([r.values for r in runs])
    weights = np.concatenate([r.weights for r in runs]) / len(runs)
    order = np.argsort(nodes)
    return nodes[order], weights[order]


def density(
    runs: Sequence[Ritz], points: int = 400, width: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """The density, each node as a Gaussian, for a plot.

    Args:
      runs: of independent random vectors.
      points: of the grid.
      width: standard deviation of the Gaussians, as a share of the range.
    """
    nodes, weights = quadrature(runs)
    span = max(float(np.ptp(nodes)), 1e-12 * max(1.0, float(abs(nodes).max())))
    grid = np.linspace(nodes[0] - 0.05 * span, nodes[-1] + 0.05 * span, points)
    deviation = width * span
    bells = np.exp(-0.5 * ((grid[:, None] - nodes) / deviation) ** 2)
    return grid, bells @ weights / (deviation * math.sqrt(2 * math.pi))
