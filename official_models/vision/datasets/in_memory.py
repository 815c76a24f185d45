"""Where a train script gets its images from, if they fit into memory."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from official_models.vision.datasets import batches, images
from official_models.vision.datasets.images import Images

# 10,000 test images are 20 of these, without padding.
_EVALUATION_BATCH = 500


class MemorySource:
    """Training and evaluation batches of an image set in memory.

    Attributes:
        num_train: Training images.
        num_evaluation: Evaluation images.
        num_classes: Labels are 0 to `num_classes` - 1.
        class_names: One a class.
        image_shape: (H, W, C).
        description: What it is, in a line.

    Args:
        name: Of the set.
        splits: Training and evaluation images.
        global_batch_size: B.
        seed: Of order and augmentation, in [0, 2**32).
        padding: As for `batches.TrainingBatches`, like all that follow.
        flip: Only where a mirror image shows the same thing.
        shard: (index, count) of this host.
        evaluation_batch_size: Of all hosts; default: about 500.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        name: str,
        splits: tuple[Images, Images],
        *,
        global_batch_size: int,
        seed: int,
        padding: int = 4,
        flip: bool = True,
        shard: tuple[int, int] = (0, 1),
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
            shard=shard,
        )
        if evaluation_batch_size is None:
            count = shard[1]
            evaluation_batch_size = -(-_EVALUATION_BATCH // count) * count
        self._evaluation = batches.evaluation_batches(
            evaluation, self.batches.statistics, evaluation_batch_size, shard
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
        """Batches of steps `first_step` to `last_step` - 1.

        Returns:
            (images float32 [B, H, W, C], labels int32 [B]); on one of several
            hosts its slice of them.

        Raises:
            InputError: Unless 0 <= first_step < last_step.
        """
        return self.batches.dataset(first_step, last_step)

    def evaluation(self) -> tf.data.Dataset:
        """Every evaluation image once: (images, labels, weights).

        The last batch is padded; padding has the weight 0, so metrics belong
        in `weighted_metrics`.
        """
        return self._evaluation

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Whole batches of that size in the training set.

        Raises:
            InputError: Unless it is 1 to `num_train`.
        """
        return batches.steps_per_epoch(self.num_train, global_batch_size)

    def identity(self) -> dict:
        """What decides the batches; equal where they are equal."""
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


def mnist(global_batch_size: int, seed: int, **arguments) -> MemorySource:
    """The digits of `images.load_mnist`.

    Args:
        global_batch_size: B, at most 4,096.
        seed: In [0, 2**32).
        **arguments: Others of `MemorySource`. By default digits move by at
            most 2 pixels and are not mirrored.
    """
    return MemorySource(
        "mnist_5k",
        images.load_mnist(),
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
) -> MemorySource:
    """The images of `images.load_cifar10`.

    Args:
        data_dir: As for `load_cifar10`, like `max_corrupt`.
        global_batch_size: B, at most 50,000.
        seed: In [0, 2**32).
        **arguments: Others of `MemorySource`.
    """
    return MemorySource(
        "cifar10",
        images.load_cifar10(data_dir, max_corrupt=max_corrupt),
        global_batch_size=global_batch_size,
        seed=seed,
        **arguments,
    )
