r"""The loss on slices through trained weights, in filter-normalised directions.

    python -m tf_lamb.diagnostics landscape MODEL DATA --output_dir runs/slice

For trained weights `w` and random directions `d`, `e`,

$$f(\alpha) = L(w + \alpha d),\qquad f(\alpha, \beta) = L(w + \alpha d + \beta
  e),\qquad d_j = \frac{\|w_j\|}{\|z_j\|} z_j,\quad z_j \sim N(0, I)$$

where `j` counts filters: the weights that make one output. They are scaled by
filter because a network with ReLU or batch normalisation computes the same when
a filter's weights are scaled up, though a step of one length then changes it
less. Keras has a kernel's outputs on the last axis; `filter_axes` has the
exceptions. Biases, and scales and offsets of normalisation, do not move (their
direction is 0), as in the paper's plots; `vectors="whole"` moves each as one
filter. A slice is a cut through very many dimensions: what is convex on it need
not be so elsewhere.

References:
  Li et al. 2018 (arXiv:1712.09913), section 4.
"""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check, exclusion, figures
from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.at_weights import AtWeights, mean_and_error

__all__ = [
    "VECTORS",
    "Slice",
    "direction",
    "filter_axes",
    "measure",
    "offsets",
    "plot",
]

VECTORS = ("zero", "whole")

# Of cells, so that little is lost and the file is not written all the time.
_SECONDS_BETWEEN_WRITES = 2.0


class Slice(NamedTuple):
    """A loss on a line or a plane.

    Attributes:
      offsets: `alpha` along the first direction, `[P]`.
      offsets_2: `beta` along the second, `[Q]`; `[0]` for a line.
      losses: `[Q, P]`.
      errors: standard errors of the losses over batches, `[Q, P]`.
      rise_errors: those of the losses' differences from the one at the centre,
        over the same batches, `[Q, P]`; 0 there.
      scores: shares of right classes, `[Q, P]`, or None.
    """

    offsets: np.ndarray
    offsets_2: np.ndarray
    losses: np.ndarray
    errors: np.ndarray
    rise_errors: np.ndarray
    scores: np.ndarray | None


def filter_axes(layer: Any, variable: Any) -> tuple[int, ...]:
    """The axes of a kernel over which one filter extends.

    Args:
      layer: of Keras, that has it; its class decides.
      variable: of rank 2 or more.

    Returns:
      All axes but the last, but of a depthwise kernel `[..., C, M]` all but
      the last two, of a transposed convolution `[..., F, C]` all but that of
      `F`, of an embedding `[V, H]` the last (a row is a filter), and of an
      einsum all that the output has not.
    """
    kinds = {kind.__name__ for kind in type(layer).__mro__}
    axes = tuple(range(len(variable.shape)))
    depthwise = {"DepthwiseConv1D", "DepthwiseConv2D"}
    if kinds & depthwise or variable.name == "depthwise_kernel":
        return axes[:-2]
    if kinds & {f"Conv{n}DTranspose" for n in (1, 2, 3)}:
        return (*axes[:-2], axes[-1])
    if variable.name.endswith("embeddings"):
        return axes[1:]
    if "EinsumDense" in kinds and variable.name == "kernel":
        inputs, output = layer.equation.replace(" ", "").split("->")
        letters = inputs.split(",")[1]
        return tuple(i for i in axes if letters[i] not in output)
    return axes[:-1]


def direction(
    model: Any, random: np.random.Generator, vectors: str = "zero"
) -> list[np.ndarray]:
    """A random direction, each filter of the norm of the model's.

    Args:
      model: built, of Keras 3.
      random: from which it is drawn.
      vectors: "zero": biases, scales and offsets do not move; "whole": each of
        them is scaled as one filter.

    Returns:
      Of each trainable variable, in order, float64.
    """
    vectors = check.one_of("vectors", vectors, VECTORS)
    variables = model.trainable_variables
    owners: dict[int, Any] = {}
    for layer in model._flatten_layers():  # outer layers come before inner ones
        owners.update({id(v): layer for v in layer.trainable_variables})
    small = exclusion.matches(
        exclusion.BIASES_AND_NORMS,
        [v.path for v in variables],
        [v.shape for v in variables],
    )
    found = []
    for variable, is_small in zip(variables, small):
        value = probe.to_numpy(variable).astype(np.float64)
        drawn = random.standard_normal(value.shape)
        if is_small and vectors == "zero":
            found.append(np.zeros_like(value))
            continue
        axes = None if is_small else filter_axes(owners[id(variable)], variable)
        found.append(drawn * (_norm(value, axes) / _norm(drawn, axes)))
    return found


