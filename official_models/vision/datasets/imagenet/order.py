"""Which of ImageNet's records a reader gets, and in which order."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from official_models.common.readers import Reader
from official_models.vision.datasets.imagenet.shards import Split

_OPEN_SHARDS = 16
_BLOCK = 4
# Readers share whole files if none has this much more to read than another.
_UNEVEN = 0.01


class RecordOrder:
    """One reader's records of a split, numbered through as in `Split`.

    Args:
        split: The shards.
        reader: (index, count): whole shards are dealt to the readers if that
            is even to a hundredth, otherwise every count-th record of all.

    Attributes:
        shares_files: Whether whole shards are dealt.
    """

    def __init__(self, split: Split, reader: Reader):
        self._split = split
        self._reader = reader
        self._cache: tuple[tf.Tensor, tf.Tensor] | None = None
        counts, count = split.counts, reader[1]
        loads = [counts[i::count].sum() for i in range(count)]
        self.shares_files = count <= len(counts) and (
            max(loads) - min(loads) <= _UNEVEN * max(loads)
        )

    def count(self, index: int | None = None) -> int:
        """How many records the index-th reader has; None for this one."""
        index = self._reader[0] if index is None else index
        counts, readers = self._split.counts, self._reader[1]
        if self.shares_files:
            return int(counts[index::readers].sum())
        return len(range(index, self._split.total, readers))

    def in_order(self) -> tf.data.Dataset:
        """(number, serialized record) of each, always in the same order."""
        return self._read(tf.range(len(self._split.paths)))

    def shuffled(self, seed: int, epoch: tf.Tensor, buffer: int):
        """The same in the order of an epoch, for use in a `tf.data` function.

        Args:
            seed: Of all epochs.
            epoch: int64.
            buffer: Records in memory to draw the next one from.

        Returns:
            A dataset that repeats in the same order.
        """
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        shards = tf.range(len(self._split.paths))
        order = tf.random.experimental.stateless_shuffle(shards, key)
        # shuffle() would mix in the seed of the program.
        tf.compat.v1.get_default_graph().seed = 1
        seed = tf.random.stateless_uniform(
            (), key, maxval=2**62, dtype=tf.int64
        )
        return self._read(order).shuffle(
            buffer, seed, reshuffle_each_iteration=False
        )

    def load(self) -> None:
        """Reads all records once and keeps them in memory, encoded."""
        numbers, records = (
            self.in_order().batch(self.count()).get_single_element()
        )
        place = np.zeros(self._split.total, np.int64)
        place[numbers.numpy()] = np.arange(len(numbers))
        self._cache = tf.constant(place), records

    def _read(self, order: tf.Tensor) -> tf.data.Dataset:
        """This reader's records, the shards in that order."""
        paths, counts, firsts = map(tf.constant, self._split)
        index, readers = self._reader
        if self.shares_files and readers > 1:
            order = tf.boolean_mask(order, tf.equal(order % readers, index))

        def records(shard):
            dataset = tf.data.Dataset.range(
                firsts[shard], firsts[shard] + counts[shard]
            )
            if self._cache is None:
                # A shard that has lost its end since shows in what follows it.
                file = tf.data.TFRecordDataset(paths[shard]).concatenate(
                    tf.data.Dataset.from_tensors("").repeat()
                )
                dataset = tf.data.Dataset.zip(dataset, file)
            if not self.shares_files:
                dataset = dataset.filter(
                    lambda n, *_: tf.equal(n % readers, index)
                )
            if self._cache is not None:
                place, kept = self._cache
                dataset = dataset.map(lambda n: (n, kept[place[n]]))
            return dataset

        return tf.data.Dataset.from_tensor_slices(order).interleave(
            records,
            cycle_length=_OPEN_SHARDS,
            block_length=_BLOCK,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
