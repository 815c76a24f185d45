"""Networks of Keras' own layers: values Q(s, a); a policy and a value.

Their input is uint8 [B, H, W, h * C]: h frames of C channels, the oldest first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import layers


class Shape(NamedTuple):
    """What a network is made for.

    Attributes:
        frame: (height, width, channels) of a frame.
        history: h, frames of an observation.
        actions: A, of the game.
    """

    frame: tuple[int, int, int]
    history: int
    actions: int

    @property
    def observation(self) -> tuple[int, int, int]:
        """(height, width, h * channels)."""
        height, width, channels = self.frame
        return height, width, channels * self.history


_CONVOLUTIONS = {
    "minatar": ((16, 3, 1),),
    "atari": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
}
_UNITS = {"minatar": 128, "atari": 512}
NETWORKS = ("cnn", "drqn")
ACTOR_CRITIC = "a3c"


def make(kind: str, game: str, shape: Shape, seed: int) -> keras.Model:
    """A network of random weights.

    `cnn`: for Atari three convolutions of 32, 64 and 64 filters and 512 units;
    for MinAtar one of 16 filters and 128 units. `drqn`: the same convolutions
    of each frame, and an LSTM of as many units over the h frames, which begins
    with a state of zeros; the values are of its last output.

    Args:
        kind: One of `NETWORKS`.
        game: Such as minatar/breakout, whose frames have channels of 0 and 1,
            or atari/seaquest, pixels to 255; names the network.
        shape: Of its input and output.
        seed: Of the weights.

    Returns:
        uint8 [B, H, W, h * C] -> float32 [B, A].
    """
    keras.utils.set_random_seed(seed)
    suite = game.partition("/")[0]
    inputs = keras.Input(shape.observation, dtype="uint8", name="frames")
    x = layers.Rescaling(scale(suite), name="scale")(inputs)
    each: Callable = (lambda layer: layer) if kind == "cnn" else _of_each_frame
    if kind == "drqn":
        height, width, channels = shape.frame
        x = layers.Reshape((height, width, shape.history, channels))(x)
        x = layers.Permute((3, 1, 2, 4))(x)
    for i, (filters, size, stride) in enumerate(_CONVOLUTIONS[suite]):
        name = f"conv_{i}"
        x = each(
            layers.Conv2D(filters, size, stride, activation="relu", name=name)
        )(x)
    x = each(layers.Flatten())(x)
    units = _UNITS[suite]
    if kind == "drqn":
        x = layers.LSTM(units, unroll=True, name="lstm")(x)
    else:
        x = layers.Dense(units, activation="relu", name="hidden")(x)
    values = layers.Dense(shape.actions, name="values")(x)
    return keras.Model(inputs, values, name=_name(game, kind))


def make_actor_critic(game: str, shape: Shape, seed: int) -> keras.Model:
    """A network of a policy and a value, which share all but the last layer.

    The layers of `cnn`, the last of which gives one logit an action, and one
    more that gives V(s). The policy begins near to that of random actions.

    Args:
        game: As for `make`.
        shape: Of its input and output.
        seed: Of the weights.

    Returns:
        uint8 [B, H, W, h * C] -> logits [B, A] and values [B, 1], float32.
    """
    keras.utils.set_random_seed(seed)
    suite = game.partition("/")[0]
    inputs = keras.Input(shape.observation, dtype="uint8", name="frames")
    x = layers.Rescaling(scale(suite), name="scale")(inputs)
    for i, (filters, size, stride) in enumerate(_CONVOLUTIONS[suite]):
        name = f"conv_{i}"
        x = layers.Conv2D(filters, size, stride, activation="relu", name=name)(
            x
        )
    x = layers.Flatten()(x)
    x = layers.Dense(_UNITS[suite], activation="relu", name="hidden")(x)
    small = keras.initializers.RandomNormal(stddev=0.01, seed=seed)
    logits = layers.Dense(
        shape.actions, kernel_initializer=small, name="policy"
    )(x)
    values = layers.Dense(1, name="value")(x)
    return keras.Model(inputs, [logits, values], name=_name(game, ACTOR_CRITIC))


def scale(suite: str) -> float:
    """The factor of frames: Atari's are pixels to 255, MinAtar's 0 and 1."""
    return 1 / 255 if suite == "atari" else 1.0


def strides(suite: str) -> list[int]:
    """The strides of a suite's convolutions."""
    return [stride for _, _, stride in _CONVOLUTIONS[suite]]


def _name(game: str, kind: str) -> str:
    return f"{game.replace('/', '.')}.{kind}"


def _of_each_frame(layer: layers.Layer) -> layers.Layer:
    return layers.TimeDistributed(layer, name=f"each_{layer.name}")
