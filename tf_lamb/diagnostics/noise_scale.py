r"""The gradient noise scale, from norms of gradients of two batch sizes.

A batch's gradient is the true gradient `G` and noise whose covariance is that
of one example, `Sigma`, over the batch size. Hence, for batches of `b` and `B`,

$$E\|g_b\|^2 = \|G\|^2 + \frac{\operatorname{tr}\Sigma}{b},\qquad
  E\|g_B\|^2 = \|G\|^2 + \frac{\operatorname{tr}\Sigma}{B}$$

two equations that are solved for the two unknowns without bias:

$$\|G\|^2 = \frac{B\|g_B\|^2 - b\|g_b\|^2}{B - b},\qquad
  \operatorname{tr}\Sigma = \frac{\|g_b\|^2 - \|g_B\|^2}{1/b - 1/B}$$

The noise scale `tr Sigma / |G|^2` is the ratio of their averages over steps,
and never the average of ratios, which is biased. This module is NumPy only.

References:
  McCandlish et al. 2018 (arXiv:1812.06162), section 2.2 and appendix A.1.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tf_lamb import check

__all__ = ["NoiseScale", "estimate", "moments"]


class NoiseScale(NamedTuple):
    """A noise scale with its uncertainty.

    Attributes:
      value: `tr Sigma / |G|^2`, in examples; infinite where the estimate of
        `|G|^2` is not above 0.
      standard_error: of `value`, by the delta method; infinite where `value`
        is, or with fewer than two records.
      lower: lower end of the confidence interval (Fieller's), >= 0.
      upper: upper end; infinite where `|G|^2` does not differ from 0 at this
        level: the records are too few, or too noisy, to bound it.
      gradient_squared: the averaged estimate of `|G|^2`.
      trace: the averaged estimate of `tr Sigma`.
      records: how many records (blocks of them) count.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    gradient_squared: float
    trace: float
    records: int

    def steps_factor(self, batch_size: float) -> float:
        r"""Steps at a batch size over those at an infinite one, `1 + B_s / B`.

        Args:
          batch_size: examples of a step, > 0.
        """
        return 1 + self.value / check.positive("batch_size", batch_size)

    def examples_factor(self, batch_size: float) -> float:
        r"""Examples at a batch size over the fewest possible, `1 + B / B_s`.

        Args:
          batch_size: examples of a step, > 0.
        """
        batch_size = check.positive("batch_size", batch_size)
        return 1 + batch_size / self.value if self.value else math.inf


def moments(
    small_squares: ArrayLike,
    big_squares: ArrayLike,
    small: float,
    big: float,
) -> tuple[np.ndarray, np.ndarray]:
    """`|G|^2` and `tr Sigma`, estimated from each pair of squared norms.

    Args:
      small_squares: `|g_b|^2`, any shape; where several small batches were
        measured in one record, their mean.
      big_squares: `|g_B|^2`, the same shape.
      small: `b`, examples of the small batch, > 0.
      big: `B`, examples of the big batch, > `b`.

    Returns:
      Estimates without bias, each of that shape, float64. Either can be
      negative.

    Raises:
      ValueError: the batch sizes are not `0 < b < B`, or the shapes differ.
    """
    small, big = check.positive("small", small), check.positive("big", big)
    if not small < big:
        raise ValueError(
            f"small, big: expected small < big, got {small:g} and {big:g}."
        )
    of_small = np.asarray(small_squares, np.float64)
    of_big = np.asarray(big_squares, np.float64)
    if of_small.shape != of_big.shape:
        raise ValueError(
            "small_squares, big_squares: expected one shape, got "
            f"{of_small.shape} and {of_big.shape}."
        )
    gradient_squared = (big * of_big - small * of_small) / (big - small)
    trace = (of_small - of_big) / (1 / small - 1 / big)
    return gradient_squared, trace


def estimate(
    small_squares: ArrayLike,
    big_squares: ArrayLike,
    small: float,
    big: float,
    *,
    decay: float | None = None,
    block: int = 1,
    level: float = 0.95,
) -> NoiseScale:
    r"""The noise scale of a series of records, with its uncertainty.

    Averages are over all records, or exponential. The error of an average is
    that of a weighted mean of independent records; of the ratio `R` of
    averages `S / Q`, it is

    $$\operatorname{var} R = \frac{\operatorname{var} S
      - 2 R \operatorname{cov}(S, Q) + R^2 \operatorname{var} Q}{Q^2}$$

    by the delta method. The interval is Fieller's: every `R` for which `S - R
    Q` does not differ from 0 by a t-test. It is not symmetric, and has no upper
    end where `Q` does not differ from 0.

    Args:
      small_squares: `|g_b|^2` of each record, `[n]`, in order.
      big_squares: `|g_B|^2`, `[n]`.
      small: `b`, examples of the small batch, > 0.
      big: `B`, examples of the big batch, > `b`.
      decay: a record's weight over that of the next, in (0, 1): exponential
        averages; None: all count the same.
      block: records in a row that count as one, their mean, >= 1: for records
        that depend on each other. Those too few for a block, at the start,
        are left out.
      level: of the confidence interval, in (0, 1).

    Raises:
      ValueError: there is no whole block, a norm is not finite, or an argument
        is out of its range.

    Example:
      >>> from tf_lamb.diagnostics import noise_scale
      >>> found = noise_scale.estimate([3.0, 3.4, 2.9], [1.2, 1.1, 1.3], 4, 32)
      >>> round(found.value, 2), round(found.standard_error, 2)
      (9.35, 1.89)
    """
    block = check.count("block", block)
    for name, value in (("level", level), ("decay", decay)):
        if value is None and name == "decay":
            continue
        if not 0 < check.share(name, value) < 1:
            raise check.refuse(name, value, "a number in (0, 1)")
    pairs = np.stack(moments(small_squares, big_squares, small, big)[::-1])
    if pairs.ndim != 2 or pairs.shape[1] < block:
        raise ValueError(
            f"small_squares: expected one axis with at least {block} records, "
            f"got shape {pairs.shape[1:]}."
        )
    if not np.isfinite(pairs).all():
        raise ValueError(
            "small_squares, big_squares: a norm is not finite; leave out the "
            "records of steps with such a gradient."
        )
    n = pairs.shape[1] // block
    blocks = pairs[:, pairs.shape[1] - n * block :].reshape(2, n, block).mean(2)
    weights = np.ones(n) if decay is None else decay ** np.arange(n)[::-1]
    weights = weights / weights.sum()
    means = blocks @ weights
    overlap = float((weights**2).sum())
    if n == 1:
        covariance, t = np.full((2, 2), np.inf), math.inf
    else:
        apart = (blocks - means[:, None]) * weights
        covariance = apart @ apart.T / (1 - overlap)
        t = _student(level, 1 / overlap - 1)
    return _ratio(means, covariance, t, n)


def _ratio(
    means: np.ndarray, covariance: np.ndarray, t: float, records: int
) -> NoiseScale:
    """The ratio of two means, its standard error and Fieller's interval."""
    trace, squared = map(float, means)
    value = max(trace / squared, 0.0) if squared > 0 else math.inf
    if records == 1:
        return NoiseScale(value, math.inf, 0, math.inf, squared, trace, 1)
    (var_trace, covar), (_, var_squared) = covariance.tolist()
    error = math.inf
    if squared > 0:
        ratio = trace / squared
        var = var_trace - 2 * ratio * covar + ratio**2 * var_squared
        error = math.sqrt(max(var, 0.0)) / squared
    # The R with (S - R Q)^2 <= t^2 var(S - R Q): a R^2 - 2 h R + c <= 0.
    a = squared**2 - t**2 * var_squared
    h = trace * squared - t**2 * covar
    c = trace**2 - t**2 * var_trace
    root = math.sqrt(max(h * h - a * c, 0.0))
    lower, upper = 0.0, math.inf
    if a > 0 and squared > 0:
        lower, upper = (h - root) / a, (h + root) / a
    elif a < 0 < c:  # outside of the roots, one of which is negative
        lower = (h - root) / a
    return NoiseScale(
        value,
        error,
        max(lower, 0.0),
        max(upper, 0.0),
        squared,
        trace,
        records,
    )


def _student(level: float, freedom: float) -> float:
    """The two-sided quantile of Student's t distribution.

    By its expansion around the normal one (Fisher and Cornish 1960), which is
    right to 1% from 3 degrees of freedom on at a level of 0.95; for fewer, it
    is too small.
    """
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(x / freedom ** (i + 1) for i, x in enumerate(terms))
