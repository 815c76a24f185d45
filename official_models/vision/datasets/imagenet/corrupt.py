"""Records that cannot be used: counted, named, and too many at some point."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from official_models.common import files
from official_models.common.errors import InputError

IMAGE, LABEL, FILENAME = "image/encoded", "image/class/label", "image/filename"

NONE_VALID = "no usable record in a whole batch"


class CorruptRecords:
    """The unusable records of a run, each counted once.

    Args:
        max_corrupt: How many there may be.
        path: A text file that keeps their names, one a line, so that a run
            that is resumed continues the count; None for none.

    Attributes:
        names: What was found, with the reason, by name.
        refused: The message of the record that was too much; None so far.

    Raises:
        InputError: The file cannot be read or written, or names too many.
    """

    def __init__(self, max_corrupt: int, path: str | Path | None = None):
        if max_corrupt < 0:
            raise InputError(f"max_corrupt {max_corrupt}: expected 0 or more")
        self.max_corrupt = max_corrupt
        self.path = Path(path) if path else None
        self.names: dict[str, str] = {}
        self.refused: str | None = None
        self._lock = threading.Lock()
        if self.path and self.path.exists():
            lines = files.read_text(self.path).splitlines()
            self.names = dict(line.partition("\t")[::2] for line in lines)
            if len(self.names) > max_corrupt:
                name, reason = list(self.names.items())[-1]
                raise InputError(f"{name}: {reason}; {self._too_many()}")

    def add(self, name: str, reason: str) -> None:
        """Counts a record.

        Args:
            name: The file and the place in it.
            reason: What is wrong with it.

        Raises:
            InputError: It is one more than there may be.
        """
        with self._lock:
            if name not in self.names:
                self.names[name] = reason
                self._write()
            if len(self.names) > self.max_corrupt:
                self.refused = (
                    self.refused or f"{name}: {reason}; {self._too_many()}"
                )
                raise InputError(self.refused)

    def _too_many(self) -> str:
        return (
            f"{len(self.names)} corrupt, max_corrupt is {self.max_corrupt}: "
            "convert the images again or raise --max_corrupt"
        )

    def _write(self) -> None:
        if self.path is None:
            return
        lines = [f"{name}\t{reason}\n" for name, reason in self.names.items()]
        try:
            files.write_text(self.path, "".join(lines))
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from error


def parse(
    record: tf.Tensor, num_classes: int, label_offset: int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """The JPEG (string scalar) and the label (int32 scalar) of a record.

    Args:
        record: Serialized.
        num_classes: Labels are 1 to this.
        label_offset: Is added to the record's label.

    Raises:
        tf.errors.InvalidArgumentError: It has not one of each, or the label
            is not 1 to `num_classes`.
    """
    spec = {
        IMAGE: tf.io.FixedLenFeature((), tf.string),
        LABEL: tf.io.FixedLenFeature((), tf.int64),
    }
    features = tf.io.parse_single_example(record, spec)
    label = features[LABEL] + label_offset
    in_range = tf.debugging.Assert(
        (label >= 1) & (label <= num_classes), [label]
    )
    with tf.control_dependencies([in_range]):
        return features[IMAGE], tf.cast(label, tf.int32)


def label_of(record: bytes) -> int | None:
    """The label in a serialized record; None if it has not one."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return None
    values = features[LABEL].int64_list.value
    return values[0] if len(values) == 1 else None


def diagnose(record: bytes, num_classes: int, label_offset: int = 0) -> str:
    """What is wrong with a record that could not be used.

    Args:
        record: Serialized; empty where the file ended before it.
        num_classes: Labels are 1 to this.
        label_offset: Is added to the record's label.
    """
    if not record:
        return "missing, the file ends before it"
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return "is no tf.train.Example"
    images, labels = features[IMAGE].bytes_list, features[LABEL].int64_list
    for name, values, kind in (
        (IMAGE, images.value, "bytes"),
        (LABEL, labels.value, "int64"),
    ):
        if len(values) != 1:
            return f"{name!r} has {len(values)} {kind} values, expected 1"
    names = features[FILENAME].bytes_list.value
    file = f"{names[0].decode(errors='replace')!r}: " if names else ""
    if not 1 <= labels.value[0] + label_offset <= num_classes:
        return (
            f"{file}label {labels.value[0]}, expected {1 - label_offset} to "
            f"{num_classes - label_offset}"
        )
    return file + describe_image(images.value[0])


def describe_image(image: bytes) -> str:
    """Why bytes are no JPEG that can be decoded."""
    if image.startswith(b"\x89PNG"):
        return "a PNG, expected a JPEG"
    if not image.startswith(b"\xff\xd8"):
        return f"no JPEG (begins with {image[:4].hex() or 'nothing'})"
    try:
        height, width, _ = tf.io.extract_jpeg_shape(image).numpy()
        tf.io.decode_jpeg(image, channels=3)
    except tf.errors.OpError:
        return f"a JPEG of {len(image)} bytes that is damaged or cut short"
    return f"a JPEG of {width}x{height} pixels that cannot be used"


def guarded(
    function: Callable[..., tuple], arguments: tuple, blank: tuple
) -> tuple:
    """What `function` gives, or `blank` where it raises.

    Args:
        function: Of tensors, for use in a `tf.data` function.
        arguments: Its arguments.
        blank: Of the dtypes and shapes of its results.
    """
    # Nothing else in TensorFlow continues after an error of one of its kernels.
    result = tf.data.Dataset.from_tensors(arguments).map(function)
    either = result.ignore_errors().concatenate(
        tf.data.Dataset.from_tensors(blank)
    )
    return either.take(1).get_single_element()


def without_invalid(
    images: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch in which the next valid row stands for one that is not.

    After the last row comes the first.

    Args:
        images: [B, ...].
        labels: [B].
        valid: bool [B].

    Returns:
        images and labels.

    Raises:
        tf.errors.InvalidArgumentError: No row is valid.
    """

    def replaced():
        rows = tf.where(valid)[:, 0]
        check = tf.debugging.Assert(tf.size(rows) > 0, [NONE_VALID])
        with tf.control_dependencies([] if check is None else [check]):
            # Else the division below may be the first to fail.
            rows = tf.identity(rows)
        wanted = tf.range(tf.size(valid, tf.int64))
        later = tf.searchsorted(rows, wanted, out_type=tf.int64)
        row = tf.gather(rows, later % tf.size(rows, tf.int64))
        return tf.gather(images, row), tf.gather(labels, row)

    return tf.cond(tf.reduce_all(valid), lambda: (images, labels), replaced)
