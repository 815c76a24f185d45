"""Image sets that fit into memory, as sources of batches."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from official_models.common import readers
from official_models.common.readers import Reader
from official_models.vision.datasets import batches, digits
from official_models.vision.datasets.cifar10 import load
from official_models.vision.datasets.images import LabelledImages

# 10,000 test images are 20 of these, without padding.
_EVALUATION_BATCH = 500


class InMemoryImages:
    """An image set in memory, an `images.ImageSource`.

    Args:
        name: Of the set.
        splits: Training and evaluation images.
        global_batch_size: B.
        seed: Of order and augmentation, in [0, 2**32).
        padding: As for `batches.TrainingBatches`, like all that follow.
        flip: Only where a mirror image shows the same thing.
        reader: (index, count); gives B / count images of each batch.
        evaluation_batch_size: Of all readers; default: about 500.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        name: str,
        splits: tuple[LabelledImages, LabelledImages],
        *,
        global_batch_size: int,
        seed: int,
        padding: int = 4,
        flip: bool = True,
        reader: Reader = readers.ALONE,
        evaluation_batch_size: int | None = None,
    ):
        train, evaluation = splits
        self.name = name
        self.batches = batches.TrainingBatches(
            train,
            global_batch_size,
            seed,
            padding=padding,
            flip=flip,
            reader=reader,
        )
        if evaluation_batch_size is None:
            _, count = reader
            evaluation_batch_size = -(-_EVALUATION_BATCH // count) * count
        self._evaluation = batches.evaluation_batches(
            evaluation, self.batches.statistics, evaluation_batch_size, reader
        )
        self.num_train = len(train.labels)
        self.num_evaluation = len(evaluation.labels)
        self.class_names = train.class_names
        self.num_classes = len(train.class_names)
        self.image_shape = train.images.shape[1:]
        height, width, channels = self.image_shape
        self.description = (
            f"{name}: {self.num_train:,} training and "
            f"{self.num_evaluation:,} evaluation images, "
            f"{height}x{width}x{channels}, {self.num_classes} classes"
        )
        self._checksums = {
            "train_crc32": train.checksum(),
            "evaluation_crc32": evaluation.checksum(),
        }

    def train(self, first_step: int, last_step: int) -> tf.data.Dataset:
        """See `images.ImageSource`."""
        return self.batches.dataset(first_step, last_step)

    def evaluation(self) -> tf.data.Dataset:
        """See `images.ImageSource`."""
        return self._evaluation

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """See `images.ImageSource`."""
        return readers.steps_per_epoch(self.num_train, global_batch_size)

    def identity(self) -> dict:
        """See `images.ImageSource`."""
        return {
            "name": self.name,
            "num_train": self.num_train,
            "num_evaluation": self.num_evaluation,
            **self._checksums,
            "global_batch_size": self.batches.global_batch_size,
            "seed": self.batches.seed,
            "padding": self.batches.padding,
            "flip": self.batches.flip,
        }


def mnist(global_batch_size: int, seed: int, **arguments) -> InMemoryImages:
    """The digits of `digits.load_mnist`.

    Args:
        global_batch_size: B, at most 4,096.
        seed: In [0, 2**32).
        **arguments: Others of `InMemoryImages`. By default digits move by at
            most 2 pixels and are not mirrored.
    """
    return InMemoryImages(
        "mnist_5k",
        digits.load_mnist(),
        global_batch_size=global_batch_size,
        seed=seed,
        **{"padding": 2, "flip": False, **arguments},
    )


def cifar10(
    data_dir: str | Path,
    global_batch_size: int,
    seed: int,
    *,
    max_corrupt: int = 0,
    **arguments,
) -> InMemoryImages:
    """The images of `cifar10.load.load_cifar10`.

    Args:
        data_dir: As for `load_cifar10`, like `max_corrupt`.
        global_batch_size: B, at most 50,000.
        seed: In [0, 2**32).
        **arguments: Others of `InMemoryImages`.
    """
    return InMemoryImages(
        "cifar10",
        load.load_cifar10(data_dir, max_corrupt=max_corrupt),
        global_batch_size=global_batch_size,
        seed=seed,
        **arguments,
    )
