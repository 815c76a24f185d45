"""ImageNet's training and evaluation batches, from TFRecord shards.

Axes: N records of a split, B images of a global batch, S the images' side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from official_models.common import readers
from official_models.common.errors import InputError
from official_models.common.readers import Reader
from official_models.vision.datasets.imagenet import corrupt, shards
from official_models.vision.datasets.imagenet import decode as decode_image
from official_models.vision.datasets.imagenet.order import RecordOrder

# In the names of the operations on a record, and so in their errors.
_SCOPE = "imagenet_record"


class ImageNetRecords:
    """Batches of ImageNet, an `images.ImageSource`; any can be asked for.

    Batch k of training is a function of (shards, global_batch_size, seed, k,
    shuffle_buffer): a run that is resumed at step k sees the batches that an
    uninterrupted one would. Every epoch takes the shards in a new order and
    shuffles what they hold; what is left of it after the last whole batch is
    not used in that epoch. Each visit of an image is cropped and mirrored
    anew.

    A corrupt record is counted once and named. In training the next image of
    its batch takes its place, in evaluation it has the weight 0: all others
    stay where they are.

    Attributes:
        corrupt: A `CorruptRecords`: those that were found so far.

    Args:
        data_dir: As for `shards.open_shards`.
        global_batch_size: B, of all readers.
        seed: Of order and augmentation, in [0, 2**32).
        image_size: S.
        resize: "bilinear" or "bicubic"; published pipelines have either, and
            the former is faster.
        evaluation_batch_size: Of all readers; default: B.
        central_fraction: How much of an evaluation image's shorter side is
            kept, in (0, 1].
        reader: (index, count); gets B / count images a batch: from its own
            shards if they can be dealt evenly, otherwise every count-th
            record of all.
        shuffle_buffer: Records in memory to draw the next one from.
        cache: Whether to keep this reader's training records, encoded, in
            memory.
        label_offset: Is added to the records' labels, which then are 1 to the
            number of classes; 1 for shards whose labels begin at 0.
        max_corrupt: Corrupt records there may be.
        corrupt_file: Where their names are kept; None for nowhere.

    Raises:
        InputError: The shards are not whole or an argument is out of range.
    """

    def __init__(
        self,
        data_dir: str | Path,
        global_batch_size: int,
        seed: int,
        *,
        image_size: int = 224,
        resize: str = "bilinear",
        evaluation_batch_size: int | None = None,
        central_fraction: float = decode_image.CENTRAL_FRACTION,
        reader: Reader = readers.ALONE,
        shuffle_buffer: int = 10_000,
        cache: bool = False,
        label_offset: int = 0,
        max_corrupt: int = 0,
        corrupt_file: str | Path | None = None,
    ):
        self.global_batch_size, self.seed = global_batch_size, seed
        self.image_size, self.resize = image_size, resize
        self.evaluation_batch_size = evaluation_batch_size or global_batch_size
        self.central_fraction = central_fraction
        self.reader, self.shuffle_buffer = Reader(*reader), shuffle_buffer
        self._check_arguments()
        self.corrupt = corrupt.CorruptRecords(max_corrupt, corrupt_file)
        self._shards = shards.open_shards(data_dir)
        self.num_train = self._shards.splits["train"].total
        self.num_evaluation = self._shards.splits["validation"].total
        self.num_classes = self._shards.num_classes
        self.class_names = self._shards.class_names
        self.label_offset = label_offset
        labels = shards.sample_labels(
            self._shards, label_offset, strict=not max_corrupt
        )
        self.image_shape = (image_size, image_size, 3)
        self.steps_per_epoch(global_batch_size)
        self.description = (
            f"ImageNet: {self.num_train:,} training and "
            f"{self.num_evaluation:,} evaluation images, "
            f"{image_size}x{image_size}x3, {self.num_classes} classes; {labels}"
        )
        self._orders = {
            name: RecordOrder(split, self.reader)
            for name, split in self._shards.splits.items()
        }
        if cache:
            with self.reporting_corrupt():
                self._orders["train"].load()

    def _check_arguments(self) -> None:
        for name in ("global_batch_size", "evaluation_batch_size"):
            readers.rows_of(self.reader, getattr(self, name), name)
        readers.check_seed(self.seed)
        if self.resize not in decode_image.RESIZE_METHODS:
            raise InputError(
                f"resize {self.resize!r}: expected one of "
                f"{', '.join(decode_image.RESIZE_METHODS)}"
            )
        for name in ("image_size", "shuffle_buffer"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} {getattr(self, name)}: expected at least 1"
                )
        if not 0 < self.central_fraction <= 1:
            raise InputError(
                f"central_fraction {self.central_fraction}: expected more "
                "than 0, at most 1"
            )

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """See `images.ImageSource`."""
        return readers.steps_per_epoch(self.num_train, global_batch_size)

    def identity(self) -> dict:
        """See `images.ImageSource`."""
        return {
            "name": "imagenet",
            "num_train": self.num_train,
            "num_evaluation": self.num_evaluation,
            "shards_crc32": self._shards.crc32,
            "global_batch_size": self.global_batch_size,
            "seed": self.seed,
            "image_size": self.image_size,
            "resize": self.resize,
            "central_fraction": self.central_fraction,
            "shuffle_buffer": self.shuffle_buffer,
            "readers": self.reader.count,
        }

    def train(self, first_step: int, last_step: int) -> tf.data.Dataset:
        """Batches of steps `first_step` to `last_step` - 1.

        Records before the first one are read, as the order of an epoch
        depends on them, but not decoded.

        Returns:
            (images float32 [B, S, S, 3], normalised, labels int32 [B]); on
            one of several readers its part of them.

        Raises:
            InputError: Unless 0 <= first_step < last_step.
        """
        readers.check_steps(first_step, last_step)
        index, count = self.reader
        records_of = self._orders["train"]
        size = self.global_batch_size // count
        steps = self.steps_per_epoch(self.global_batch_size)
        first_epoch, skipped = divmod(first_step, steps)

        def epoch(number):
            begin = tf.where(tf.equal(number, first_epoch), skipped * size, 0)
            # A reader that has a little less than its share begins again.
            order = records_of.shuffled(self.seed, number, self.shuffle_buffer)
            records = order.repeat().take(steps * size)
            return records.skip(tf.cast(begin, tf.int64))

        def image(encoded, position):
            pixels = decode_image.training_image(
                encoded,
                tf.stack([self.seed, position * count + index]),
                self.image_size,
                self.resize,
            )
            return decode_image.normalised(pixels)

        epochs = tf.data.Dataset.range(first_epoch, -(-last_step // steps))
        records = epochs.flat_map(epoch).take((last_step - first_step) * size)
        images = self._decode("train", records, first_step * size, image)
        return _batched(images, size, corrupt.without_invalid)

    def evaluation(self) -> tf.data.Dataset:
        """Every evaluation image once, in order.

        Returns:
            Batches (images float32 [B, S, S, 3], normalised, labels int32
            [B], weights float32 [B]), as many for every reader. A weight is 1,
            or 0 for a corrupt image and for what fills up the last batch.
        """
        count = self.reader.count
        size = self.evaluation_batch_size // count
        records = self._orders["validation"]
        longest = max(map(records.count, range(count)))
        padding = -(-longest // size) * size - records.count()
        blank = (np.zeros(self.image_shape, np.float32), np.int32(0), False)

        def image(encoded, _):
            pixels = decode_image.evaluation_image(
                encoded, self.image_size, self.resize, self.central_fraction
            )
            return decode_image.normalised(pixels)

        images = self._decode("validation", records.in_order(), 0, image)
        blanks = tf.data.Dataset.from_tensors(blank).repeat(padding)

        def finish(images, labels, valid):
            return images, labels, tf.cast(valid, tf.float32)

        return _batched(images.concatenate(blanks), size, finish)

    @contextlib.contextmanager
    def reporting_corrupt(self) -> Iterator[None]:
        """Turns TensorFlow's error about a damaged record into ours.

        Wrap what iterates over a dataset of this source, such as
        `model.fit`, in it.

        Raises:
            InputError: Names the file, the record and what is wrong.
        """
        try:
            yield
        except UnicodeDecodeError as error:
            # TensorFlow quotes a record that it cannot parse.
            raise self._find_corrupt() from error
        except tf.errors.OpError as error:
            if self.corrupt.refused:
                raise InputError(self.corrupt.refused) from error
            if corrupt.NONE_VALID in error.message:
                name, reason = list(self.corrupt.names.items())[-1]
                raise InputError(
                    f"{corrupt.NONE_VALID}, the last one {name}: "
                    f"{reason}; convert the images again"
                ) from error
            if isinstance(error, tf.errors.DataLossError):
                splits = self._shards.splits.values()
                paths = [path for split in splits for path in split.paths]
                raise shards.name_damage(paths, error) from error
            if _SCOPE in error.message:
                raise self._find_corrupt() from error
            raise

    def _find_corrupt(self) -> InputError:
        """Reads everything until there is a corrupt record, and names it."""

        def whole(encoded, _):
            pixels = decode_image.whole_image(encoded)
            # What nothing depends on, TensorFlow leaves out.
            some = tf.cast(pixels[0, 0, 0], tf.float32)
            return tf.fill(self.image_shape, some)

        for split, records in self._orders.items():
            images = self._decode(split, records.in_order(), 0, whole, True)
            try:
                for _ in images.batch(64):
                    pass
            except tf.errors.OpError:
                break
        return InputError(
            self.corrupt.refused
            or "a record cannot be used, but none was found when all were read "
            "again; try again"
        )

    def _decode(
        self,
        split: str,
        records: tf.data.Dataset,
        first: int,
        image: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        guarded: bool | None = None,
    ) -> tf.data.Dataset:
        """Images float32 [S, S, 3], labels from 0, and whether they are good.

        Args:
            split: Where the records are from.
            records: (number, serialized).
            first: Position in the run of the first of them.
            image: From a JPEG and its position.
            guarded: Whether to continue after a corrupt one. The guard takes
                a tenth of the time; by default there is none if no corrupt
                record is allowed.
        """
        if guarded is None:
            guarded = self.corrupt.max_corrupt > 0
        classes, offset = self.num_classes, self.label_offset
        blank = (np.zeros(self.image_shape, np.float32), np.int32(0), False)

        def report(number, record):
            self.corrupt.add(
                self._shards.splits[split].name(int(number)),
                corrupt.diagnose(record, classes, offset),
            )
            return np.False_

        def use(position, record):
            with tf.name_scope(_SCOPE):
                encoded, label = corrupt.parse(record, classes, offset)
                return image(encoded, position), label - 1, True

        def decode(position, record):
            number, record = record
            if not guarded:
                return use(position, record)
            pixels, label, valid = corrupt.guarded(
                use, (position, record), blank
            )
            valid = tf.cond(
                valid,
                lambda: True,
                lambda: tf.numpy_function(report, [number, record], tf.bool),
            )
            return pixels, label, tf.ensure_shape(valid, ())

        return records.enumerate(first).map(
            decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


def _batched(
    images: tf.data.Dataset, size: int, finish: Callable[..., tuple]
) -> tf.data.Dataset:
    """Whole batches, of which `finish` makes what is handed out."""
    options = tf.data.Options()
    # Readers have their own records already.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    batches = images.batch(size, drop_remainder=True).map(
        finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
