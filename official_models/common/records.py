"""TFRecords of fixed features: written in sets, read from any step on.

A set is several files `examples-00000-of-00008.tfrecord`, gzipped or not, and
a manifest that lists how many records each has. `record_check` holds files
against their features.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from official_models.common import files, readers
from official_models.common.errors import InputError, first_line
from official_models.common.readers import Reader

MANIFEST = "examples.json"

_SHARD = re.compile(r"examples-\d{5}-of-\d{5}\.tfrecord(\.gz)?")
_SHUFFLE_BUFFER = 16384
_OPEN_SHARDS = 8


class Field(NamedTuple):
    """One feature: what a record must have.

    Attributes:
        dtype: int64 or float32.
        length: Number of values; None for a scalar.
        low: The smallest value there may be.
        high: The largest.
    """

    dtype: tf.DType
    length: int | None
    low: int = -(2**63)
    high: int = 2**63 - 1


def serialize(
    row: Mapping[str, Sequence[float]], floats: Collection[str] = ()
) -> bytes:
    """A `tf.train.Example` of one row, the same bytes for the same row.

    Args:
        row: {feature: its values}.
        floats: Which features are float32; the others are int64.
    """
    example = tf.train.Example()
    for name, values in row.items():
        feature = example.features.feature[name]
        kind = feature.float_list if name in floats else feature.int64_list
        kind.value.extend(values)
    # A map of protobuf has no order of its own.
    return example.SerializeToString(deterministic=True)


def parse(
    serialized: tf.Tensor, fields: Mapping[str, Field]
) -> dict[str, tf.Tensor]:
    """Parses serialized records [B] into int64 and float32 [B, length].

    Scalars become [B].
    """
    spec = {
        name: tf.io.FixedLenFeature(
            [] if field.length is None else [field.length], field.dtype
        )
        for name, field in fields.items()
    }
    return tf.io.parse_example(serialized, spec)


def as_int32(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The same features, int64 as int32."""
    return {
        name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
        for name, value in features.items()
    }


def shard_name(number: int, count: int, compression: str = "none") -> str:
    """`examples-00000-of-00008.tfrecord`, or `.tfrecord.gz`."""
    suffix = {"none": ".tfrecord", "gzip": ".tfrecord.gz"}[compression]
    return f"examples-{number:05d}-of-{count:05d}{suffix}"


# Writing


def write_set(
    examples: Iterable[bytes],
    output_dir: Path,
    sizes: dict[str, int],
    manifest: dict,
) -> list[Path]:
    """Writes several files of records, dealing the examples to them in turn.

    The files appear when all are complete, and the manifest, which lists how
    many records each has, after them: a writer that is killed leaves nothing
    that `check` accepts.

    Args:
        examples: Serialized, as many as `sizes` says together.
        output_dir: Must hold no such files yet.
        sizes: {file name, of the form `shard_name`: its number of records}.
        manifest: What else it is to say, JSON values.

    Returns:
        The files.

    Raises:
        InputError: There are such files already.
        OSError, tf.errors.OpError: One cannot be written.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    present = sorted(output_dir.glob("examples*"))
    if present:
        raise InputError(
            f"{present[0]} is in the way: remove the examples of an earlier "
            "run or choose another --output_dir"
        )
    compression = "GZIP" if is_compressed(list(sizes)) else ""
    with tempfile.TemporaryDirectory(
        prefix=files.TEMPORARY, dir=output_dir
    ) as folder:
        partial = Path(folder)
        writers = [
            tf.io.TFRecordWriter(str(partial / name), compression)
            for name in sizes
        ]
        total = sum(sizes.values())
        progress = tqdm(examples, total=total, unit=" examples", disable=None)
        for number, example in enumerate(progress):
            writers[number % len(writers)].write(example)
        for writer in writers:
            writer.close()
        files.write_json(partial / MANIFEST, {"shards": sizes, **manifest})
        for name in (*sizes, MANIFEST):
            os.replace(partial / name, output_dir / name)
    return [output_dir / name for name in sizes]


# Finding and counting


def open_file(path: str | tf.Tensor, compressed: bool) -> tf.data.Dataset:
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


def find(paths: Sequence[str | Path], remedy: str = "") -> list[str]:
    """The record files that `paths` mean, sorted and each once.

    Args:
        paths: Files, globs, or folders that `write_set` wrote to; what
            TensorFlow can read, such as `gs://`, will do.
        remedy: What writes some; the end of the message.

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
            end = f"; {remedy}" if remedy else ""
            raise InputError(f"no record file {pattern!r}{end}")
        found.update(matches)
    if not found:
        raise InputError("no record files given")
    return sorted(found)


