"""Networks for few-shot episodes: prototypical, and a graph of the images.

Axes: E episodes, W ways, S shots, Q queries of a class, H height, B width of an
image, D features, N = W S + 1 nodes of a query's graph. An episode's images
stand in `[W, S + Q]`: of each class the support images first.

References:
    Snell et al. 2017, "Prototypical Networks for Few-shot Learning"
    (arXiv:1703.05175)
    Garcia, Bruna 2018, "Few-Shot Learning with Graph Neural Networks"
    (arXiv:1711.04043)
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
from keras import initializers, layers, ops

from official_models.common.layer import (
    Config,
    functional,
    registration,
    seed_of,
)
from official_models.vision.few_shot import losses
from tf_lamb import check

MODELS = ("prototypical", "graph")
_LEAK = 0.1

register = registration("tf_lamb_models.few_shot")


@register
@dataclasses.dataclass(frozen=True)
class FewShotConfig(Config):
    """The sizes of a network and of the episodes it is given.

    Args:
        ways: W, at least 2.
        shots: S, at least 1.
        queries: Q of each class, at least 1.
        image_size: H = B, at least 16: four poolings leave a pixel.
        filters: Of each convolution.
        temperature: T of the prototypical network's logits, -d / T.
        blocks: Of the graph network.
        node_features: What a block adds to each node.

    Raises:
        ValueError: A value is out of range.
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15
    image_size: int = 28
    filters: int = 64
    temperature: float = 1.0
    blocks: int = 2
    node_features: int = 48

    checks: ClassVar = {
        "ways": lambda name, value: check.count(name, value, 2),
        "shots": lambda name, value: check.count(name, value, 1),
        "queries": lambda name, value: check.count(name, value, 1),
        "image_size": lambda name, value: check.count(name, value, 16),
        "filters": lambda name, value: check.count(name, value, 1),
        "temperature": check.positive,
        "blocks": lambda name, value: check.count(name, value, 1),
        "node_features": lambda name, value: check.count(name, value, 1),
    }


def embedding(config: FewShotConfig, seed: int, dtype: Any) -> keras.Model:
    """Four blocks of convolution, batch norm, ReLU and pooling.

    Args:
        config: With `image_size` and `filters`.
        seed: Of the initial weights.
        dtype: Policy.

    Returns:
        A model named "embedding" from [n, H, B, 1], 1 = ink, to [n, D].
    """
    size = config.image_size
    x = images = keras.Input((size, size, 1), name="images")
    for i in range(1, 5):
        x = layers.Conv2D(
            config.filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer=_he(seed, f"convolution_{i}"),
            dtype=dtype,
            name=f"convolution_{i}",
        )(x)
        x = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"norm_{i}"
        )(x)
        x = layers.ReLU(dtype=dtype, name=f"relu_{i}")(x)
        x = layers.MaxPooling2D(dtype=dtype, name=f"pooling_{i}")(x)
    x = layers.Flatten(dtype=dtype, name="features")(x)
    return functional(images, x, name="embedding", dtype_policy=dtype)


def _he(seed: int, name: str) -> initializers.Initializer:
    return initializers.HeNormal(seed=seed_of(f"{seed}/{name}"))


def make(
    kind: str, config: FewShotConfig, *, seed: int = 0, dtype: Any = None
) -> keras.Model:
    """A network from episodes to the logits of their queries.

    Args:
        kind: One of `MODELS`.
        config: Sizes.
        seed: Of the initial weights.
        dtype: Policy, or its name; None for the global one.

    Returns:
        A model from images [E, W, S + Q, H, B, 1], float in [0, 1], 1 = ink, to
        float32 [E, W * Q, 2 W]: the logits of the queries, and their squared
        distances, as `losses.EpisodeLoss` takes them. It has a layer
        "embedding".

    Raises:
        ValueError: `kind` is none of `MODELS`.
    """
    check.one_of("kind", kind, MODELS)
    images, features, embed = _embedded(config, seed, dtype)
    if kind == "prototypical":
        # Near distances differ in digits that bfloat16 does not have.
        features = ops.cast(features, "float32")
        distances = losses.query_distances(features, config.shots)
        logits = -distances / config.temperature
    else:
        logits, distances = _graph(config, features, seed, dtype)
    scores = ops.concatenate([logits, distances], axis=-1)
    return functional(
        images, scores, name=kind, dtype_policy=embed.dtype_policy
    )


def _embedded(config: FewShotConfig, seed: int, dtype: Any):
    """Input, features [E, W, S + Q, D] and the network between them."""
    size, number = config.image_size, config.shots + config.queries
    images = keras.Input((config.ways, number, size, size, 1), name="episodes")
    embed = embedding(config, seed, dtype)
    features = embed(ops.reshape(images, (-1, size, size, 1)))
    shape = (-1, config.ways, number, features.shape[-1])
    return images, ops.reshape(features, shape), embed


