"""Layers that know their model's configuration, and names to save them under.

A model's classes carry a package name of their own, such as
`tf_lamb_models.bert`, because Keras finds a saved layer's class by package and
name alone, and a second class of the same package and name would take the
place of the first without a word.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
from keras import layers

from official_models.common import ops


def registration(package: str) -> Callable[[Any], Any]:
    """A decorator: Keras saves and loads the class as `package>ClassName`.

    Args:
        package: `tf_lamb_models.` and the model's name.

    Returns:
        The decorator, of a class or a function, which it gives back.

    Raises:
        ValueError: When it is applied: another class or function has the
            same package and name.
    """

    def decorate(item):
        name = f"{package}>{item.__name__}"
        other = keras.saving.get_registered_object(name)
        # A module that is loaded again defines the same class once more.
        if other is not None and _place(other) != _place(item):
            raise ValueError(
                f"{name}: Keras has {_place(other)} under this name, so that "
                f"{_place(item)} would take its place; give it another name, "
                "or another package"
            )
        return keras.saving.register_keras_serializable(package)(item)

    return decorate


def _place(item) -> str:
    return f"{item.__module__}.{item.__qualname__}"


def seed_of(key: str) -> int:
    """A seed of its own for each key: CRC-32, its lowest bit dropped.

    Whatever else was seeded before or will be makes no difference.

    Args:
        key: A model's seed and a name in the model, in one string.

    Returns:
        A whole number in [0, 2^31).
    """
    return zlib.crc32(key.encode()) >> 1


class Config:
    """What a model's configuration inherits: Keras can save it.

    A configuration is a frozen dataclass of numbers and strings, with the
    decorator of `registration`.

    Attributes:
        checks: {field: a function of its name and what was given, which
            returns the value as it is kept}, such as those of `tf_lamb.check`.

    Raises:
        ValueError: A value is not what its check expects.
    """

    checks: ClassVar[Mapping[str, Callable[[str, Any], Any]]] = {}

    def __post_init__(self):
        for name, check in self.checks.items():
            kept = check(name, getattr(self, name))
            object.__setattr__(self, name, kept)  # The class is frozen.

    def get_config(self) -> dict:
        """The arguments that make an equal one."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict):
        """The one of these arguments."""
        return cls(**config)


def functional(inputs, outputs, *, name: str, dtype_policy) -> keras.Model:
    """A `keras.Model` with the dtype policy of its layers.

    `compile` scales the loss of a model whose own policy is mixed_float16, and
    that of a functional model is the global one, whatever its layers have.

    Args:
        inputs: As of `keras.Model`, like the next two.
        outputs: Its outputs.
        name: Its name.
        dtype_policy: Policy, or its name; None for the global one.
    """
    model = keras.Model(inputs, outputs, name=name)
    if dtype_policy is not None and ops.KERAS_3:
        model.dtype_policy = dtype_policy
    return model


class ConfiguredLayer(layers.Layer):
    """A layer that has its model's configuration and a seed.

    Args:
        config: A `Config` that is registered.
        seed: Fixes the initial weights and the dropout masks.
        **kwargs: Passed to `keras.layers.Layer`.

    Attributes:
        config: As given.
        seed: As given.
    """

    def __init__(self, config: Config, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.seed = seed

    def child(self, cls: type, *args, **kwargs):
        """Makes a layer inside this one.

        Args:
            cls: A `ConfiguredLayer`.
            *args: Its own arguments.
            **kwargs: Its name, and what differs from this layer's `config`,
                `seed` and `dtype`.
        """
        shared = {
            "config": self.config,
            "seed": self.seed,
            "dtype": self.dtype_policy,
        }
        return cls(*args, **{**shared, **kwargs})

    def seed_for(self, name: str) -> int:
        """The seed of a weight or a dropout of this layer, inside `build`."""
        return seed_of(f"{self.seed}:{ops.layer_path(self)}/{name}")

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "config": keras.saving.serialize_keras_object(self.config),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict):
        own = keras.saving.deserialize_keras_object(config["config"])
        return super().from_config({**config, "config": own})
