"""A small convolutional network with one of four ways to normalize.

Axes: B images, H height, W width, C channels.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
from keras import initializers, layers

from official_models.common.layer import (
    Config,
    functional,
    seed_of,
)
from official_models.vision.batch_norm.layers import (
    PopulationNormalization,
    WeightNormalizedConv2D,
    register,
)
from tf_lamb import check

NORMS = ("batch", "population", "weight")


@register
@dataclasses.dataclass(frozen=True)
class SmallConfig(Config):
    """The sizes of the network.

    Args:
        norm: One of `NORMS`.
        image_size: H = W, at least 4.
        channels: C of the images.
        classes: How many.
        filters: Of the first convolution; the second has twice as many.
        population: K, rows of the population below a batch, for "population".

    Raises:
        ValueError: A value is out of range.
    """

    norm: str = "batch"
    image_size: int = 28
    channels: int = 1
    classes: int = 10
    filters: int = 8
    population: int = 0

    checks: ClassVar = {
        "norm": lambda name, value: check.one_of(name, value, NORMS),
        "image_size": lambda name, value: check.count(name, value, 4),
        "channels": lambda name, value: check.count(name, value, 1),
        "classes": lambda name, value: check.count(name, value, 2),
        "filters": lambda name, value: check.count(name, value, 1),
        "population": lambda name, value: check.count(name, value, 0),
    }


def make(
    config: SmallConfig,
    *,
    seed: int = 0,
    gamma_regularizer: Any = None,
    dtype: Any = None,
) -> keras.Model:
    """Two convolutions of stride 2, a normalization after each, and a layer.

    Args:
        config: Sizes.
        seed: Of the initial weights, which are alike for all norms.
        gamma_regularizer: Of all gammas.
        dtype: Policy, or its name; None for the global one.

    Returns:
        A model from float [B, H, W, C] to logits, float32 [B, classes].
    """
    size = config.image_size
    x = images = keras.Input((size, size, config.channels), name="images")
    for i, filters in enumerate((config.filters, 2 * config.filters), 1):
        of_kernel = seed_of(f"{seed}/convolution_{i}")
        if config.norm == "weight":
            x = WeightNormalizedConv2D(
                filters,
                strides=2,
                seed=of_kernel,
                gamma_regularizer=gamma_regularizer,
                dtype=dtype,
                name=f"convolution_{i}",
            )(x)
        else:
            x = layers.Conv2D(
                filters,
                3,
                2,
                padding="same",
                use_bias=False,
                kernel_initializer=initializers.HeNormal(of_kernel),
                dtype=dtype,
                name=f"convolution_{i}",
            )(x)
            x = PopulationNormalization(
                config.population if config.norm == "population" else 0,
                gamma_regularizer=gamma_regularizer,
                dtype=dtype,
                name=f"norm_{i}",
            )(x)
        x = layers.ReLU(dtype=dtype, name=f"relu_{i}")(x)
    x = layers.Flatten(dtype=dtype, name="features")(x)
    logits = layers.Dense(
        config.classes,
        kernel_initializer=initializers.GlorotUniform(seed_of(f"{seed}/dense")),
        dtype="float32",
        name="logits",
    )(x)
    return functional(images, logits, name="small", dtype_policy=dtype)