def _graph(config: FewShotConfig, features, seed: int, dtype: Any):
    """Logits and distances [E, W * Q, W] of the queries.

    Each query has a graph of its own: itself and the support images, each with
    its class as a one-hot vector, the query with 1 / W.
    """
    ways, shots, queries = config.ways, config.shots, config.queries
    size = features.shape[-1]
    support = ops.reshape(features[:, :, :shots], (-1, ways * shots, size))
    asked = ops.reshape(features[:, :, shots:], (-1, ways * queries, 1, size))
    classes = ops.repeat(ops.eye(ways, dtype=features.dtype), shots, axis=0)
    nodes = _beside(support, classes)
    nodes = ops.expand_dims(nodes, 1)
    nodes = ops.repeat(nodes, ways * queries, axis=1)
    unknown = ops.full((1, ways), 1 / ways, dtype=features.dtype)
    x = ops.concatenate([nodes, _beside(asked, unknown)], axis=-2)
    for i in range(config.blocks):
        block = GraphBlock(
            config.node_features, seed, dtype=dtype, name=f"block_{i}"
        )
        x = ops.concatenate([x, block(x)], axis=-1)
    last = GraphBlock(ways, seed, plain=True, dtype=dtype, name="classifier")
    logits = ops.cast(last(x)[:, :, -1], "float32")
    x = ops.cast(x, "float32")
    known = ops.reshape(
        x[:, :, :-1], (-1, ways * queries, ways, shots, x.shape[-1])
    )
    means = ops.mean(known, axis=3)
    difference = means - ops.expand_dims(x[:, :, -1], 2)
    return logits, ops.sum(ops.square(difference), axis=-1)


def _beside(x, columns):
    """x [..., n, D] with columns [n, W], the same for all, behind it."""
    blank = ops.zeros_like(x[..., :1])
    return ops.concatenate([x, blank + columns], axis=-1)


@register
class GraphBlock(layers.Layer):
    r"""A graph convolution with an adjacency that is learned.

    $$A_{ij} = \text{softmax}_{j \ne i}\,\text{MLP}(|x_i - x_j|),\qquad
      y = \rho(\text{BN}([x, A x] W + b))$$

    with a leaky ReLU `rho`. Nodes [E, q, N, D] become [E, q, N, units].

    Args:
        units: Of the result.
        seed: Of the initial weights.
        plain: Without batch norm and `rho`, as the last one; the result is
            float32 in mixed precision.
        **kwargs: Of Keras.
    """

    def __init__(
        self, units: int, seed: int = 0, plain: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        self.units, self.seed, self.plain = units, seed, plain

    def build(self, input_shape):
        hidden = max(self.units, 32)
        width = input_shape[-1]
        self.pair = self._dense("pair", hidden, self.dtype_policy)
        self.weight = self._dense("weight", 1, self.dtype_policy)
        dtype = self.variable_dtype if self.plain else self.dtype_policy
        self.dense = self._dense("dense", self.units, dtype)
        self.pair.build((*input_shape[:-1], width))
        self.weight.build((*input_shape[:-1], hidden))
        self.dense.build((*input_shape[:-1], 2 * width))
        pairs = *input_shape[:-1], input_shape[-2], hidden
        self.pair_norm = self._norm("pair_norm", pairs)
        if not self.plain:
            self.norm = self._norm("norm", (*input_shape[:-1], self.units))

    def _norm(self, name: str, shape) -> layers.Layer:
        norm = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name=name
        )
        norm.build(shape)
        return norm

    def _dense(self, name: str, units: int, dtype: Any) -> layers.Layer:
        return layers.Dense(
            units,
            kernel_initializer=_he(self.seed, f"{self.name}/{name}"),
            dtype=dtype,
            name=name,
        )

    def adjacency(self, x, training=None):
        """A, [E, q, N, N], rows of sum 1, 0 on the diagonal."""
        difference = ops.abs(ops.expand_dims(x, -2) - ops.expand_dims(x, -3))
        hidden = self.pair_norm(self.pair(difference), training=training)
        hidden = ops.leaky_relu(hidden, _LEAK)
        scores = ops.squeeze(self.weight(hidden), -1)
        itself = ops.eye(x.shape[-2], dtype=scores.dtype)
        return ops.softmax(scores - 1e4 * itself, axis=-1)

    def call(self, x, training=None):
        around = ops.matmul(self.adjacency(x, training=training), x)
        y = self.dense(ops.concatenate([x, around], axis=-1))
        if self.plain:
            return y
        return ops.leaky_relu(self.norm(y, training=training), _LEAK)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "units": self.units,
            "seed": self.seed,
            "plain": self.plain,
        }
