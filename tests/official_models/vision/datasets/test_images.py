"""Labelled images: checksums and splits; what every source offers."""

import numpy as np
import pytest

from official_models.vision.datasets import images as image_sets
from official_models.vision.datasets import in_memory
from official_models.vision.datasets.imagenet import batches
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10 as tiny


def test_split_is_random_and_proportional():
    labels = np.repeat([3, 5], [90, 10])
    train, rest = image_sets.stratified_split(labels, 50, seed=1)
    assert sorted([*train, *rest]) == list(range(100))
    assert np.bincount(labels[train]).tolist() == [0, 0, 0, 45, 0, 5]
    other, _ = image_sets.stratified_split(labels, 50, seed=2)
    assert set(train) != set(other)
    assert (np.diff(train) < 0).any()


def test_checksum_sees_images_and_labels():
    train, _ = tiny.expected()
    images = image_sets.LabelledImages(*train, ())
    changed = images.images.copy()
    changed[3, 2, 1, 0] ^= 1
    others = (
        images._replace(images=changed),
        images._replace(labels=(images.labels + 1) % 10),
    )
    assert len({i.checksum() for i in (images, *others)}) == 3


@pytest.mark.parametrize(
    "source", [in_memory.InMemoryImages, batches.ImageNetRecords]
)
def test_sources_have_what_the_protocol_names(source):
    for name, member in vars(image_sets.ImageSource).items():
        if not name.startswith("_") and callable(member):
            code = getattr(source, name).__code__
            assert (
                code.co_varnames[: code.co_argcount]
                == (member.__code__.co_varnames[: member.__code__.co_argcount])
            )
