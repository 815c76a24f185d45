"""A perceptron of 14 x 14 pixels, 64, 32 and 10 units: 15,018 weights."""

from __future__ import annotations

import keras

CLASSES = 10
HIDDEN = (64, 32)


def build(seed: int, side: int = 14) -> keras.Model:
    """The network with initial weights of a seed.

    Args:
        seed: Of the weights.
        side: Rows and columns of an image, [side, side].
    """
    layers = [keras.Input((side, side)), keras.layers.Flatten()]
    for i, units in enumerate((*HIDDEN, CLASSES)):
        last = i == len(HIDDEN)
        layers.append(
            keras.layers.Dense(
                units,
                activation=None if last else "relu",
                name="output" if last else f"hidden_{i}",
                kernel_initializer=keras.initializers.HeNormal(seed=seed + i),
            )
        )
    return keras.Sequential(layers)
