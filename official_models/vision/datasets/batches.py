"""Batches of images in memory: shuffled, cropped and mirrored, normalised.

Axes: N images of a set, B images of a global batch, H, W, C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from official_models.common import readers
from official_models.common.errors import InputError
from official_models.common.readers import Reader
from official_models.vision.datasets.images import LabelledImages

# Padded images of so many at a time stay in the processor's cache.
_CHUNK = 256
# What a seed is for, so that no two uses see the same stream.
_ORDER, _AUGMENT = 0, 1


class ChannelStatistics(NamedTuple):
    """What images are normalised with, in units of a pixel, 0 to 255."""

    mean: np.ndarray  # float32 [C]
    deviation: np.ndarray  # float32 [C], never 0

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """Images uint8 [B, H, W, C] as float32 of mean 0 and deviation 1."""
        batch, height, width, _ = images.shape
        # Whole images as one axis: broadcasting over three channels is slow.
        pixels = tf.cast(tf.reshape(images, (batch, -1)), tf.float32)
        mean, deviation = (np.tile(a, height * width) for a in self)
        return tf.reshape((pixels - mean) * (1 / deviation), images.shape)


def channel_statistics(images: np.ndarray) -> ChannelStatistics:
    """Mean and deviation of each channel over images uint8 [N, H, W, C].

    A channel that is the same everywhere has the deviation 1.
    """
    channels = images.shape[-1]
    flat = images.reshape(len(images), -1)
    sums = np.zeros((2, flat.shape[1]), np.uint64)
    for first in range(0, len(flat), _CHUNK):
        # Exact: _CHUNK squares of a byte are less than 2**32.
        pixels = flat[first : first + _CHUNK].astype(np.uint32)
        sums[0] += pixels.sum(0, np.uint32)
        sums[1] += np.square(pixels, out=pixels).sum(0, np.uint32)
    sums = sums.reshape(2, -1, channels).sum(1)
    mean, square = sums / (images.size // channels)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return ChannelStatistics(
        mean.astype(np.float32),
        np.where(deviation > 0, deviation, 1).astype(np.float32),
    )


class TrainingBatches:
    """An endless run of training batches, any of which can be asked for.

    Batch k is a function of (images, global_batch_size, seed, k): a run that
    is resumed at step k sees the batches that an uninterrupted one would.
    Every epoch is a new permutation of all images; what is left of it after
    the last whole batch is not used in that epoch. Each visit of an image
    draws anew where it is cropped and whether it is mirrored.

    With NumPy's `default_rng`: another version of NumPy may draw otherwise.

    Args:
        images: The training set, N images; not copied.
        global_batch_size: B, at most N.
        seed: In [0, 2**32).
        padding: Pixels added to each side, of the mean colour, before H x W
            are cut out at random; 0 leaves images where they are.
        flip: Whether half of the images are mirrored left to right.
        reader: (index, count); gives its slice of every global batch.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        images: LabelledImages,
        global_batch_size: int,
        seed: int,
        *,
        padding: int = 4,
        flip: bool = True,
        reader: Reader = readers.ALONE,
    ):
        self.steps_per_epoch = readers.steps_per_epoch(
            len(images.labels), global_batch_size
        )
        # One word of the streams' keys.
        readers.check_seed(seed)
        if padding < 0:
            raise InputError(f"padding {padding}: expected 0 or more")
        self.images = images
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.padding = padding
        self.flip = flip
        self.statistics = channel_statistics(images.images)
        self._rows = readers.rows_of(
            reader, global_batch_size, "global_batch_size"
        )
        self._last_order = (-1, np.zeros(0, np.int64))

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch number `step`, from 0.

        Returns:
            Augmented images uint8 [B / count, H, W, C] and labels int32
            [B / count].
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.global_batch_size
        order = self._order(epoch)[first : first + self.global_batch_size]
        # For the whole batch by every reader, so that their number is free.
        random = np.random.default_rng((self.seed, _AUGMENT, step))
        corner = random.integers(0, 2 * self.padding + 1, (len(order), 2))
        mirrored = random.integers(0, 2, len(order)).astype(bool) & self.flip
        rows, corner, mirrored = (
            array[self._rows] for array in (order, corner, mirrored)
        )
        batch = np.empty((len(rows), *self.images.images.shape[1:]), np.uint8)
        for first in range(0, len(rows), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            self._augment(
                batch[chunk],
                self.images.images[rows[chunk]],
                corner[chunk],
                mirrored[chunk],
            )
        return batch, self.images.labels[rows]

    def dataset(self, first: int, last: int) -> tf.data.Dataset:
        """Batches number `first` to `last` - 1, normalised.

        Returns:
            (images float32 [B / count, H, W, C], labels int32 [B / count]),
            prefetched. The mean and the deviation are those of the images
            that were given.

        Raises:
            InputError: Unless 0 <= first < last.
        """
        readers.check_steps(first, last)
        size = len(range(self.global_batch_size)[self._rows])
        shape = (size, *self.images.images.shape[1:])
        return _pipeline(
            tf.data.Dataset.range(first, last),
            self.__getitem__,
            {tf.uint8: shape, tf.int32: (size,)},
            self.statistics,
        )

    def _order(self, epoch: int) -> np.ndarray:
        """The images' numbers in the order of an epoch, int64 [N]."""
        # Threads may ask at once: the pair is replaced as a whole.
        known, order = self._last_order
        if known != epoch:
            random = np.random.default_rng((self.seed, _ORDER, epoch))
            order = random.permutation(len(self.images.labels))
            self._last_order = (epoch, order)
        return order

    def _augment(self, out, images, corner, mirrored) -> None:
        """Fills `out` with crops of padded `images`, all [n, H, W, C]."""
        count, height, width, channels = images.shape
        pad = self.padding
        if pad:
            padded = np.empty(
                (count, height + 2 * pad, width + 2 * pad, channels), np.uint8
            )
            padded[:] = np.round(self.statistics.mean).astype(np.uint8)
            padded[:, pad:-pad, pad:-pad] = images
            # Pixels and channels as one axis: whole rows are copied.
            windows = np.lib.stride_tricks.sliding_window_view(
                padded.reshape(count, height + 2 * pad, -1),
                (height, width * channels),
                axis=(1, 2),
            )
            images = windows[
                np.arange(count), corner[:, 0], corner[:, 1] * channels
            ].reshape(out.shape)
        out[...] = images
        if mirrored.any():
            out[mirrored] = images[mirrored][:, :, ::-1]


def evaluation_batches(
    images: LabelledImages,
    statistics: ChannelStatistics,
    global_batch_size: int,
    reader: Reader = readers.ALONE,
) -> tf.data.Dataset:
    """Every image once, in order; the last batch is padded to full size.

    Args:
        images: N images.
        statistics: Of the training set.
        global_batch_size: B.
        reader: As for `TrainingBatches`.

    Returns:
        ceil(N / B) batches of static shape: (images float32 [B / count, H, W,
        C], labels int32 [B / count], weights float32 [B / count]). A weight
        is 1, or 0 for padding, which repeats the first image.

    Raises:
        InputError: The batch size or the reader is out of range.
    """
    part = readers.rows_of(reader, global_batch_size, "evaluation_batch_size")
    total = len(images.labels)
    size = part.stop - part.start

    def batch(number):
        row = np.arange(size) + number * global_batch_size + part.start
        weight = (row < total).astype(np.float32)
        row = np.where(row < total, row, 0)
        return images.images[row], images.labels[row], weight

    return _pipeline(
        tf.data.Dataset.range(-(-total // global_batch_size)),
        batch,
        {
            tf.uint8: (size, *images.images.shape[1:]),
            tf.int32: (size,),
            tf.float32: (size,),
        },
        statistics,
    )


def _pipeline(
    numbers: tf.data.Dataset,
    batch: Callable[[int], tuple[np.ndarray, ...]],
    spec: dict[tf.DType, tuple[int, ...]],
    statistics: ChannelStatistics,
) -> tf.data.Dataset:
    """What `batch` gives for each number, its images normalised.

    Args:
        numbers: Of batches.
        batch: Returns arrays of which the first are images.
        spec: Dtypes and shapes of these arrays.
        statistics: For the images.
    """

    def load(number):
        tensors = tf.numpy_function(batch, [number], list(spec))
        for tensor, shape in zip(tensors, spec.values()):
            tensor.set_shape(shape)
        return (statistics.normalise(tensors[0]), *tensors[1:])

    dataset = numbers.map(
        load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.prefetch(tf.data.AUTOTUNE)
