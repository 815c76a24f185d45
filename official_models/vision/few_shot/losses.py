r"""Losses of few-shot episodes: cross-entropy over distances, and a margin.

Axes: E episodes, W ways (classes of an episode), S shots (support images of a
class), Q query images of a class, D features. An episode's images stand in
`[W, S + Q]`: of each class the support images first.

References:
    Snell et al. 2017, "Prototypical Networks for Few-shot Learning"
    (arXiv:1703.05175)
    Wang et al. 2018, "Large Margin Few-Shot Learning" (arXiv:1807.02872)
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from official_models.common.layer import registration
from tf_lamb import check

Array = Any
MARGIN_UNITS = ("absolute", "distance")
_SMALLEST_NORMAL = 2.0**-126

register = registration("tf_lamb_models.few_shot")


def squared_distances(x: Array, y: Array) -> Array:
    """`|x_i - y_j|^2`, [..., I, J], of x [..., I, D] and y [..., J, D]."""
    # Of differences: |x|^2 - 2 x y + |y|^2 loses the digits of near points.
    difference = ops.expand_dims(x, -2) - ops.expand_dims(y, -3)
    return ops.sum(ops.square(difference), axis=-1)


def query_distances(features: Array, shots: int) -> Array:
    """Squared distances of the queries to the prototypes.

    A prototype is the mean of the features of a class' support images.

    Args:
        features: [E, W, S + Q, D].
        shots: S.

    Returns:
        [E, W * Q, W], the queries of the first class first.
    """
    support, queries = features[:, :, :shots], features[:, :, shots:]
    _, ways, number, size = queries.shape
    queries = ops.reshape(queries, (-1, ways * number, size))
    return squared_distances(queries, ops.mean(support, axis=2))


def query_labels(ways: int, queries: int) -> Array:
    """The classes of an episode's queries, int32 [W * Q]."""
    return ops.repeat(ops.arange(ways, dtype="int32"), queries)


def cross_entropy(logits: Array) -> Array:
    r"""Mean of $-\log softmax(z)_y$ over an episode's queries, [E].

    Args:
        logits: z, [E, W * Q, W], in the order of `query_distances`.
    """
    number, ways = logits.shape[-2:]
    labels = query_labels(ways, number // ways)
    picked = ops.one_hot(labels, ways, dtype=logits.dtype)
    log_p = ops.log_softmax(logits, axis=-1)
    return -ops.mean(ops.sum(log_p * picked, axis=-1), axis=-1)


def large_margin(
    distances: Array, margin: float, unit: str = "absolute"
) -> Array:
    r"""The large-margin term of an episode, [E].

    $$L_{LM} = \frac{1}{W Q (W - 1)} \sum_q \sum_{k \ne y_q}
      \big[m + d_{q, y_q} - d_{q, k}\big]_+$$

    Args:
        distances: d, [E, W * Q, W], squared, in the order of
            `query_distances`.
        margin: m >= 0. Squared distances are not normalised: a margin that is
            small against them does nothing, a large one is always active.
        unit: "absolute", or "distance": all distances are divided by the mean
            of the episode's distances to other classes, so that the term does
            not change with the scale of the features, and m = 1 is that mean.
    """
    number, ways = distances.shape[-2:]
    labels = query_labels(ways, number // ways)
    own = ops.one_hot(labels, ways, dtype=distances.dtype)
    others = 1 - own
    count = number * (ways - 1)
    if unit == "distance":
        mean = ops.sum(distances * others, axis=(-2, -1), keepdims=True) / count
        distances = distances / ops.maximum(mean, _SMALLEST_NORMAL)
    to_own = ops.sum(distances * own, axis=-1, keepdims=True)
    hinges = ops.relu(margin + to_own - distances) * others
    return ops.sum(hinges, axis=(-2, -1)) / count


def accuracy(scores: Array) -> Array:
    """Share of an episode's queries whose own class has the highest score.

    Args:
        scores: [E, W * Q, W], in the order of `query_distances`; of distances
            their negatives.

    Returns:
        float32 [E].
    """
    number, ways = scores.shape[-2:]
    found = ops.cast(ops.argmax(scores, axis=-1), "int32")
    right = ops.equal(found, query_labels(ways, number // ways))
    return ops.mean(ops.cast(right, "float32"), axis=-1)


@register
class EpisodeLoss(keras.losses.Loss):
    r"""$L_{CE} + \lambda L_{LM}$ of episodes, from what the models put out.

    The output has the logits of the queries and, behind them along the last
    axis, their squared distances, [E, W * Q, 2 W]. For a prototypical network
    the logits are $-d / T$. The first argument, Keras' labels, is not read: the
    order of an episode's images is what labels them.

    Args:
        weight: lambda >= 0; 0 is the plain network, to the bit.
        margin: m >= 0.
        margin_unit: One of `MARGIN_UNITS`.
        name: Of Keras.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        weight: float = 0.0,
        margin: float = 1.0,
        margin_unit: str = "absolute",
        name: str = "episode_loss",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.weight = check.non_negative("weight", weight)
        self.margin = check.non_negative("margin", margin)
        self.margin_unit = check.one_of(
            "margin_unit", margin_unit, MARGIN_UNITS
        )

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """The loss of each episode, [E]."""
        logits, distances = ops.split(y_pred, 2, axis=-1)
        loss = cross_entropy(logits)
        if not self.weight:
            return loss
        term = large_margin(distances, self.margin, self.margin_unit)
        return loss + self.weight * term

    def get_config(self) -> dict[str, Any]:
        """The arguments of a loss equal to this one."""
        return {
            **super().get_config(),
            "weight": self.weight,
            "margin": self.margin,
            "margin_unit": self.margin_unit,
        }


@register
class EpisodeAccuracy(keras.metrics.Mean):
    """Mean of `accuracy` over the episodes of an epoch."""

    def __init__(self, name: str = "accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds episodes, from what the models put out."""
        logits, _ = ops.split(y_pred, 2, axis=-1)
        super().update_state(accuracy(logits), sample_weight)
