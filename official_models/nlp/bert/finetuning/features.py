"""BERT's features of examples, and TFRecords of them.

Written once, read by every host.

Axes: N examples, B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from official_models.common import files, readers, records
from official_models.common.errors import InputError
from official_models.common.readers import Reader
from official_models.nlp.datasets.glue import Example

REAL = "is_real_example"


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts stay, the longer one being cut first.

    Args:
        first: tokens of the first text.
        second: tokens of the second text.
        room: how many may stay together, 0 or more.

    Returns:
        Tokens of each that stay: what remains after taking tokens off the
        longer text, of equals the second, one at a time.
    """
    if first + second <= room:
        return first, second
    kept = min(first, max(room - second, (room + 1) // 2))
    return kept, room - kept


def encode(
    examples: Sequence[Example], tokenizer, max_seq_length: int
) -> list[dict[str, list[int]]]:
    """[CLS] a [SEP] b [SEP], padded: the features of BERT.

    Args:
        examples: of `read_split`.
        tokenizer: of `tokenizers`, with [CLS] and [SEP].
        max_seq_length: T, 5 or more for pairs.

    Returns:
        For each example `input_ids`, `input_mask`, `segment_ids` [T] and
        `label_ids` [1] (0 where there is none), integers.

    Raises:
        InputError: no room for a token of each text.
    """
    parts = len(examples[0].texts)
    room = max_seq_length - 1 - parts
    if room < parts:
        raise InputError(
            f"--max_seq_length {max_seq_length}: expected at least "
            f"{2 * parts + 1} for this task"
        )
    ids = [
        [
            row.ids
            for row in tokenizer.encode_batch(
                [example.texts[i] for example in examples],
                add_special_tokens=False,
            )
        ]
        for i in range(parts)
    ]
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    rows = []
    for i, example in enumerate(examples):
        first = ids[0][i]
        second = ids[1][i] if parts == 2 else []
        a, b = kept_lengths(len(first), len(second), room)
        start = [cls, *first[:a], sep]
        rest = [*second[:b], sep] if parts == 2 else []
        rows.append(
            {
                **pad(start, rest, max_seq_length),
                "label_ids": [example.label or 0],
            }
        )
    return rows


def pad(
    first: list[int], second: list[int], max_seq_length: int
) -> dict[str, list[int]]:
    """Two segments of ids, up to T: `input_ids`, `input_mask`, `segment_ids`.

    Args:
        first: segment 0, at most T ids together with
        second: segment 1.
        max_seq_length: T.
    """
    used = len(first) + len(second)
    padding = [0] * (max_seq_length - used)
    return {
        "input_ids": [*first, *second, *padding],
        "input_mask": [1] * used + padding,
        "segment_ids": [0] * len(first) + [1] * len(second) + padding,
    }


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
