r"""The spectrum of a loss: its largest curvature, trace and density.

    python -m tf_lamb.diagnostics spectrum MODEL DATA --output_dir runs/spectrum

Lanczos from random vectors gives the outer eigenvalues of the Hessian and of
its Gauss-Newton part with bounds of their errors, the trace with its standard
error, and the density. Gradient descent with rate `eta` is unstable along an
eigenvector whose `eta lambda > 2`, with momentum `mu` where `eta lambda >
2 (1 + mu)`, with Nesterov's where `eta lambda > 2 (1 + mu) / (1 + 2 mu)`.

References:
  Ghorbani et al. 2019 (arXiv:1901.10159); Cohen et al. 2021 (arXiv:2103.00065)
  for the bound on the rate.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check, figures, wrapped
from tf_lamb.diagnostics import lanczos
from tf_lamb.diagnostics.curvature import Curvature

__all__ = ["MATRICES", "Spectrum", "measure", "plot", "rate_warning", "summary"]

MATRICES = ("hessian", "gauss_newton")


class Spectrum(NamedTuple):
    """What was found of one matrix.

    Attributes:
      lambda_max: the largest Ritz value of all runs.
      lambda_max_residual: an eigenvalue is no farther from it than this:
        Lanczos' residual, and a rounding error of the model's dtype.
      lambda_min: the smallest Ritz value of all runs.
      lambda_min_residual: likewise.
      trace: with its standard error over vectors (Hutchinson).
      trace_of_square: `tr A^2`, likewise.
      nodes: of the density, ascending.
      weights: of the nodes; they add up to 1.
    """

    lambda_max: float
    lambda_max_residual: float
    lambda_min: float
    lambda_min_residual: float
    trace: lanczos.Estimate
    trace_of_square: lanczos.Estimate
    nodes: np.ndarray
    weights: np.ndarray


def measure(
    curvature: Curvature,
    matrix: str = "hessian",
    *,
    steps: int = 30,
    vectors: int = 4,
    seed: int = 0,
    kept: Callable[[str, Any], None] | None = None,
    before: dict[str, Any] | None = None,
    folder: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Spectrum:
    """The spectrum of a matrix of a loss.

    Args:
      curvature: the loss of a model and examples.
      matrix: "hessian" or "gauss_newton".
      steps: of Lanczos for each vector, >= 1: products with the matrix.
      vectors: random ones, >= 1; one gives no standard error.
      seed: of the vectors.
      kept: called with a name and a run, when it is done.
      before: runs that were kept, by name.
      folder: for the basis of Lanczos (see `lanczos.run`).
      progress: called with a line of text.

    Raises:
      ValueError: an argument is out of range, or a product is not finite.
    """
    matrix = check.one_of("matrix", matrix, MATRICES)
    check.count("vectors", vectors)
    product = getattr(curvature, f"{matrix}_vector")
    runs = []
    for i in range(vectors):
        name, text = f"{matrix}/{i}", f"{matrix} {i + 1} of {vectors}"
        if name in (before or {}):
            values, weights, residuals, size = (before or {})[name].values()
            run = lanczos.Ritz(
                np.asarray(values),
                np.asarray(weights),
                np.asarray(residuals),
                size,
            )
        else:
            run = lanczos.run(
                product,
                curvature.size,
                steps,
                np.random.default_rng([seed, i]),
                folder=folder,
                progress=partial(_count_up, progress, text, steps),
            )
            if kept:
                kept(name, run)
        runs.append(run)
    return summary(runs, curvature.epsilon)


def _count_up(progress: Any, text: str, steps: int, step: int) -> None:
    progress(f"{text}: product {step}/{steps}")


def summary(runs: Sequence[lanczos.Ritz], epsilon: float = 0.0) -> Spectrum:
    """The spectrum that runs of Lanczos from random vectors give.

    Args:
      runs: one at least.
      epsilon: relative rounding error of a product.
    """
    top = max(runs, key=lambda r: r.values[-1])
    low = min(runs, key=lambda r: r.values[0])
    rounding = epsilon * max(abs(top.values[-1]), abs(low.values[0]))
    return Spectrum(
        float(top.values[-1]),
        float(top.residuals[-1] + rounding),
        float(low.values[0]),
        float(low.residuals[0] + rounding),
        lanczos.moment(runs),
        lanczos.moment(runs, 2),
        *lanczos.quadrature(runs),
    )


def rate_warning(optimizer: Any, lambda_max: float) -> str | None:
    """A line, if gradient descent is unstable with its rate; else None.

    Args:
      optimizer: of Keras; only its SGD is judged, in a loss scaler too.
      lambda_max: of the Hessian.
    """
    optimizer = wrapped.innermost(optimizer)
    if type(optimizer).__name__ != "SGD":
        return None
    rate, limit = float(optimizer.learning_rate), 2 * (1 + optimizer.momentum)
    if optimizer.nesterov:
        limit /= 1 + 2 * optimizer.momentum
    if rate * lambda_max <= limit:
        return None
    return (
        f"warning: rate {rate:g} times lambda_max {lambda_max:g} is "
        f"{rate * lambda_max:.3g}, above {limit:g}: SGD moves away along that "
        f"eigenvector; below a rate of {limit / lambda_max:.3g} it does not"
    )


def plot(path: Any, runs: dict[str, Spectrum], size: int) -> None:
    """Draws the densities, on a logarithmic scale.

    Args:
      path: of a PNG file.
      runs: spectra by the name of their matrix.
      size: rows of the matrix, for the smallest density that is drawn.
    """
    figure = figures.new("spectrum.plot", 7, 3.2 * len(runs))
    for i, (name, found) in enumerate(runs.items()):
        axes = figure.add_subplot(len(runs), 1, i + 1)
        one = lanczos.Ritz(found.nodes, found.weights, found.nodes, size)
        grid, heights = lanczos.density([one])
        axes.semilogy(grid, heights)
        axes.set_ylim(bottom=heights.max() * 1e-8)
        axes.axvline(found.lambda_max, color="tab:red", linestyle="--")
        axes.set_xlabel("eigenvalue (dashed: the largest)")
        axes.set_ylabel("density")
        axes.set_title(
            f"{name.replace('_', '-')}: largest {found.lambda_max:.4g} ± "
            f"{found.lambda_max_residual:.1g}, trace {found.trace.value:.4g} ± "
            f"{found.trace.standard_error:.1g}"
        )
    figures.save(figure, path)
