"""CIFAR-10 as published: the binary and the python version.

https://www.cs.toronto.edu/~kriz/cifar.html

What a damaged file shows depends on its format. The archives (.tar.gz) carry a
CRC-32 of all they hold and it is checked. The unpacked files carry none: a
wrong length, an impossible label or a broken structure is refused, but a
changed pixel, or a label changed to another, cannot be seen. The MD5 of a
published file tells; `check_md5` compares it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from official_models.common.errors import InputError
from official_models.vision.datasets.cifar10.unpickle import read_pickle

BINARY = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PYTHON = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
FOLDERS = {"cifar-10-batches-bin": BINARY, "cifar-10-batches-py": PYTHON}
ARCHIVES = {
    "cifar-10-binary.tar.gz": "cifar-10-batches-bin",
    "cifar-10-python.tar.gz": "cifar-10-batches-py",
}
# Of the archives as their page gives them, of the files as in common use.
PUBLISHED_MD5 = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

_PIXELS = 3 * 32 * 32
_NUM_CLASSES = 10
_Arrays = tuple[np.ndarray, np.ndarray]  # uint8 [N, 32, 32, 3], int32 [N]


def find_published(data_dir: Path) -> Path | None:
    """The folder of batch files, or the archive, at or in `data_dir`."""
    if data_dir.is_file():
        return data_dir if data_dir.name.endswith(".tar.gz") else None
    for folder in (data_dir, *(data_dir / name for name in FOLDERS)):
        if any((folder / name).exists() for name in BINARY + PYTHON):
            return folder
    for name in ARCHIVES:
        if (data_dir / name).exists():
            return data_dir / name
    return None


def read_published(
    path: Path, *, examples_per_file: int, check_md5: bool
) -> tuple[_Arrays, _Arrays]:
    """Reads what `find_published` found.

    Args:
        path: A folder of batch files or an archive.
        examples_per_file: What every batch file must hold; 0 takes any.
        check_md5: Whether files must have the MD5 of the published ones.

    Returns:
        Training and test images uint8 [N, 32, 32, 3] and labels int32 [N].

    Raises:
        InputError: Names the file and what is wrong with it.
    """
    if path.is_file():
        names, read = _open_archive(path, check_md5)
    else:
        binary = any((path / name).exists() for name in BINARY)
        names = BINARY if binary else PYTHON

        def read(name):
            return _read_file(path / name, check_md5)

    parse = _parse_binary if names == BINARY else _parse_python
    parts = []
    for name in names:
        where = path / name
        images, labels = parse(read(name), where)
        if examples_per_file and len(labels) != examples_per_file:
            raise InputError(
                f"{where}: {len(labels)} examples, expected "
                f"{examples_per_file}: cut short or another data set"
            )
        parts.append((images, labels))
    train = tuple(np.concatenate(arrays) for arrays in zip(*parts[:5]))
    return train, parts[5]


def _read_file(path: Path, check_md5: bool) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; CIFAR-10 has data_batch_1 to "
            "data_batch_5 and test_batch: unpack the archive again"
        ) from error
    if not content:
        raise InputError(f"{path}: empty; unpack the archive again")
    if check_md5:
        _compare_md5(path, content)
    return content


def _compare_md5(path: Path, content: bytes) -> None:
    expected = PUBLISHED_MD5.get(path.name)
    if expected is None:
        raise InputError(
            f"{path}: no MD5 is published for this file; give the archive, "
            f"{' or '.join(ARCHIVES)}, or do without the check"
        )
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise InputError(
            f"{path}: its MD5 is {found}, the published file's {expected}: "
            "damaged or rewritten; fetch it again or do without the check"
        )


def _open_archive(
    path: Path, check_md5: bool
) -> tuple[tuple[str, ...], Callable[[str], bytes]]:
    """Names of the batch files in an archive, and what reads one of them."""
    content = _read_file(path, check_md5)
    try:
        # To its end, because the checksum of a gzip stream stands there.
        archive = tarfile.open(
            fileobj=io.BytesIO(gzip.decompress(content)), mode="r:"
        )
        members = {m.name: m for m in archive.getmembers() if m.isreg()}
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            f"{path}: damaged or no .tar.gz ({error}); fetch it again"
        ) from error
    for folder, names in FOLDERS.items():
        if any(f"{folder}/{name}" in members for name in names):
            break
    else:
        raise InputError(f"{path}: holds none of {', '.join(FOLDERS)}")

    def read(name):
        member = members.get(f"{folder}/{name}")
        if member is None:
            raise InputError(f"{path}: {folder}/{name} is missing in it")
        return archive.extractfile(member).read()

    return names, read


def _parse_binary(content: bytes, where: Path) -> _Arrays:
    row = 1 + _PIXELS
    if not content or len(content) % row:
        raise InputError(
            f"{where}: {len(content)} bytes, expected a multiple of {row} "
            "(a label and 3,072 pixels a row): cut short or another format"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return _as_images(rows[:, 1:], rows[:, 0], where)


def _parse_python(content: bytes, where: Path) -> _Arrays:
    try:
        fields = read_pickle(content)
    except ValueError as error:
        raise InputError(
            f"{where}: no batch file of CIFAR-10's python version: {error}"
        ) from error
    # Of Python 2, whose texts are bytes, or written so by Python 3.
    data = fields.get("data", fields.get(b"data"))
    labels = fields.get("labels", fields.get(b"labels"))
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != _PIXELS
    ):
        shape = getattr(data, "shape", type(data).__name__)
        raise InputError(
            f"{where}: 'data' is {shape}, expected uint8 [N, {_PIXELS}]"
        )
    if isinstance(labels, list) and all(type(i) is int for i in labels):
        # As objects, because an integer of a pickle may have any length.
        labels = np.array(labels, object)
    if not isinstance(labels, np.ndarray) or labels.ndim != 1:
        raise InputError(f"{where}: 'labels' is no list of integers")
    if not 0 < len(labels) == len(data):
        raise InputError(
            f"{where}: {len(data)} images and {len(labels)} labels, expected "
            "as many of each, and at least one"
        )
    return _as_images(data, labels, where)


def _as_images(rows: np.ndarray, labels: np.ndarray, where: Path) -> _Arrays:
    """Rows [N, 3072], channel by channel, as images [N, 32, 32, 3]."""
    wrong = np.flatnonzero((labels < 0) | (labels >= _NUM_CLASSES))
    if wrong.size:
        raise InputError(
            f"{where}: example {wrong[0]} (from 0) has label "
            f"{labels[wrong[0]]}, expected 0 to {_NUM_CLASSES - 1}: damaged "
            "or another data set"
        )
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)
