"""Fashion-MNIST, in MNIST's own format, at half the resolution."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from benchmarks.enough_steps.runs import Split
from official_models.common import files
from official_models.common.errors import InputError

DEBIAN = "/usr/share/datasets/fashion-mnist"
HELD_OUT = 6_000  # of the training images, to choose rates by
_HOW = (
    "expected Fashion-MNIST's four files as published, such as those of "
    "Debian's package dataset-fashion-mnist"
)


def read(path: Path) -> np.ndarray:
    """The array of an idx file of bytes, gzipped: uint8, of its own shape.

    Raises:
        InputError: There is no such file, it is damaged, or of another form.
    """
    content = files.read_bytes(path, _HOW)
    try:
        content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not gzip ({error}); {_HOW}") from None
    axes = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or axes not in (1, 3):
        raise InputError(f"{path}: no idx file of bytes; {_HOW}")
    shape = (
        np.frombuffer(content, ">u4", axes, 4) if _has(content, axes) else ()
    )
    values = np.frombuffer(
        content, "uint8", offset=min(4 + 4 * axes, len(content))
    )
    if not len(shape) or values.size != np.prod(shape, dtype="int64"):
        raise InputError(
            f"{path}: {values.size:,} bytes behind its head, which says "
            f"{tuple(map(int, shape))}; {_HOW}"
        )
    return values.reshape(shape)


def _has(content: bytes, axes: int) -> bool:
    return len(content) >= 4 + 4 * axes


def _part(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    images = read(folder / f"{name}-images-idx3-ubyte.gz")
    labels = read(folder / f"{name}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (28, 28) or images.shape[:1] != labels.shape:
        raise InputError(
            f"{folder}: {name} has images {images.shape} and labels "
            f"{labels.shape}; {_HOW}"
        )
    halves = images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return halves.round().astype("uint8"), labels.astype("int32")


def load(folder: str) -> tuple[Split, Split]:
    """Both splits: all training images beside the test's, and for rates.

    Args:
        folder: Of the four files.

    Returns:
        One to report by; one without the test images, whose last `HELD_OUT`
        training images are held out.

    Raises:
        InputError: A file is missing or damaged.
    """
    images, labels = _part(Path(folder), "train")
    all_of_it = Split((images, labels), _part(Path(folder), "t10k"))
    first, rest = slice(None, -HELD_OUT), slice(-HELD_OUT, None)
    tuning = Split((images[first], labels[first]), (images[rest], labels[rest]))
    return all_of_it, tuning
