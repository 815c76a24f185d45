"""Whether TFRecords are whole and hold to their features."""

from __future__ import annotations

import functools
import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from official_models.common import records
from official_models.common.errors import InputError, first_line
from official_models.common.records import MANIFEST, Field

_CHECK_BATCH = 256


def check(paths: Sequence[str | Path], fields: dict[str, Field]) -> int:
    """Reads every record of every file and holds it against the fields.

    Besides checksums and features this finds a shard of `records.write_set`
    that is missing or that was cut between two records.

    Args:
        paths: As for `records.find`.
        fields: What each record must have.

    Returns:
        The number of examples.

    Raises:
        InputError: Names the file, the record (counted from 0) and what was
            expected.
    """
    found = records.find(paths)
    records.is_compressed(found)
    examples = 0
    for path in found:
        expected = records.expected_count(path)
        count = _check_file(path, fields)
        if expected is not None and count != expected:
            raise InputError(
                f"{path}: ends after {count} records; {MANIFEST} beside it "
                f"says {expected}: write the records again"
            )
        examples += count
    return examples


def _check_file(path: str, fields: dict[str, Field]) -> int:
    compressed = records.is_compressed([path])
    serialized = records.open_file(path, compressed)
    in_range = _range_check(tuple(fields.items()))
    count = 0
    try:
        for batch in serialized.batch(_CHECK_BATCH):
            if not in_range(batch):
                _name_fault(path, serialized, fields, count)
            count += len(batch)
    # TensorFlow quotes a record that it cannot parse, whatever its bytes.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        _name_fault(path, serialized, fields, count)
        raise InputError(f"{path}: {first_line(error)}") from error
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
        parsed = records.parse(batch, dict(fields))
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


def _name_fault(path, serialized, fields, first) -> None:
    """Raises for the first faulty record from number `first` on."""
    number = first
    try:
        for record in serialized.skip(first):
            fault = _describe_fault(record.numpy(), fields)
            if fault:
                raise InputError(f"{path}: record {number} (from 0): {fault}")
            number += 1
    except tf.errors.OpError as error:
        raise InputError(
            f"{path}: record {number} (from 0): damaged or cut short, or the "
            f"file holds no TFRecords: {first_line(error)}"
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