def _norm(value: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    norm: np.ndarray = np.sqrt(np.sum(value * value, axes, keepdims=True))
    return norm


def offsets(span: float, points: int) -> np.ndarray:
    """Places on a line from `-span` to `span`, 0 among them.

    Args:
      span: > 0; at 1, each filter has moved by its own norm.
      points: their number, odd, >= 3.

    Raises:
      ValueError: one of them is not.
    """
    check.positive("span", span)
    if check.count("points", points, minimum=3) % 2 == 0:
        raise check.refuse(
            "points", points, "an odd number, so that 0 is among them"
        )
    half = points // 2
    return span * np.arange(-half, half + 1) / half


def measure(
    at: AtWeights,
    directions: Sequence[list[np.ndarray]],
    places: np.ndarray,
    *,
    kept: Callable[[str, Any], None] | None = None,
    before: dict[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Slice:
    """The loss on a line or a plane around the model's weights.

    Args:
      at: the loss of the model and examples.
      directions: one or two, each of all trainable variables.
      places: of both axes, 0 among them, `[P]`.
      kept: called with the name of a row and its cells so far.
      before: rows that were kept, by name, whole or not.
      progress: called with a line of text.

    Raises:
      ValueError: the loss at the weights is not finite.
    """
    rows = places if len(directions) == 2 else np.zeros(1)
    weights = at.weights()
    centre = at.measure(weights).losses
    if not np.isfinite(centre).all():
        raise ValueError(
            "model: expected a finite loss at its weights, got "
            f"{centre.mean()}; are the data finite, and are the weights?"
        )
    table = []
    for i, beta in enumerate(rows):
        name = f"row/{i}"
        cells = list((before or {}).get(name, []))
        written, count = time.monotonic(), len(cells)
        for alpha in places[count:]:
            moved = _moved(weights, directions, (alpha, beta))
            cells.append(_cell(at, moved, centre))
            progress(f"row {i + 1}/{len(rows)}: {len(cells)}/{len(places)}")
            if kept and time.monotonic() - written > _SECONDS_BETWEEN_WRITES:
                kept(name, cells)
                written = time.monotonic()
        if kept and len(cells) > count:
            kept(name, cells)
        table.append(cells)
    array = np.asarray(table, np.float64)  # None becomes NaN
    losses, errors, rise_errors, scores = np.moveaxis(array, -1, 0)
    has_scores = not np.isnan(scores).all()
    return Slice(
        places,
        rows,
        losses,
        errors,
        rise_errors,
        scores if has_scores else None,
    )


def _moved(
    weights: Sequence[np.ndarray],
    directions: Sequence[list[np.ndarray]],
    steps: Sequence[float],
) -> list[np.ndarray]:
    moved = []
    for value, *along in zip(weights, *directions):
        change = sum(step * d for step, d in zip(steps, along))
        moved.append((value + change).astype(value.dtype))
    return moved


def _cell(
    at: AtWeights, weights: list[np.ndarray], centre: np.ndarray
) -> list[float | None]:
    found = at.measure(weights)
    with np.errstate(invalid="ignore", over="ignore"):
        loss, error = mean_and_error(found.losses)
        _, rise_error = mean_and_error(found.losses - centre)
    score = None if found.scores is None else float(found.scores.mean())
    return [loss, error, rise_error, score]


def plot(path: Any, found: Slice) -> None:
    """Draws the line through the centre, and the contours of a plane.

    Args:
      path: of a PNG file.
      found: a slice. A loss that is not finite is left white.
    """
    plane = len(found.offsets_2) > 1
    figure = figures.new("landscape.plot", 11 if plane else 6.5, 4.2)
    axes = figure.add_subplot(1, 1 + plane, 1)
    middle = len(found.offsets_2) // 2
    loss, error = found.losses[middle], found.errors[middle]
    line = axes.plot(found.offsets, loss, marker=".")[0]
    axes.fill_between(
        found.offsets,
        loss - error,
        loss + error,
        alpha=0.3,
        color=line.get_color(),
    )
    axes.set_xlabel("alpha, along the first direction")
    axes.set_ylabel("loss (band: ± standard error over batches)")
    axes.set_title("Slice through the weights (0)")
    if plane:
        _contours(figure, figure.add_subplot(1, 2, 2), found)
    figures.save(figure, path)


def _contours(figure: Any, axes: Any, found: Slice) -> None:
    from matplotlib.colors import BoundaryNorm

    losses = np.ma.masked_invalid(found.losses)
    low, high = float(losses.min()), float(losses.max())
    # Each level is as much farther above the least loss as the one before.
    rise = np.geomspace(1e-3, 1, 16) * (high - low if high > low else 1.0)
    levels = [low, *(low + rise)]
    drawn = axes.contourf(
        found.offsets,
        found.offsets_2,
        losses,
        levels=levels,
        norm=BoundaryNorm(levels, 256),  # each level a colour of its own
    )
    figure.colorbar(drawn, ax=axes, format="%.3g", label="loss")
    axes.plot(0, 0, "r+")
    axes.set_xlabel("alpha, along the first direction")
    axes.set_ylabel("beta, along the second")
    axes.set_title("Contours; levels are denser near the least loss")
