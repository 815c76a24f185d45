"""Images by class, and episodes drawn from them.

Axes: C classes, K images of a class, H height, B width; E, W, S, Q as in
`losses.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from official_models.common import files
from official_models.common.backend import PyDataset
from official_models.common.errors import InputError


class Classes(NamedTuple):
    """Images of some classes.

    Attributes:
        images: uint8 [C, K, H, B], 255 = ink.
        names: Of the C classes.
    """

    images: np.ndarray
    names: tuple[str, ...]

    def check(self, ways: int, per_class: int, split: str) -> None:
        """Refuses what an episode cannot be drawn from.

        Args:
            ways: W.
            per_class: S + Q.
            split: Begins the message.

        Raises:
            InputError: There are fewer classes than ways, or fewer images of a
                class than an episode takes.
        """
        count, each = self.images.shape[:2]
        if count < ways:
            raise InputError(
                f"{split}: {count} classes, but --ways {ways}; expected at "
                "least as many classes as ways"
            )
        if each < per_class:
            raise InputError(
                f"{split}: {each} images a class, but --shots and --queries "
                f"take {per_class}; expected no more than there are"
            )

    def rotated(self) -> Classes:
        """Also turned by 90, 180 and 270 degrees, as classes of their own."""
        turns = [np.rot90(self.images, k, axes=(2, 3)) for k in range(4)]
        names = tuple(
            f"{name}/{90 * k}" for k in range(4) for name in self.names
        )
        return Classes(np.concatenate(turns), names)


class Splits(NamedTuple):
    """Classes to train on, to tune by, to report; no class is in two of them.

    Attributes:
        train: Classes.
        validation: Classes.
        test: Classes.
        description: Of the data, for people.
    """

    train: Classes
    validation: Classes
    test: Classes
    description: str

    def digest(self) -> str:
        """SHA-256 of the images and names of the three parts."""
        parts = self.train, self.validation, self.test
        return files.digest(
            *(part.images for part in parts),
            *(name for part in parts for name in (*part.names, "")),
        )


def draw(
    classes: Classes, ways: int, per_class: int, rng: np.random.Generator
) -> np.ndarray:
    """The images of an episode, uint8 [W, S + Q, H, B].

    Args:
        classes: To draw from.
        ways: W classes, without replacement.
        per_class: S + Q images of each, without replacement.
        rng: Draws.
    """
    count, each = classes.images.shape[:2]
    chosen = rng.choice(count, ways, replace=False)
    return np.stack(
        [
            classes.images[c, rng.choice(each, per_class, replace=False)]
            for c in chosen
        ]
    )


class Episodes(PyDataset):
    """Batches of episodes for `fit` and `predict`.

    A batch depends on its seed alone.

    Args:
        classes: To draw from.
        ways: W.
        per_class: S + Q.
        episodes: E of a batch.
        seeds: Of the batches' draws, one each.
    """

    def __init__(
        self,
        classes: Classes,
        ways: int,
        per_class: int,
        episodes: int,
        seeds: Sequence[tuple[int, ...]],
    ):
        super().__init__()
        self._classes, self._ways, self._per_class = classes, ways, per_class
        self._episodes, self._seeds = episodes, seeds

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int):
        rng = np.random.default_rng(self._seeds[index])
        drawn = [
            draw(self._classes, self._ways, self._per_class, rng)
            for _ in range(self._episodes)
        ]
        x = np.stack(drawn)[..., None].astype("float32") / 255
        # The order of the images is their label.
        return x, np.zeros(self._episodes, "float32")