def count(path: str) -> int:
    """How many records a file has: by its manifest, else by reading it all.

    Raises:
        InputError: the manifest says that a file is missing, or this one
            cannot be read.
    """
    expected = expected_count(path)
    if expected is not None:
        return expected
    records = open_file(path, is_compressed([path]))
    try:
        found = int(records.reduce(0, lambda n, _: n + 1))
    except tf.errors.OpError as error:
        raise InputError(f"{path}: {first_line(error)}") from error
    if not found:
        raise InputError(f"{path}: no record in this file")
    return found


def expected_count(path: str) -> int | None:
    """What the manifest beside a shard says; None for a foreign file.

    Raises:
        InputError: The manifest is missing or damaged, or says that a file is
            missing.
    """
    folder, name = os.path.split(path)
    manifest = os.path.join(folder, MANIFEST)
    if not tf.io.gfile.exists(manifest):
        if _SHARD.fullmatch(name):
            raise InputError(
                f"{path}: {MANIFEST} is missing beside it, so its writer did "
                "not finish: write the records again"
            )
        return None
    remedy = "damaged: write the records again"
    listed = files.read_json(manifest, remedy)
    try:
        shards = dict(listed["shards"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{manifest}: no 'shards' in it; {remedy}") from error
    for shard in shards:
        if not tf.io.gfile.exists(os.path.join(folder, shard)):
            raise InputError(
                f"{os.path.join(folder, shard)}: missing; {manifest} lists it"
            )
    if _SHARD.fullmatch(name) and name not in shards:
        raise InputError(f"{path}: {manifest} does not list this shard")
    return shards.get(name)


# Reading


def read(
    paths: Sequence[str],
    finish: Callable[[tf.Tensor], Any],
    *,
    batch_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    shuffle: bool,
    examples: int,
    reader: Reader = readers.ALONE,
) -> tf.data.Dataset:
    """Batches number `first_step` to `last_step` - 1 of an endless run.

    The order is a function of the files, `batch_size`, `seed` and TensorFlow's
    global seed, so a run resumed at step k sees the batches that an
    uninterrupted one would. Each epoch has every example once, shuffled
    through a buffer over shards in random order; batches may straddle epochs.

    Args:
        paths: As `find` gives them.
        finish: Makes of the serialized records of a batch, string [B / count],
            what is handed out.
        batch_size: B, of all readers.
        first_step: Number of the first batch, from 0.
        last_step: Number after the last batch's.
        seed: In [0, 2**32).
        shuffle: False keeps the order of the files, every epoch.
        examples: Records of all files.
        reader: (index, count); it reads all records, and parses its rows only.

    Raises:
        InputError: An argument is out of range.
    """
    readers.check_steps(first_step, last_step)
    readers.check_seed(seed)
    rows = readers.rows_of(reader, batch_size)
    # Whole epochs are passed over without reading them.
    epoch, skipped = divmod(first_step * batch_size, examples)
    epochs = tf.data.Dataset.range(epoch, np.iinfo(np.int64).max)
    dataset = epochs.flat_map(
        lambda epoch: _epoch(paths, tf.stack([seed, epoch]), shuffle)
    )
    dataset = dataset.skip(skipped).batch(batch_size, drop_remainder=True)
    dataset = dataset.take(last_step - first_step).map(
        lambda serialized: finish(serialized[rows]),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    known = tf.data.experimental.assert_cardinality(last_step - first_step)
    return dataset.apply(known).prefetch(tf.data.AUTOTUNE)


def _epoch(paths, seed, shuffle) -> tf.data.Dataset:
    """All serialized records once; `seed` is int64 [2]."""
    compressed = is_compressed(paths)
    if not shuffle:
        return open_file(tf.constant(paths), compressed)
    order_seed, buffer_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 2)
    )
    shards = tf.random.experimental.stateless_shuffle(paths, order_seed)
    dataset = tf.data.Dataset.from_tensor_slices(shards).interleave(
        lambda shard: open_file(shard, compressed),
        cycle_length=min(len(paths), _OPEN_SHARDS),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    graph = tf.compat.v1.get_default_graph()
    if graph.seed == 0:
        # shuffle() compares seeds of 0 as Python numbers, which a tensor is
        # not.
        graph.seed = 2**30
    return dataset.shuffle(
        _SHUFFLE_BUFFER,
        seed=tf.cast(buffer_seed[0], tf.int64),
        reshuffle_each_iteration=False,
    )
