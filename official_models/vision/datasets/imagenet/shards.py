"""ImageNet's TFRecord shards: which there are, and how many records each has.

The files are those of the published TPU format, `train-00000-of-01024` to
`validation-00127-of-00128`. A record on disk is its length (8 bytes), the
length's checksum (4), the data, and the data's checksum (4).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from official_models.common import files
from official_models.common.errors import InputError, first_line
from official_models.vision.datasets.imagenet import corrupt

INDEX = "counts.json"
SPLITS = ("train", "validation")
NUM_CLASSES = 1000
# Of `sample_labels`.
_SAMPLED_SHARDS, _SAMPLED_RECORDS = 8, 16

_NAME = re.compile(r"(train|validation)-(\d{5})-of-(\d{5})")
_HEADER, _FOOTER = 12, 4
# Bytes of a record that is sampled: a length that is damaged may be anything.
_LARGEST = 1 << 26


class Split(NamedTuple):
    """The shards of one split, in the order of their names.

    Attributes:
        paths: One a shard.
        counts: Records in each, int64 [shards].
        firsts: Number of each shard's first record if all records of the
            split are numbered through, int64 [shards].
    """

    paths: list[str]
    counts: np.ndarray
    firsts: np.ndarray

    @property
    def total(self) -> int:
        """Records in all."""
        return int(self.counts.sum())

    def name(self, number: int) -> str:
        """The file and the place in it of a record numbered through."""
        shard = int(np.searchsorted(self.firsts, number, "right")) - 1
        place = number - int(self.firsts[shard])
        return f"{self.paths[shard]}: record {place} (from 0)"


class Shards(NamedTuple):
    """What a folder holds.

    Attributes:
        splits: By the names of `SPLITS`.
        class_names: One a class, such as "n01440764"; None if no index says.
        crc32: Of names, sizes and counts.
    """

    splits: dict[str, Split]
    class_names: list[str] | None
    crc32: int

    @property
    def num_classes(self) -> int:
        """Labels are 1 to this."""
        return len(self.class_names) if self.class_names else NUM_CLASSES


def open_shards(data_dir: str | Path) -> Shards:
    """Finds the shards of a folder and how many records they have.

    The counts are those of `counts.json`, which `convert` writes. If
    there is none, the records are counted by their headers and the file is
    written, should the folder allow it.

    Args:
        data_dir: A folder, or whatever TensorFlow can read, such as `gs://`.

    Raises:
        InputError: Names the shard that is missing, empty, cut short or not
            the one that was counted.
    """
    folder = os.fspath(data_dir)
    paths = {split: find_shards(folder, split) for split in SPLITS}
    sizes = {
        os.path.basename(path): tf.io.gfile.stat(path).length
        for split in SPLITS
        for path in paths[split]
    }
    for name, size in sizes.items():
        if not size:
            raise InputError(
                f"{os.path.join(folder, name)}: empty; fetch or convert this "
                "shard again"
            )
    index = _read_index(folder, sizes)
    if index is None:
        index = {"shards": _count_all(folder, sizes), "class_names": None}
        with contextlib.suppress(InputError):
            write_json(os.path.join(folder, INDEX), index)
    shards = index["shards"]
    splits = {}
    for split in SPLITS:
        names = map(os.path.basename, paths[split])
        counts = np.array([shards[name]["records"] for name in names], np.int64)
        firsts = np.cumsum(counts) - counts
        splits[split] = Split(paths[split], counts, firsts)
    known = sorted((n, x["records"], x["bytes"]) for n, x in shards.items())
    crc32 = zlib.crc32(json.dumps(known).encode())
    return Shards(splits, index["class_names"], crc32)


def sample_labels(found: Shards, label_offset: int, strict: bool = True) -> str:
    """Which labels some training records have, in words.

    Two conventions are in use: labels from 1, as published pipelines write
    them, and from 0.

    Args:
        found: Of `open_shards`.
        label_offset: Is added to the records' labels, which then have to be 1
            to the number of classes.
        strict: Whether labels of the other convention are refused.

    Raises:
        InputError: The labels are out of this range, and in that of another
            offset.
    """
    paths = found.splits["train"].paths
    step = max(len(paths) // _SAMPLED_SHARDS, 1)
    labels = []
    for path in paths[::step][:_SAMPLED_SHARDS]:
        # What is damaged is named when it is read.
        with contextlib.suppress(tf.errors.OpError):
            labels += map(corrupt.label_of, _first_records(path))
    labels = [label for label in labels if label is not None]
    if not labels:
        return "no label in a sample of its records"
    low, high = min(labels), max(labels)
    first, last = 1 - label_offset, found.num_classes - label_offset
    given = f"labels {low} to {high} in a sample of {len(labels)} records"
    flag = f"--label_offset {label_offset}"
    # Other labels are of corrupt records, which are named where they are read.
    for other in (0, 1):
        fits = 1 - other <= low and high <= found.num_classes - other
        if strict and fits and not first <= low <= high <= last:
            raise InputError(
                f"{os.path.dirname(paths[0])}: {given}, expected {first} to "
                f"{last} ({flag}); they begin at {1 - other}: give "
                f"--label_offset {other}"
            )
    return f"{given}, read as {first} to {last} ({flag})"


def _first_records(path: str) -> Iterator[bytes]:
    """Some serialized records, read without TensorFlow's graph or eager mode.

    An Estimator opens its data inside of a graph.
    """
    with _open(path) as file:
        for _ in range(_SAMPLED_RECORDS):
            header = file.read(_HEADER)
            length = int.from_bytes(header[:8], "little")
            if len(header) < _HEADER or length > _LARGEST:
                return
            yield file.read(length)
            file.read(_FOOTER)


def shard_name(split: str, number: int, count: int) -> str:
    """`train-00000-of-01024`."""
    return f"{split}-{number:05d}-of-{count:05d}"


def find_shards(folder: str, split: str) -> list[str]:
    """The paths of a split's shards, sorted.

    Raises:
        InputError: There are none, or one is missing.
    """
    if not tf.io.gfile.isdir(folder):
        raise InputError(f"{folder}: no such folder of ImageNet's TFRecords")
    matches = map(_NAME.fullmatch, tf.io.gfile.listdir(folder))
    found = [m for m in matches if m and m[1] == split]
    if not found:
        raise InputError(
            f"{folder}: no file such as {shard_name(split, 0, 1024)}; "
            "python -m official_models.vision.datasets.imagenet.convert writes "
            "some"
        )
    totals = sorted({int(match[3]) for match in found})
    if len(totals) > 1:
        raise InputError(
            f"{folder}: {split} shards of {totals[0]} and of {totals[1]}; "
            "keep those of one set"
        )
    there = {match[0] for match in found}
    names = [shard_name(split, i, totals[0]) for i in range(totals[0])]
    missing = [name for name in names if name not in there]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{folder}: {len(missing)} of {totals[0]} {split} shards missing: "
            f"{', '.join(missing[:3])}{more}; fetch or convert them"
        )
    return [os.path.join(folder, name) for name in names]


def write_json(path: str, value: dict) -> None:
    """Writes a file under a temporary name, then renames it.

    Raises:
        InputError: It cannot be written.
    """
    try:
        files.write_json(path, value, indent=1)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(
            f"{path}: cannot be written: {first_line(error)}"
        ) from error


def _read_index(folder: str, sizes: dict[str, int]) -> dict | None:
    """The index, held against the sizes of the shards that are there."""
    path = os.path.join(folder, INDEX)
    if not tf.io.gfile.exists(path):
        return None
    try:
        index = files.read_json(path)
        shards, classes = index["shards"], index["class_names"]
        known = {name: x["bytes"] for name, x in shards.items()}
        counts = [x["records"] for x in shards.values()]
        good = all(type(n) is int for n in (*counts, *known.values()))
        # A record has sixteen bytes beside its content.
        good = good and all(
            0 < n <= size // 16 for n, size in zip(counts, known.values())
        )
        good &= classes is None or (
            isinstance(classes, list)
            and bool(classes)
            and all(isinstance(x, str) for x in classes)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise InputError(f"{path}: damaged; remove it to count anew")
    for name in sorted({*known, *sizes}):
        if known.get(name) != sizes.get(name):
            there, listed = (
                f"{n} bytes" if n is not None else "no such shard"
                for n in (sizes.get(name), known.get(name))
            )
            raise InputError(
                f"{os.path.join(folder, name)}: {there}, {path} says {listed}; "
                "fetch or convert the shard again, or remove the index if the "
                "shards are right"
            )
    return index


def _count_all(folder: str, sizes: dict[str, int]) -> dict:
    return {
        name: {
            "records": len(record_starts(os.path.join(folder, name))),
            "bytes": size,
        }
        for name, size in sorted(sizes.items())
    }


def record_starts(path: str) -> np.ndarray:
    """Where the records of a file begin, by their headers: int64 [records].

    Twelve bytes a record are read, and their checksum is checked.

    Raises:
        InputError: Names the first record that is no record.
    """
    starts, headers = [], []
    size = tf.io.gfile.stat(path).length
    place = 0
    with _open(path) as file:
        while place < size:
            file.seek(place)
            header = file.read(_HEADER)
            starts.append(place)
            if len(header) < _HEADER:
                break
            headers.append(header)
            place += _HEADER + int.from_bytes(header[:8], "little") + _FOOTER
    words = np.frombuffer(b"".join(headers), "<u4").reshape(-1, 3)
    good = _masked_crc32c(words[:, :2]) == words[:, 2]
    if not good.all():
        raise InputError(
            f"{path}: record {int(good.argmin())} (from 0): damaged, or the "
            "file holds no TFRecords; fetch or convert the shard again"
        )
    if place != size:
        raise InputError(
            f"{path}: record {len(starts) - 1} (from 0): cut short; fetch or "
            "convert the shard again"
        )
    return np.array(starts, np.int64)


def _open(path: str):
    # Python seeks without reading ahead, which GFile does not.
    if os.path.exists(path):
        return open(path, "rb", buffering=0)
    return tf.io.gfile.GFile(path, "rb")


def _crc32c_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, 0x82F63B78, 0).astype("u4")
    return table


_TABLE = _crc32c_table()


def _masked_crc32c(words: np.ndarray) -> np.ndarray:
    """TFRecord's checksum of each row of uint32 [N, 2], uint32 [N]."""
    data = np.ascontiguousarray(words).view(np.uint8)
    crc = np.full(len(words), 0xFFFFFFFF, np.uint32)
    for column in data.T:
        crc = _TABLE[(crc ^ column) & 255] ^ (crc >> np.uint32(8))
    crc = ~crc
    rotated = (crc >> np.uint32(15)) | (crc << np.uint32(17))
    return rotated + np.uint32(0xA282EAD8)


def name_damage(paths: Sequence[str], error: tf.errors.OpError) -> InputError:
    """Finds the record that TensorFlow could not read.

    Args:
        paths: The shards that were being read.
        error: What it raised; it says where in a file, but not in which.

    Returns:
        An error that names file and record.
    """
    at = re.search(r"record at (\d+)", error.message)
    if at:
        offset = int(at[1])
        for path in paths:
            try:
                starts = record_starts(path)
            except InputError as found:
                return found
            # A fault of the header is said to be at the header, one of the
            # data at the data.
            if {offset, offset - _HEADER} & set(starts.tolist()):
                fault = _first_fault(path)
                if fault:
                    return fault
    return InputError(
        f"a shard cannot be read: {error.message.splitlines()[0]}"
    )


def _first_fault(path: str) -> InputError | None:
    number = 0
    try:
        for _ in tf.data.TFRecordDataset(path):
            number += 1
    except tf.errors.OpError:
        return InputError(
            f"{path}: record {number} (from 0): damaged; its checksum does "
            "not agree; fetch or convert the shard again"
        )
    return None
