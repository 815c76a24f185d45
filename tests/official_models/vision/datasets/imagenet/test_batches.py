"""ImageNet's batches: which images, how they are cut, what is refused."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from official_models.vision.datasets.imagenet import (
    batches as imagenet_batches,
)
from official_models.vision.datasets.imagenet import (
    decode,
)
from tests.official_models.vision.datasets.imagenet import (
    small_imagenet as small,
)

SIZE = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 training images in 4 shards, 10 for evaluation in 2, no index."""
    return small.write(tmp_path_factory.mktemp("imagenet") / "data")


@pytest.fixture
def fresh(tmp_path):
    """The same, to be damaged."""
    return small.write(tmp_path / "data")


def source(folder, batch=8, seed=3, **arguments):
    arguments = {"image_size": SIZE, "shuffle_buffer": 7, **arguments}
    return imagenet_batches.ImageNetRecords(folder, batch, seed, **arguments)


def batches(dataset):
    return [tuple(t.numpy() for t in batch) for batch in dataset]


def joined(found, place):
    return np.concatenate([batch[place] for batch in found])


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a, b)


def read_all(made):
    with made.reporting_corrupt():
        return batches(made.train(0, 3))


# Which images


def test_what_it_says_of_itself(data):
    made = source(data)
    assert (made.num_train, made.num_evaluation) == (24, 10)
    assert made.num_classes == 1000
    assert made.image_shape == (SIZE, SIZE, 3)
    assert made.steps_per_epoch(7) == 3
    assert "24 training and 10 evaluation images" in made.description
    json.dumps(made.identity())
    assert made.identity() != source(data, seed=4).identity()
    for images, labels in made.train(0, 1):
        assert images.shape == (8, SIZE, SIZE, 3)
        assert (images.dtype, labels.dtype) == (tf.float32, tf.int32)


def test_an_epoch_is_every_image_once_in_another_order(data):
    made = source(data)
    labels = joined(batches(made.train(0, 9)), 1).reshape(3, 24)
    for epoch in labels:
        assert sorted(epoch) == list(range(24))
    assert len({tuple(epoch) for epoch in labels}) == 3


@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_run_that_goes_on_sees_the_same_batches(data, first):
    tf.random.set_seed(1)
    # 24 images are two batches of 10: four are left over every epoch.
    whole = batches(source(data, batch=10).train(0, 7))
    # The seed of the program has no say.
    tf.random.set_seed(2)
    rest = batches(source(data, batch=10).train(first, 7))
    assert_same(rest, whole[first:])
    assert not np.array_equal(whole[first][0], whole[first - 1][0])


def test_each_visit_is_cut_anew(data):
    found = batches(source(data, batch=24).train(0, 2))
    images = [x[np.argsort(labels)] for x, labels in found]
    same = (images[0] == images[1]).all(axis=(1, 2, 3))
    assert same.sum() <= 1


