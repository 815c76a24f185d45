"""Images of the study in three parts, and batches with a population below.

Axes: M images of a batch, K of the population, H height, W width, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from official_models.common import files
from official_models.common.backend import PyDataset
from official_models.common.errors import InputError
from official_models.vision.datasets import digits
from official_models.vision.datasets.cifar10 import load
from official_models.vision.datasets.images import LabelledImages

SETS = ("digits", "cifar10")
_SPLIT_SEED = 0


class Part(NamedTuple):
    """Images and labels.

    Attributes:
        images: float32 [n, H, W, C] in [-1, 1].
        labels: int32 [n].
    """

    images: np.ndarray
    labels: np.ndarray


class Parts(NamedTuple):
    """What is trained on, what settings are chosen on, what is reported.

    Attributes:
        train: It is the population, too.
        tuning: As many as `train`, of the published training images.
        evaluation: The published test images.
        classes: How many.
    """

    train: Part
    tuning: Part
    evaluation: Part
    classes: int

    def digest(self) -> str:
        """SHA-256 of the images and labels of the three parts."""
        parts = self.train, self.tuning, self.evaluation
        return files.digest(*(array for part in parts for array in part))


def load_parts(name: str, data_dir: str | None, train_images: int) -> Parts:
    """Reads a set and splits it, always alike.

    Args:
        name: One of `SETS`.
        data_dir: Of CIFAR-10, as `cifar10.load` takes it.
        train_images: In `train`, and in `tuning`.

    Raises:
        InputError: It cannot be read, or has not as many images.
    """
    if name == "digits":
        if data_dir:
            raise InputError("--data_dir: for --data cifar10; digits need none")
        found = digits.load_mnist()
    elif data_dir is None:
        raise InputError("--data_dir is missing: --data cifar10 needs it")
    else:
        found = load.load_cifar10(data_dir)
    return split(*found, train_images)


def split(
    train: LabelledImages, evaluation: LabelledImages, train_images: int
) -> Parts:
    """Takes two parts of the training images at random.

    Raises:
        InputError: There are too few.
    """
    count = len(train.labels)
    if 2 * train_images > count:
        raise InputError(
            f"--train_images {train_images}: expected at most half of the "
            f"{count} that there are; the others are to tune on"
        )
    order = np.random.default_rng(_SPLIT_SEED).permutation(count)
    first, second = order[:train_images], order[train_images:][:train_images]
    return Parts(
        _part(train, first),
        _part(train, second),
        _part(evaluation, slice(None)),
        len(train.class_names),
    )


def _part(images: LabelledImages, rows) -> Part:
    pixels = images.images[rows].astype("float32") / 127.5 - 1
    return Part(pixels, np.asarray(images.labels[rows], "int32"))


class Batches(PyDataset):
    """Batches of a part, in an order of the seed; the last rows are left out.

    Args:
        part: To draw from.
        batch_size: M.
        updates: How many batches, over epochs.
        seed: Of the order.
        population: K > 0: the first K images of the part stand below each
            batch, with no weight in the loss.
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        updates: int,
        seed: int,
        population: int = 0,
    ):
        super().__init__()
        self.part, self.batch_size, self.updates = part, batch_size, updates
        self.seed, self.population = seed, population
        self._below = part.images[:population]
        self._epoch, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return self.updates

    def __getitem__(self, index: int):
        """Images [M + K, H, W, C], labels and weights [M + K]."""
        per_epoch = len(self.part.labels) // self.batch_size
        epoch, place = divmod(index, per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._epoch = epoch
            self._order = rng.permutation(len(self.part.labels))
        rows = self._order[place * self.batch_size :][: self.batch_size]
        k = self.population
        labels = np.pad(self.part.labels[rows], (0, k))
        weights = np.pad(np.ones(len(rows), "float32"), (0, k))
        images = np.concatenate([self.part.images[rows], self._below])
        return images, labels, weights
