"""How good a network is on new classes, with the interval of its mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.vision.few_shot import losses
from official_models.vision.few_shot.images import Classes, Episodes

_Z = 1.959963984540054  # 97.5% of a standard normal distribution


class Accuracy(NamedTuple):
    """Accuracy over test episodes.

    Attributes:
        mean: Of the episodes.
        interval: Half the width of the 95% interval of the mean, 1.96 s /
            sqrt(n).
        each: Of each episode, float32 [n].
    """

    mean: float
    interval: float
    each: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Mean, interval and count."""
        return {
            "accuracy": self.mean,
            "interval_95": self.interval,
            "episodes": len(self.each),
        }


def accuracy_of(each: np.ndarray) -> Accuracy:
    """Mean and interval of the episodes' accuracies, [n], n >= 2."""
    deviation = float(np.std(each, ddof=1))
    return Accuracy(
        float(np.mean(each)), _Z * deviation / math.sqrt(len(each)), each
    )


def evaluate(
    model: keras.Model,
    classes: Classes,
    shape: tuple[int, int],
    episodes: int,
    seed: int,
    batch: int = 10,
) -> Accuracy:
    """Accuracy over episodes that depend on the seed alone.

    Args:
        model: Of `model.make`.
        classes: To draw from.
        shape: W and S + Q.
        episodes: How many.
        seed: Of the draws; the same for all that is compared.
        batch: Episodes at once, a divisor of `episodes`.

    Raises:
        InputError: The outputs are not finite.
    """
    batch = math.gcd(batch, episodes)
    seeds = [(seed, number) for number in range(episodes // batch)]
    data = Episodes(classes, *shape, batch, seeds)
    scores = np.asarray(model.predict(data, verbose=0))
    if not np.isfinite(scores).all():
        raise InputError(
            "the outputs are not finite: the training has diverged; lower "
            "--learning_rate"
        )
    logits = scores[..., : scores.shape[-1] // 2]
    each = keras.ops.convert_to_numpy(losses.accuracy(logits))
    return accuracy_of(np.asarray(each))


def plot_embedding(
    model: keras.Model, classes: Classes, path: Path, title: str, count: int = 8
) -> None:
    """Draws the features of some classes on their two principal axes.

    Args:
        model: With a layer "embedding".
        classes: The first and others at equal steps are drawn.
        path: PNG.
        title: Above it.
        count: Classes.
    """
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(classes.names) - 1, count).astype(int)
    images = classes.images[chosen]
    _, each, *size = images.shape
    flat = images.reshape(-1, *size, 1).astype("float32") / 255
    embed = model.get_layer("embedding")
    x = keras.ops.convert_to_numpy(embed(flat, training=False))
    x = np.asarray(x, "float64")
    x = x - x.mean(axis=0)
    x = np.pad(x, ((0, 0), (0, 1)))  # two axes even of a single feature
    _, s, axes = np.linalg.svd(x, full_matrices=False)
    points = (x @ axes[:2].T).reshape(count, each, 2)
    share = (s[:2] ** 2).sum() / (s**2).sum()
    figure = Figure(figsize=(8, 6), layout="constrained")
    plot = figure.subplots()
    for place, group in zip(chosen, points, strict=True):
        name = classes.names[place].split("/")[-1].capitalize()
        plot.scatter(*group.T, s=14, label=name)
    plot.legend(
        frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    plot.set(
        title=title,
        xlabel=f"principal axis 1 (both: {share:.0%} of the variance)",
        ylabel="principal axis 2",
    )
    files.save_figure(path, figure)
