"""Labelled images, and what every source of their batches offers.

Axes: N images, B images of a global batch, H height, W width, C channels.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf


class LabelledImages(NamedTuple):
    """Images and what they show."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]
    class_names: tuple[str, ...]

    def checksum(self) -> int:
        """CRC-32 of images and labels, which changes with any of them."""
        return zlib.crc32(
            np.ascontiguousarray(self.labels, "<i4"),
            zlib.crc32(np.ascontiguousarray(self.images)),
        )


class ImageSource(Protocol):
    """Training and evaluation batches of an image set, for one reader.

    Of several readers each gives its B / count rows of every global batch.

    Attributes:
        num_train: Training images.
        num_evaluation: Evaluation images.
        num_classes: Labels are 0 to `num_classes` - 1.
        class_names: One a class, such as "n01440764"; None if unknown.
        image_shape: (H, W, C).
        description: What it is, in a line.
    """

    num_train: int
    num_evaluation: int
    num_classes: int
    class_names: tuple[str, ...] | list[str] | None
    image_shape: tuple[int, int, int]
    description: str

    def train(self, first_step: int, last_step: int) -> tf.data.Dataset:
        """Batches of steps `first_step` to `last_step` - 1.

        Batch k is a function of the images, the seed and k.

        Returns:
            (images float32 [B, H, W, C], normalised; labels int32 [B]).

        Raises:
            InputError: Unless 0 <= first_step < last_step.
        """

    def evaluation(self) -> tf.data.Dataset:
        """Every evaluation image once, in order.

        Returns:
            (images float32 [B, H, W, C], labels int32 [B], weights float32
            [B]), as many batches for every reader. A weight is 1, or 0 for
            what fills up the last batch, so metrics belong in
            `weighted_metrics`.
        """

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Whole batches of that size in the training set.

        Raises:
            InputError: Unless it is 1 to `num_train`.
        """

    def identity(self) -> dict:
        """What decides the batches, as JSON values; equal where they are."""


def stratified_split(
    labels: np.ndarray, num_train: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for evaluation, in an order without meaning.

    Args:
        labels: int [N].
        num_train: How many rows are for training, in [0, N]. Every class
            gives its share of them to within one.
        seed: In [0, 2**32).

    Returns:
        int64 [num_train] and [N - num_train], a function of the arguments.
    """
    # RandomState's streams are frozen, those of Generator are not.
    random = np.random.RandomState(seed)
    order = random.permutation(len(labels))
    # Where a row stands among those of its class, as a share: the first of
    # all are a proportional sample.
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        rank[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = order[np.argsort(rank[order], kind="stable")]
    train, evaluation = order[:num_train], order[num_train:]
    return random.permutation(train), random.permutation(evaluation)
