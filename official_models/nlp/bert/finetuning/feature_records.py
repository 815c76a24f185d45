"""TFRecords of BERT's features: written once, read by every host.

Axes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from official_models.common import files, readers, records
from official_models.common.errors import InputError
from official_models.common.readers import Reader

REAL = "is_real_example"


def write_features(
    path: str, rows: Iterable[dict[str, Sequence[int]]], multiple: int = 1
) -> tuple[int, int]:
    """Writes features under a temporary name, then renames the file.

    Args:
        path: of the TFRecords, on `gs://` too.
        rows: {feature: integers}, the same lengths in each.
        multiple: the number of records is rounded up to one of it, by copies
            of the last one whose `is_real_example` is 0: a TPU takes full
            batches only.

    Returns:
        How many rows there were, and how many records there are now.

    Raises:
        InputError: there is no row.
    """
    number, row = 0, None
    with files.replacing(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for row in rows:
                writer.write(records.serialize({**row, REAL: [1]}))
                number += 1
            if row is None:
                raise InputError(f"{path}: no example to write")
            padding = -number % multiple
            for _ in range(padding):
                writer.write(records.serialize({**row, REAL: [0]}))
    return number, number + padding


def read_features(
    path: str,
    lengths: dict[str, int | None],
    *,
    batch_size: int,
    num_examples: int | None = None,
    seed: int = 0,
    first_batch: int = 0,
    reader: Reader = readers.ALONE,
) -> tf.data.Dataset:
    """Batches of features, of static shape.

    Args:
        path: of `write_features`.
        lengths: {feature: length}; None for a scalar.
        batch_size: B, of this reader.
        num_examples: of the file: then without end, shuffled anew in each
            epoch, a function of the seed. None: once, in order.
        seed: of the order.
        first_batch: where a run is resumed, in batches; it sees what an
            uninterrupted one would.
        reader: (index, count); reads every `count`-th example, so that all
            readers together read each example once an epoch.

    Returns:
        {feature: int32 [B, length] or [B]} and `is_real_example`, float32 [B].
    """
    fields = {
        name: records.Field(tf.int64, length)
        for name, length in {**lengths, REAL: None}.items()
    }

    def parse(serialized):
        batch = records.as_int32(records.parse(serialized, fields))
        return {**batch, REAL: tf.cast(batch[REAL], tf.float32)}

    dataset = tf.data.TFRecordDataset(path)
    if num_examples is not None:
        dataset = dataset.cache().shuffle(num_examples, seed).repeat()
    index, count = reader
    if count > 1:
        dataset = dataset.shard(count, index)
    if first_batch:
        dataset = dataset.skip(first_batch * batch_size)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    return dataset.map(parse, num_parallel_calls=2).prefetch(2)
