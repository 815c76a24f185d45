r"""Curves in weight space between two trained models, and the loss on them.

    python -m tf_lamb.diagnostics connect MODEL DATA --other OTHER

With ends `w` and `v` and a bend `theta`, for `t` in [0, 1],

$$\phi(t) = (1 - t)^2 w + 2 t (1 - t)\, \theta + t^2 v$$

("bezier"), or the two straight lines from `w` to `theta` (`t = 1/2`) and on to
`v` ("polychain"). The straight line from `w` to `v` is the Bezier curve whose
bend is their mean. The barrier is

$$\max_t\; L(\phi(t)) - (1 - t) L(w) - t L(v)$$

over the places where it was measured. Two models between which it is 0 lie in
one connected region of low loss. At each place the statistics of batch
normalisation are recomputed, because those of the ends do not fit there.

References:
  Garipov et al. 2018 (arXiv:1802.10026), equations 1 to 4; Draxler et al. 2018
  (arXiv:1803.00885); Frankle et al. 2020 (arXiv:1912.05671) and Entezari et al.
  2022 (arXiv:2110.06296) for the barrier.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check, figures
from tf_lamb.diagnostics.at_weights import AtWeights, mean_and_error

__all__ = [
    "KINDS",
    "Barrier",
    "Path",
    "barrier",
    "coefficients",
    "measure",
    "plot",
    "point",
]

KINDS = ("bezier", "polychain")

Weights = Sequence[np.ndarray]


class Path(NamedTuple):
    """Loss and accuracy along a path.

    Attributes:
      places: `t`, ascending from 0 to 1, `[P]`.
      batch_losses: `[P, B]`.
      losses: their means, `[P]`.
      errors: standard errors of those over batches, `[P]`.
      scores: shares of right classes, `[P]`, or None.
      score_errors: likewise.
    """

    places: np.ndarray
    batch_losses: np.ndarray
    losses: np.ndarray
    errors: np.ndarray
    scores: np.ndarray | None
    score_errors: np.ndarray | None


class Barrier(NamedTuple):
    """How high the loss rises above the line between the ends' losses.

    Attributes:
      value: `rise`, or 0, that of the ends, where it is below.
      rise: the largest between the ends. Being the largest of several, it is
        on average somewhat above the true one.
      standard_error: of that rise, over batches.
      place: its `t`.
    """

    value: float
    rise: float
    standard_error: float
    place: float


def coefficients(kind: str, t: float) -> tuple[float, float, float]:
    """The shares of start, bend and end in a point; they add up to 1.

    Args:
      kind: "bezier" or "polychain".
      t: in [0, 1].
    """
    check.one_of("kind", kind, KINDS)
    t = check.share("t", t)
    if kind == "bezier":
        return (1 - t) ** 2, 2 * t * (1 - t), t**2
    if t <= 0.5:
        return 1 - 2 * t, 2 * t, 0.0
    return 0.0, 2 - 2 * t, 2 * t - 1


def point(
    kind: str, t: float, start: Weights, bend: Weights, end: Weights
) -> list[np.ndarray]:
    """The weights at a place of a curve; the ends are copies, bit by bit.

    Args:
      kind: "bezier" or "polychain".
      t: in [0, 1].
      start: weights at 0.
      bend: of the curve.
      end: weights at 1.
    """
    a, b, c = coefficients(kind, t)
    for share, weights in ((a, start), (c, end)):
        if share == 1:  # A sum with zeros would lose the sign of a zero.
            return [w.copy() for w in weights]
    found = []
    for parts in zip(start, bend, end):
        w, theta, v = (np.asarray(part, np.float64) for part in parts)
        found.append((a * w + b * theta + c * v).astype(parts[0].dtype))
    return found


def measure(
    name: str,
    places: Sequence[float],
    weights: Callable[[float], list[np.ndarray]],
    statistics: AtWeights,
    at: AtWeights,
    *,
    kept: Callable[[str, Any], None] | None = None,
    before: dict[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """Loss and accuracy along a path.

    Args:
      name: of the path.
      places: `t`, ascending from 0 to 1.
      weights: those at `t`.
      statistics: examples from which those of batch normalisation are taken.
      at: examples whose loss is measured; it may be the same.
      kept: called with the name of a place and what was found there.
      before: what was kept, by name.
      progress: called with a line of text.
    """
    losses, scores = [], []
    for i, t in enumerate(places):
        cell = f"{name}/{i}"
        found = (before or {}).get(cell)
        if found is None:
            here = weights(t)
            measured = at.measure(here, statistics.with_statistics(here))
            found = measured._asdict()
            if kept:
                kept(cell, found)
            progress(f"{name}: place {i + 1}/{len(places)}")
        losses.append(found["losses"])
        scores.append(found["scores"])
    table = np.asarray(losses, np.float64)
    means, errors = _means(table)
    if any(s is None for s in scores):
        return Path(np.asarray(places), table, means, errors, None, None)
    return Path(np.asarray(places), table, means, errors, *_means(scores))


def _means(table: Any) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.asarray([mean_and_error(row) for row in table])
    return found[:, 0], found[:, 1]


def barrier(path: Path) -> Barrier:
    """The barrier on a path.

    Args:
      path: from 0 to 1, of three places or more.

    Raises:
      ValueError: a loss on it is not finite.
    """
    if not np.isfinite(path.batch_losses).all():
        raise ValueError(
            "losses: expected finite ones along the path, got some that are "
            "not; take models whose weights are finite, or a lower --rate."
        )
    t = path.places[:, None]
    ends = path.batch_losses[0], path.batch_losses[-1]
    rises = path.batch_losses - (1 - t) * ends[0] - t * ends[1]  # [P, B]
    highest = 1 + int(np.argmax(rises[1:-1].mean(1)))
    rise, error = mean_and_error(rises[highest])
    place = float(path.places[highest])
    return Barrier(max(rise, 0.0), rise, error, place)


def plot(path: Any, paths: dict[str, Path]) -> None:
    """Draws losses, and accuracies where there are some.

    Args:
      path: of a PNG file.
      paths: by name.
    """
    first = next(iter(paths.values()))
    columns = 1 if first.scores is None else 2
    figure = figures.new("curves.plot", 5.5 * columns, 4)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for name, found in paths.items():
        high = barrier(found)
        label = f"{name}: highest {high.rise:.2g} ± {high.standard_error:.1g}"
        rows: list[Any] = [(found.losses, found.errors, label)]
        if found.scores is not None:
            rows.append((found.scores, found.score_errors, name))
        for axis, (values, errors, text) in zip(axes, rows):
            axis.errorbar(
                found.places, values, errors, label=text, marker=".", capsize=2
            )
    axes[0].set_title("highest: above the line between the ends")
    for axis, title in zip(axes, ("loss", "accuracy")):
        axis.set_xlabel("t (0: MODEL, 1: OTHER)")
        axis.set_ylabel(f"{title} (± standard error over batches)")
        axis.legend(fontsize="small")
    figures.save(figure, path)
