"""The format of BERT's pretraining records, and whether files hold to it.

Each record is a `tf.train.Example` with the seven features that
`create_pretraining_data.py` of google-research/bert writes.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError

from official_models.common.errors import InputError

MANIFEST = "examples.json"

_SHARD = re.compile(r"examples-\d{5}-of-\d{5}\.tfrecord(\.gz)?")
_CHECK_BATCH = 256


class Field(NamedTuple):
    """One feature: what a record must have."""

    dtype: tf.DType  # int64 or float32
    length: int
    low: int
    high: int  # the largest value


def record_fields(
    max_seq_length: int, max_predictions: int, vocab_size: int
) -> dict[str, Field]:
    """The features of a record, in the order they are written."""
    tokens, predictions = max_seq_length, max_predictions
    return {
        "input_ids": Field(tf.int64, tokens, 0, vocab_size - 1),
        "input_mask": Field(tf.int64, tokens, 0, 1),
        "segment_ids": Field(tf.int64, tokens, 0, 1),
        "masked_lm_positions": Field(tf.int64, predictions, 0, tokens - 1),
        "masked_lm_ids": Field(tf.int64, predictions, 0, vocab_size - 1),
        "masked_lm_weights": Field(tf.float32, predictions, 0, 1),
        "next_sentence_labels": Field(tf.int64, 1, 0, 1),
    }


def parse_records(
    records: tf.Tensor, fields: dict[str, Field]
) -> dict[str, tf.Tensor]:
    """Parses serialized records [B] into int64 and float32 [B, length]."""
    spec = {
        name: tf.io.FixedLenFeature([field.length], field.dtype)
        for name, field in fields.items()
    }
    return tf.io.parse_example(records, spec)


def open_records(path: str | tf.Tensor, compressed: bool) -> tf.data.Dataset:
    """The serialized records of one file, CRC-checked as they are read."""
    return tf.data.TFRecordDataset(path, "GZIP" if compressed else "")


def is_compressed(paths: Sequence[str]) -> bool:
    """Whether the files are gzipped, by their names; all must agree."""
    compressed = {path.endswith(".gz") for path in paths}
    if len(compressed) > 1:
        raise InputError(
            "records: some files are *.gz and some are not; give files of "
            "one kind"
        )
    return compressed.pop()


def find_records(paths: Sequence[str | Path]) -> list[str]:
    """The record files that `paths` mean, sorted and each once.

    Args:
        paths: Files, globs, or folders that `write_records` wrote to; what
            TensorFlow can read, such as `gs://`, will do.

    Raises:
        InputError: If one of them matches no file.
    """
    found = set()
    for path in map(os.fspath, paths):
        if tf.io.gfile.isdir(path):
            pattern = os.path.join(path, "examples-*.tfrecord*")
        else:
            pattern = path
        exists = pattern == path and tf.io.gfile.exists(path)
        matches = [path] if exists else tf.io.gfile.glob(pattern)
        if not matches:
            raise InputError(
                f"no record file {pattern!r}; "
                "python -m official_models.nlp.bert.pretraining.records "
                "writes some"
            )
        found.update(matches)
    if not found:
        raise InputError("no record files given")
    return sorted(found)


def check_records(
    paths: Sequence[str | Path],
    *,
    max_seq_length: int,
    max_predictions: int,
    vocab_size: int,
) -> int:
    """Reads every record of every file and holds it against the format.

    Besides checksums and features this finds a shard of `write_records` that
    is missing or that was cut between two records.

    Args:
        paths: As for `find_records`.
        max_seq_length: T.
        max_predictions: P.
        vocab_size: V.

    Returns:
        The number of examples.

    Raises:
        InputError: Names the file, the record (counted from 0) and what was
            expected.
    """
    fields = record_fields(max_seq_length, max_predictions, vocab_size)
    files = find_records(paths)
    is_compressed(files)
    examples = 0
    for path in files:
        expected = _expected_count(path)
        count = _check_file(path, fields)
        if expected is not None and count != expected:
            raise InputError(
                f"{path}: ends after {count} records; {MANIFEST} beside it "
                f"says {expected}: write the records again"
            )
        examples += count
    return examples


def count_records(path: str) -> int:
    """How many records a file has: by its manifest, else by reading it all.

    Raises:
        InputError: the manifest says that a file is missing, or this one
            cannot be read.
    """
    expected = _expected_count(path)
    if expected is not None:
        return expected
    records = open_records(path, is_compressed([path]))
    try:
        count = int(records.reduce(0, lambda n, _: n + 1))
    except tf.errors.OpError as error:
        raise InputError(f"{path}: {_first_line(error)}") from error
    if not count:
        raise InputError(f"{path}: no record in this file")
    return count


def _expected_count(path: str) -> int | None:
    """What the manifest beside a shard says; None for a foreign file."""
    folder, name = os.path.split(path)
    manifest = os.path.join(folder, MANIFEST)
    if not tf.io.gfile.exists(manifest):
        if _SHARD.fullmatch(name):
            raise InputError(
                f"{path}: {MANIFEST} is missing beside it, so its writer did "
                "not finish: write the records again"
            )
        return None
    try:
        with tf.io.gfile.GFile(manifest, "rb") as file:
            shards = dict(json.loads(file.read())["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{manifest}: damaged ({error}): write the records again"
        ) from error
    for shard in shards:
        if not tf.io.gfile.exists(os.path.join(folder, shard)):
            raise InputError(
                f"{os.path.join(folder, shard)}: missing; {manifest} lists it"
            )
    if _SHARD.fullmatch(name) and name not in shards:
        raise InputError(f"{path}: {manifest} does not list this shard")
    return shards.get(name)


def _check_file(path: str, fields: dict[str, Field]) -> int:
    compressed = is_compressed([path])
    records = open_records(path, compressed)
    in_range = _range_check(tuple(fields.items()))
    count = 0
    try:
        for batch in records.batch(_CHECK_BATCH):
            if not in_range(batch):
                _name_fault(path, records, fields, count)
            count += len(batch)
    # TensorFlow quotes a record that it cannot parse, whatever its bytes.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        _name_fault(path, records, fields, count)
        raise InputError(f"{path}: {_first_line(error)}") from error
    if not count:
        raise InputError(f"{path}: no record in this file")
    if compressed:
        _check_gzip(path, count)
    return count


@functools.lru_cache(maxsize=4)
def _range_check(fields: tuple[tuple[str, Field], ...]) -> Callable:
    """A compiled function: whether all values of records [B] are in range."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def in_range(batch):
        parsed = parse_records(batch, dict(fields))
        return tf.reduce_all(
            [
                tf.reduce_all(
                    (parsed[name] >= tf.cast(field.low, field.dtype))
                    & (parsed[name] <= tf.cast(field.high, field.dtype))
                )
                for name, field in fields
            ]
        )

    return in_range


