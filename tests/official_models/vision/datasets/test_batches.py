"""Batches of images in memory: what is in them, and that it stays so."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from official_models.vision.datasets import batches
from official_models.vision.datasets.images import LabelledImages
from tests.official_models.scripts import refusal

N, H, W, C = 50, 6, 5, 3
NAMES = ("a", "b", "c")


def some_images(count=N, seed=0):
    """Images of which no two are alike, labelled by number."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, H, W, C), np.uint8)
    return LabelledImages(pixels, np.arange(count, dtype=np.int32), NAMES)


def training_batches(batch_size=8, seed=3, **arguments):
    return batches.TrainingBatches(some_images(), batch_size, seed, **arguments)


def equal(a, b):
    """Whether two batches are the same arrays."""
    return all(map(np.array_equal, a, b))


# Order


def test_a_batch_depends_on_seed_and_number_only():
    first, second = training_batches(), training_batches()
    backwards = [second[step] for step in reversed(range(13))]
    assert all(map(equal, (first[s] for s in range(13)), backwards[::-1]))
    assert not equal(first[0], training_batches(seed=4)[0])
    assert not equal(first[0], first[1])


def test_crops_depend_on_the_seed():
    """Not the order alone: a batch of all images, put in order."""
    pixels = []
    for seed in (3, 4):
        images, labels = training_batches(N, seed)[0]
        pixels.append(images[np.argsort(labels)])
    assert not np.array_equal(*pixels)


def test_an_epoch_has_each_image_once_and_no_part_batch():
    run = training_batches()
    assert run.steps_per_epoch == 6
    epochs = [
        np.concatenate([run[step][1] for step in range(first, first + 6)])
        for first in (0, 6, 12)
    ]
    for labels in epochs:
        assert len(set(labels)) == len(labels) == 48
        assert (np.diff(labels) < 0).any()
    assert len({tuple(labels) for labels in epochs}) == 3
    # What one epoch leaves out, others use.
    assert set(np.concatenate(epochs)) == set(range(N))


def test_images_keep_their_labels():
    images = some_images()
    run = batches.TrainingBatches(images, 8, 3, padding=0, flip=False)
    for step in range(7):
        batch, labels = run[step]
        np.testing.assert_array_equal(batch, images.images[labels])
        assert batch.dtype == np.uint8 and labels.dtype == np.int32


# Augmentation


def _crops(image, padding, fill):
    """Every crop of one padded image by (row, column, mirrored)."""
    padded = np.empty((H + 2 * padding, W + 2 * padding, C), np.uint8)
    padded[:] = fill
    padded[padding : padding + H, padding : padding + W] = image
    found = {}
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[row : row + H, column : column + W]
            found[crop.tobytes()] = row, column, False
            found[crop[:, ::-1].tobytes()] = row, column, True
    return found


def test_all_crops_occur_and_nothing_else():
    images = some_images(40)
    fill = np.round(images.images.mean((0, 1, 2)))
    crops = [_crops(image, 2, fill) for image in images.images]
    run = batches.TrainingBatches(images, 40, 0, padding=2)
    seen = Counter()
    for step in range(50):
        batch, labels = run[step]
        for image, label in zip(batch, labels):
            seen[crops[label][image.tobytes()]] += 1
    assert len(seen) == 5 * 5 * 2
    # 2,000 draws of 50 equal chances: mean 40, deviation 6.3.
    assert 10 < min(seen.values()) and max(seen.values()) < 75


@pytest.mark.parametrize("padding, flip", [(3, False), (0, True)])
def test_crops_and_mirrors_alone(padding, flip):
    images = some_images()
    fill = np.round(images.images.mean((0, 1, 2)))
    run = batches.TrainingBatches(images, 50, 0, padding=padding, flip=flip)
    seen = set()
    for step in range(8):
        for image, label in zip(*run[step]):
            crops = _crops(images.images[label], padding, fill)
            seen.add(crops[image.tobytes()])
    sides = 2 * padding + 1
    assert len({(row, column) for row, column, _ in seen}) == sides**2
    assert {mirrored for _, _, mirrored in seen} == {False, flip}


def test_more_images_than_are_cropped_together():
    images = some_images(600)
    fill = np.round(images.images.mean((0, 1, 2)))
    run = batches.TrainingBatches(images, 600, 0, padding=1)
    for image, label in zip(*run[0]):
        assert image.tobytes() in _crops(images.images[label], 1, fill)