@pytest.mark.parametrize("readers", [2, 3])
def test_readers_share_an_epoch(data, readers):
    """By files among two, by records among three."""
    parts = [
        source(data, batch=24, reader=(i, readers), evaluation_batch_size=24)
        for i in range(readers)
    ]
    labels = [joined(batches(p.train(0, 1)), 1) for p in parts]
    assert {len(x) for x in labels} == {24 // readers}
    assert sorted(np.concatenate(labels)) == list(range(24))
    found = [batches(p.evaluation()) for p in parts]
    assert len({len(x) for x in found}) == 1
    good = [joined(x, 1)[joined(x, 2) == 1] for x in found]
    assert sorted(np.concatenate(good)) == list(range(10))


def test_uneven_readers_have_as_many_batches(tmp_path):
    """201 records in two files: one reader repeats what the other has more."""
    small.write(tmp_path / "data", train=201, validation=3)
    for i in range(2):
        made = source(tmp_path / "data", batch=100, reader=(i, 2))
        assert made._orders["train"].shares_files
        labels = joined(batches(made.train(0, 2)), 1)
        assert len(set(labels)) == len(labels) == 100


@pytest.mark.parametrize("reader", [(0, 1), (1, 2), (1, 3)])
def test_cache_changes_nothing(data, reader):
    arguments = {"batch": 6, "reader": reader}
    plain = source(data, **arguments).train(2, 7)
    cached = source(data, cache=True, **arguments).train(2, 7)
    assert_same(batches(cached), batches(plain))


def test_cached_records_are_not_read_again(fresh):
    made = source(fresh, cache=True)
    for path in fresh.glob("train-*"):
        path.unlink()
    assert len(batches(made.train(0, 4))) == 4


def test_evaluation_is_padded_with_weight_zero(data):
    found = batches(source(data, evaluation_batch_size=4).evaluation())
    assert [x[0].shape for x in found] == [(4, SIZE, SIZE, 3)] * 3
    assert joined(found, 2).tolist() == [1] * 10 + [0] * 2
    assert joined(found, 2).dtype == np.float32
    assert sorted(joined(found, 1)[:10]) == list(range(10))


# How they are cut


def picture(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)


def linear(pixels, size):
    """Bilinear resizing, a row at a time, of [H, W, C] to [size, size, C]."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        place = (np.arange(size) + 0.5) * length / size - 0.5
        below = np.floor(place).astype(int)
        share = (place - below).reshape([-1, 1, 1] if not axis else [1, -1, 1])
        low, high = (
            pixels.take(np.clip(below + i, 0, length - 1), axis) for i in (0, 1)
        )
        pixels = low * (1 - share) + high * share
    return pixels


@pytest.mark.parametrize("shape", [(40, 31), (31, 40), (32, 32)])
@pytest.mark.parametrize(
    ("method", "size"), [("bicubic", 56), ("bilinear", 56), ("bilinear", 12)]
)
def test_evaluation_crop(shape, method, size):
    """Pillow's enlarging is the same; its reducing would smooth."""
    data = small.jpeg(5, shape)
    found = decode.evaluation_image(data, size, method, 0.875)
    side = int(0.875 * min(shape))
    left, top = ((n - side + 1) // 2 for n in shape)
    square = picture(data)[top : top + side, left : left + side]
    if method == "bilinear":
        expected = linear(square, size)
    else:
        image = Image.fromarray(square.astype(np.uint8))
        expected = np.asarray(image.resize((size, size), Image.BICUBIC), float)
    difference = np.abs(np.clip(found.numpy(), 0, 255) - expected)
    # Where it was cut, colours are not blurred with what is beyond.
    inner = slice(size // 8, -(size // 8))
    assert difference[inner, inner].max() < 1.5
    assert difference.mean() < 0.6


def test_normalised():
    images = np.random.default_rng(0).uniform(0, 255, (2, 5, 5, 3))
    found = decode.normalised(tf.constant(images, tf.float32))
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = (images / 255 - mean) / deviation
    np.testing.assert_allclose(found, expected, atol=1e-5)


def ramp(width, height):
    """A JPEG whose red is the place from the left, green from the top."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 0 * x], -1).round().astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=100, subsampling=0)
    return out.getvalue()


def crops(data, count, size=16):
    """Where `count` training crops of a ramp are, in shares of its sides.

    Returns:
        left, right, top, bottom and whether it is mirrored, [count] each.
    """
    seeds = tf.data.Dataset.range(count)
    images = seeds.map(
        lambda i: decode.training_image(
            data, tf.stack([i, i * 7]), size, "bilinear"
        )
    )
    found = np.stack([x.numpy() for x in images]) / 255
    red, green = found[..., 0].mean(1), found[..., 1].mean(2)
    mirrored = red[:, 0] > red[:, -1]
    red[mirrored] = red[mirrored, ::-1]
    ends = []
    for line in (red, green):
        # Half a step beyond the centres of the outer pixels.
        step = (line[:, -1] - line[:, 0]) / (size - 1)
        ends += [line[:, 0] - step / 2, line[:, -1] + step / 2]
    return (*ends, mirrored)


def test_training_crops_are_spread_as_they_should_be():
    left, right, top, bottom, mirrored = crops(ramp(256, 192), 400)
    width, height = right - left, bottom - top
    area = width * height
    ratio = width * 256 / (height * 192)
    slack = 0.03
    assert area.min() > 0.08 - slack and area.max() < 1 + slack
    assert ratio.min() > 3 / 4 - 2 * slack and ratio.max() < 4 / 3 + 2 * slack
    assert min(left.min(), top.min()) > -slack
    assert max(right.max(), bottom.max()) < 1 + slack
    # Small and large, to all sides; the central crop is but one of them.
    assert np.quantile(area, 0.1) < 0.25 and np.quantile(area, 0.9) > 0.6
    for low, high in ((left, right), (top, bottom)):
        centre = (low + high) / 2
        assert abs(centre.mean() - 0.5) < 0.03
        assert centre.min() < 0.3 and centre.max() > 0.7
    assert 0.4 < mirrored.mean() < 0.6


def test_without_a_fitting_crop_it_is_the_central_one():
    # 8 % of this strip is more than its height allows.
    left, right, top, bottom, _ = crops(ramp(1600, 40), 20)
    side = int(0.875 * 40)
    np.testing.assert_allclose((right - left) * 1600, side, atol=4)
    np.testing.assert_allclose((left + right) / 2, 0.5, atol=0.01)
    np.testing.assert_allclose(bottom - top, side / 40, atol=0.03)


def test_training_sees_the_labelled_image(tmp_path):
    """A colour for each label survives cropping, shuffling and mirroring."""
    folder = small.write(tmp_path / "data", train=1, shards=(1, 1))
    colours = np.random.default_rng(1).integers(30, 220, (12, 3))
    records = []
    for label, colour in enumerate(colours, 1):
        out = io.BytesIO()
        Image.new("RGB", (20, 20), tuple(map(int, colour))).save(out, "JPEG")
        records.append(small.example(out.getvalue(), label))
    small.rewrite(folder / "train-00000-of-00001", records)
    ((images, labels),) = batches(source(folder, batch=12).train(0, 1))
    expected = (colours - decode.MEAN) / decode.DEVIATION
    np.testing.assert_allclose(
        images.mean((1, 2)), expected[labels], atol=4 / 57
    )
