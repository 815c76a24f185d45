"""Features of fine-tuning as TFRecords: written once, read by every host.

Axes: N examples, B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf
from tokenizers import BertWordPieceTokenizer

from official_models.common.errors import InputError

REAL = "is_real_example"


def wordpiece(vocab_file: str, do_lower_case: bool = True):
    """The tokenizer of a published BERT's vocabulary.

    Args:
        vocab_file: one token a line, on `gs://` too.
        do_lower_case: lower-case and strip accents, for an uncased BERT.

    Raises:
        InputError: it cannot be read, or lacks a special token.
    """
    try:
        with tf.io.gfile.GFile(vocab_file) as file:
            tokens = file.read().split("\n")
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise InputError(
            f"--vocab_file {vocab_file}: {reason}; expected one token a line"
        ) from error
    if tokens[-1] == "":
        tokens.pop()
    vocabulary = {token.strip(): i for i, token in enumerate(tokens)}
    for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
        if token not in vocabulary:
            raise InputError(
                f"--vocab_file {vocab_file}: no {token} in its {len(tokens)} "
                "lines; expected BERT's vocab.txt"
            )
    return BertWordPieceTokenizer(vocabulary, lowercase=do_lower_case)


def write_records(
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
    temporary, number, row = f"{path}.tmp", 0, None
    with tf.io.TFRecordWriter(temporary) as writer:
        for row in rows:
            writer.write(_example(row, real=True))
            number += 1
        if row is None:
            raise InputError(f"{path}: no example to write")
        padding = -number % multiple
        for _ in range(padding):
            writer.write(_example(row, real=False))
    tf.io.gfile.rename(temporary, path, overwrite=True)
    return number, number + padding


def _example(row: dict[str, Sequence[int]], real: bool) -> bytes:
    feature = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        for name, values in {**row, REAL: [int(real)]}.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def read_records(
    path: str,
    lengths: dict[str, int | None],
    *,
    batch_size: int,
    num_examples: int | None = None,
    seed: int = 0,
    first_batch: int = 0,
    host: int = 0,
    num_hosts: int = 1,
) -> tf.data.Dataset:
    """Batches of features, of static shape.

    Args:
        path: of `write_records`.
        lengths: {feature: length}; None for a scalar.
        batch_size: B, of this host.
        num_examples: of the file: then without end, shuffled anew in each
            epoch, a function of the seed. None: once, in order.
        seed: of the order.
        first_batch: where a run goes on, in batches; it sees what an
            uninterrupted one would.
        host: number of this host: it reads every `num_hosts`-th example.
        num_hosts: all hosts together read each example once an epoch.

    Returns:
        {feature: int32 [B, length] or [B]} and `is_real_example`, float32 [B].
    """
    spec = {
        name: tf.io.FixedLenFeature([] if n is None else [n], tf.int64)
        for name, n in {**lengths, REAL: None}.items()
    }

    def parse(records):
        found = tf.io.parse_example(records, spec)
        batch = {name: tf.cast(x, tf.int32) for name, x in found.items()}
        batch[REAL] = tf.cast(batch[REAL], tf.float32)
        return batch

    dataset = tf.data.TFRecordDataset(path)
    if num_examples is not None:
        dataset = dataset.cache().shuffle(num_examples, seed).repeat()
    if num_hosts > 1:
        dataset = dataset.shard(num_hosts, host)
    if first_batch:
        dataset = dataset.skip(first_batch * batch_size)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    return dataset.map(parse, num_parallel_calls=2).prefetch(2)