# Hosts


@pytest.mark.parametrize("count", [2, 4])
def test_readers_have_slices_of_the_global_batch(count):
    runs = [training_batches(reader=(index, count)) for index in range(count)]
    for step in (0, 5, 6, 11):
        parts = [run[step] for run in runs]
        whole = (np.concatenate(arrays) for arrays in zip(*parts))
        assert equal(whole, training_batches()[step])


def test_evaluation_readers_have_slices_of_the_global_batch():
    images = some_images()
    statistics = batches.channel_statistics(images.images)

    def run(*reader):
        return batches.evaluation_batches(images, statistics, 8, *reader)

    parts = [list(run((index, 2))) for index in range(2)]
    for whole, *halves in zip(run(), *parts):
        assert equal(whole, (np.concatenate(a) for a in zip(*halves)))


# Datasets


def test_dataset_is_normalised_and_resumes():
    run = training_batches()
    whole = list(run.dataset(0, 12))
    assert len(whole) == 12
    resumed = list(training_batches().dataset(5, 12))
    assert all(map(equal, whole[5:], resumed))
    pixels = some_images().images.astype(np.float64)
    mean, deviation = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    for step, (images, labels) in enumerate(whole):
        expected, expected_labels = run[step]
        np.testing.assert_allclose(
            images, (expected - mean) / deviation, atol=1e-5
        )
        np.testing.assert_array_equal(labels, expected_labels)
    assert run.dataset(0, 1).element_spec == (
        tf.TensorSpec([8, H, W, C], tf.float32),
        tf.TensorSpec([8], tf.int32),
    )


def test_padding_is_the_mean():
    """To within the rounding of a pixel's value."""
    images = some_images(4)._replace(
        images=np.full((4, H, W, C), 77, np.uint8),
    )
    images.images[0, ..., 0] = 9
    run = batches.TrainingBatches(images, 4, 0, padding=30, flip=False)
    values = np.stack([images for images, _ in run.dataset(0, 4)])
    empty = np.abs(values).max((2, 3, 4)) < 0.5 / run.statistics.deviation[0]
    assert empty.any()


def test_channels_that_never_change():
    statistics = batches.channel_statistics(np.full((2, 4, 4, 1), 9, np.uint8))
    assert statistics.mean.tolist() == [9] and statistics.deviation == [1]


def test_statistics_of_manysome_images():
    pixels = some_images(1000).images
    statistics = batches.channel_statistics(pixels)
    np.testing.assert_allclose(statistics.mean, pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(
        statistics.deviation, pixels.std((0, 1, 2)), rtol=1e-6
    )


@pytest.mark.parametrize("count, sizes", [(16, [8, 8]), (19, [8, 8, 3])])
def test_evaluation_has_every_image_once(count, sizes):
    images = some_images(count)
    statistics = batches.channel_statistics(some_images().images)
    run = batches.evaluation_batches(images, statistics, 8)
    assert run.element_spec == (
        tf.TensorSpec([8, H, W, C], tf.float32),
        tf.TensorSpec([8], tf.int32),
        tf.TensorSpec([8], tf.float32),
    )
    found = [[array.numpy() for array in batch] for batch in run]
    assert [weight.sum() for _, _, weight in found] == sizes
    pixels, labels, weights = map(np.concatenate, zip(*found))
    assert labels[weights == 1].tolist() == list(range(count))
    mean, deviation = statistics
    np.testing.assert_allclose(
        pixels[weights == 1], (images.images - mean) / deviation, atol=1e-5
    )


# Bad input


def test_bad_arguments():
    refusal(lambda: training_batches(51), "global_batch_size 51", "1 to 50")
    refusal(lambda: training_batches(0), "global_batch_size 0")
    refusal(lambda: training_batches(seed=2**32), "seed 4294967296")
    refusal(lambda: training_batches(seed=-1), "seed -1")
    refusal(lambda: training_batches(padding=-1), "padding -1")
    for reader in ((2, 2), (-1, 2), (0, 3), (0, 0)):
        refusal(
            lambda r=reader: training_batches(reader=r),
            f"reader {reader[0]} of",
        )
    refusal(lambda: training_batches().dataset(3, 3), "steps 3 to 3")
    refusal(lambda: training_batches().dataset(-1, 3), "steps -1 to 3")
