r"""Population normalization and weight normalization.

`PopulationNormalization` takes its mean and deviation from a population that
passes through the network beside the batch, and differentiates through them.
Moving averages that are held fixed would lose what makes a normalized weight
what it is: that its gradient is orthogonal to it, <w, g> = 0.

Axes: B rows of a batch, K rows of the population, C channels.

References:
    Luo et al. 2019, "Towards Understanding Regularization in Batch
    Normalization" (arXiv:1809.00846)
    Salimans, Kingma 2016, "Weight Normalization" (arXiv:1602.07868)
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from official_models.common.layer import registration
from tf_lamb import check

Array = Any
register = registration("tf_lamb_models.batch_norm")


@register
class PopulationNormalization(layers.Layer):
    r"""Normalization by a population's mean and deviation, per channel.

    $$y = \gamma (x - \mu_P) / \sqrt{\sigma_P^2 + \epsilon} + \beta$$

    In training the last `population` rows of the input are the population, in
    the order of the layers' inputs: stack them below the batch once, at the
    model's input, and give them no weight in the loss. Statistics of these
    rows normalize all rows, and gradients flow through them. With 0 all rows
    are the population, which is batch normalization; with the whole training
    set as the only batch, both are the same.

    Outside training the statistics of the last pass in training are used, with
    no moving average: give the model the whole population once, by
    `measure_population`, before an evaluation.

    Args:
        population: K, at least 0.
        epsilon: Added to the variance.
        gamma_regularizer: As of `keras.layers.BatchNormalization`.
        **kwargs: Passed to `keras.layers.Layer`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        population: int = 0,
        epsilon: float = 1e-5,
        gamma_regularizer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.population = check.count("population", population, 0)
        self.epsilon = check.positive("epsilon", epsilon)
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)

    def build(self, input_shape):
        """Makes gamma, beta and the stored statistics, [C] each."""
        # No autocast: statistics are float32, whatever the layer computes in.
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(
            autocast=False,
            shape=shape,
            initializer="ones",
            regularizer=self.gamma_regularizer,
            name="gamma",
        )
        self.beta = self.add_weight(
            autocast=False, shape=shape, initializer="zeros", name="beta"
        )
        self.mean = self.add_weight(
            autocast=False,
            shape=shape,
            initializer="zeros",
            trainable=False,
            name="mean",
        )
        self.variance = self.add_weight(
            autocast=False,
            shape=shape,
            initializer="ones",
            trainable=False,
            name="variance",
        )

    def call(self, x: Array, training: bool | None = None) -> Array:
        """[B + K, ..., C], or [B, ..., C] outside training; of x's shape."""
        if training:
            rows = x[-self.population :] if self.population else x
            axes = tuple(range(len(x.shape) - 1))
            rows = ops.cast(rows, "float32")
            mean = ops.mean(rows, axes)
            # Of differences: E[x^2] - E[x]^2 loses digits.
            variance = ops.mean(ops.square(rows - mean), axes)
            self.mean.assign(mean)
            self.variance.assign(variance)
        else:
            mean, variance = self.mean, self.variance
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)
        normalized = (ops.cast(x, "float32") - mean) * scale + self.beta
        return ops.cast(normalized, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of a layer equal to this one."""
        return {
            **super().get_config(),
            "population": self.population,
            "epsilon": self.epsilon,
            "gamma_regularizer": keras.regularizers.serialize(
                self.gamma_regularizer
            ),
        }


def normalizations(model: keras.Model) -> list[layers.Layer]:
    """The layers that normalize and have a gamma, those of models inside too.

    Args:
        model: Built.

    Raises:
        ValueError: There is none.
    """
    kinds = (
        layers.BatchNormalization,
        PopulationNormalization,
        WeightNormalizedConv2D,
    )
    found = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, kinds)
        and getattr(layer, "gamma", None) is not None
    ]
    if not found:
        raise ValueError(
            f"model {model.name!r}: expected a keras.layers."
            "BatchNormalization, or a layer of this module, that has a gamma; "
            "found none; build the model first"
        )
    return found


def measure_population(model: keras.Model, images: Array) -> None:
    """Stores the statistics of a population, by one pass in training mode.

    Args:
        model: Whose `PopulationNormalization`s have it in mind; any `training`
            noise, such as dropout, is in the statistics.
        images: The population, at least K rows.
    """
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, PopulationNormalization)
    ]
    before = [layer.population for layer in norms]
    for layer in norms:
        layer.population = 0
    try:
        model(images, training=True)
    finally:
        for layer, population in zip(norms, before, strict=True):
            layer.population = population


@register
class WeightNormalizedConv2D(layers.Layer):
    r"""A convolution with the kernel $\gamma\, w / |w|$, one gamma a filter.

    Args:
        filters: C.
        kernel_size: Of a square.
        strides: Of both axes.
        seed: Of the initial weights, He normal.
        gamma_regularizer: As of `keras.layers.BatchNormalization`.
        **kwargs: Passed to `keras.layers.Layer`.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        seed: int | None = None,
        gamma_regularizer: Any = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = check.count("filters", filters, 1)
        self.kernel_size = check.count("kernel_size", kernel_size, 1)
        self.strides = check.count("strides", strides, 1)
        self.seed = seed
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)

    def build(self, input_shape):
        """Makes kernel [k, k, C_in, C], gamma [C] and beta [C]."""
        side = self.kernel_size
        self.kernel = self.add_weight(
            autocast=False,
            shape=(side, side, input_shape[-1], self.filters),
            initializer=keras.initializers.HeNormal(self.seed),
            name="kernel",
        )
        self.gamma = self.add_weight(
            autocast=False,
            shape=(self.filters,),
            initializer="ones",
            regularizer=self.gamma_regularizer,
            name="gamma",
        )
        self.beta = self.add_weight(
            autocast=False,
            shape=(self.filters,),
            initializer="zeros",
            name="beta",
        )

    def call(self, x: Array) -> Array:
        """[B, H, W, C_in] -> [B, H', W', C], padded as "same"."""
        norm = ops.sqrt(ops.sum(ops.square(self.kernel), (0, 1, 2)))
        kernel = self.kernel * (self.gamma / norm)
        return ops.conv(
            x,
            ops.cast(kernel, self.compute_dtype),
            strides=self.strides,
            padding="same",
        ) + ops.cast(self.beta, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """[B, H', W', C] of an input's shape."""
        sides = [
            None if s is None else -(-s // self.strides)
            for s in input_shape[1:3]
        ]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments of a layer equal to this one."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "seed": self.seed,
            "gamma_regularizer": keras.regularizers.serialize(
                self.gamma_regularizer
            ),
        }