def _name_fault(path, records, fields, first) -> None:
    """Raises for the first faulty record from number `first` on."""
    number = first
    try:
        for record in records.skip(first):
            fault = _describe_fault(record.numpy(), fields)
            if fault:
                raise InputError(f"{path}: record {number} (from 0): {fault}")
            number += 1
    except tf.errors.OpError as error:
        raise InputError(
            f"{path}: record {number} (from 0): damaged or cut short, or the "
            f"file holds no TFRecords: {_first_line(error)}"
        ) from error


def _describe_fault(record: bytes, fields: dict[str, Field]) -> str | None:
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return "is no tf.train.Example"
    for name, field in fields.items():
        if name not in features:
            return f"feature {name!r} is missing"
        kind = "int64" if field.dtype == tf.int64 else "float"
        values = getattr(features[name], f"{kind}_list").value
        if len(values) != field.length:
            return (
                f"feature {name!r} has {len(values)} {kind} values, expected "
                f"{field.length}"
            )
        for place, value in enumerate(values):
            if not field.low <= value <= field.high:
                return (
                    f"feature {name!r} has {value} at place {place}, expected "
                    f"{field.low} to {field.high}"
                )
    return None


def _check_gzip(path: str, count: int) -> None:
    """Reads to the end for the checksum that TensorFlow does not check."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            stream = gzip.GzipFile(fileobj=file)
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: record {count - 1} (from 0) or what follows it: the "
            f"gzip stream is damaged: {error}"
        ) from error


def _first_line(error: Exception) -> str:
    return (getattr(error, "message", "") or str(error)).strip().split("\n")[0]
