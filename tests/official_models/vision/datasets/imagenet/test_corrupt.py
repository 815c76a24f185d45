"""Shards and records that are not as they should be are named."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.vision.datasets.imagenet import corrupt, shards
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets.imagenet import (
    small_imagenet as small,
)
from tests.official_models.vision.datasets.imagenet.test_batches import (
    assert_same,
    batches,
    joined,
    read_all,
    source,
)

TRAIN_1 = "train-00001-of-00004"


@pytest.fixture
def fresh(tmp_path):
    """24 training images in 4 shards, 10 for evaluation in 2, no index."""
    return small.write(tmp_path / "data")


# Shards


def test_counting_leaves_an_index(fresh):
    made = source(fresh)
    index = json.loads((fresh / "counts.json").read_text())
    assert index["shards"][TRAIN_1]["records"] == 6
    assert source(fresh).identity() == made.identity()
    assert not list(fresh.glob("*.tmp"))


def test_names_of_classes_come_from_the_index(tmp_path):
    names = [f"n{i:02d}" for i in range(24)]
    made = source(small.write(tmp_path / "data", classes=names))
    assert (made.num_classes, made.class_names) == (24, names)
    names = names[:20]
    made = source(small.write(tmp_path / "few", classes=names))
    refusal(lambda: read_all(made), "expected 1 to 20")


def test_missing_shards(fresh):
    refusal(lambda: source(fresh / "no"), fresh / "no")
    (fresh / TRAIN_1).unlink()
    refusal(lambda: source(fresh), fresh, TRAIN_1, "1 of 4")
    for path in fresh.glob("train-*"):
        path.unlink()
    refusal(lambda: source(fresh), fresh, "train-00000-of-01024")


def test_shards_of_two_sets(fresh):
    (fresh / TRAIN_1).rename(fresh / "train-00001-of-00005")
    refusal(lambda: source(fresh), "of 4 and of 5")


def test_empty_shard(fresh):
    (fresh / TRAIN_1).write_bytes(b"")
    refusal(lambda: source(fresh), fresh / TRAIN_1, "empty")


def test_shard_of_another_size_than_was_counted(fresh):
    source(fresh)
    path = fresh / TRAIN_1
    path.write_bytes(path.read_bytes()[:-1])
    refusal(lambda: source(fresh), path, "counts.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"shards": {}}', "\udcff"])
def test_damaged_index(fresh, text):
    (fresh / "counts.json").write_bytes(text.encode(errors="surrogateescape"))
    refusal(lambda: source(fresh), fresh / "counts.json")


def test_no_truncation_passes(fresh):
    path = fresh / TRAIN_1
    whole = path.read_bytes()
    starts = shards.record_starts(str(path)).tolist()
    assert len(starts) == 6 and starts[0] == 0
    for cut in (1, 11, 12, starts[2] - 1, starts[2] + 5, len(whole) - 4):
        path.write_bytes(whole[:cut])
        number = sum(start < cut for start in starts) - 1
        refusal(lambda: source(fresh), path, f"record {number} (from 0)")


def test_damaged_header(fresh):
    path = fresh / TRAIN_1
    whole = path.read_bytes()
    start = int(shards.record_starts(str(path))[3])
    for place in range(12):
        broken = bytearray(whole)
        broken[start + place] ^= 1 << place % 8
        path.write_bytes(broken)
        refusal(lambda: source(fresh), path, "record 3 (from 0)")


@pytest.mark.parametrize("place", [0, 9, 12, 200, -1])
def test_damage_after_counting_is_named(fresh, place):
    made = source(fresh)
    path = fresh / TRAIN_1
    start, end = shards.record_starts(str(path))[3:5]
    broken = bytearray(path.read_bytes())
    broken[(start if place >= 0 else end) + place] ^= 4
    path.write_bytes(broken)
    refusal(lambda: read_all(made), path, "record 3 (from 0)")


def test_shard_that_ends_sooner_than_was_counted(fresh):
    made = source(fresh)
    path = fresh / TRAIN_1
    end = int(shards.record_starts(str(path))[5])
    path.write_bytes(path.read_bytes()[:end])
    refusal(lambda: read_all(made), path, "record 5 (from 0)", "missing")


# Records

FAULTS = {
    "cut": (small.jpeg(0)[:-30], 3, ["'bad.JPEG'", "cut short"]),
    "png": (small.jpeg(0, kind="PNG"), 3, ["'bad.JPEG'", "PNG"]),
    "text": (b"<html>", 3, ["no JPEG", "3c68746d"]),
    "nothing": (b"", 3, ["no JPEG", "nothing"]),
    "header": (b"\xff\xd8\xff\xe0", 3, ["damaged"]),
    "label -1": (small.jpeg(0), -1, ["'bad.JPEG'", "label -1", "1 to 1000"]),
    "label 1001": (small.jpeg(0), 1001, ["label 1001", "1 to 1000"]),
    "no label": (small.jpeg(0), None, ["'image/class/label'", "0 int64"]),
    "no image": (None, 3, ["'image/encoded'", "0 bytes"]),
}


def damage(folder, record, name=TRAIN_1, place=2):
    path = folder / name
    records = small.records(path)
    records[place] = record
    small.rewrite(path, records)
    return f"{path}: record {place} (from 0)"


@pytest.mark.parametrize("fault", FAULTS)
def test_corrupt_record_is_named(fresh, fault):
    image, label, parts = FAULTS[fault]
    name = damage(fresh, small.example(image, label, "bad.JPEG"))
    made = source(fresh)
    refusal(lambda: read_all(made), name, "max_corrupt is 0", *parts)


def test_labels_from_0_are_refused_at_the_start(fresh):
    for path in fresh.glob("*-of-*"):
        found = [tf.train.Example.FromString(r) for r in small.records(path)]
        for example in found:
            example.features.feature["image/class/label"].int64_list.value[
                0
            ] -= 1
        small.rewrite(path, [x.SerializeToString() for x in found])
    refusal(
        lambda: source(fresh),
        *(fresh, "labels 0 to 23 in a sample of 24", "expected 1 to 1000"),
        "they begin at 0: give --label_offset 1",
    )
    made = source(fresh, label_offset=1)
    assert "labels 0 to 23" in made.description
    assert {*np.concatenate([y for _, y in read_all(made)])} == {*range(24)}
    # A corrupt record is one, where some are allowed.
    assert "read as 1 to 1000" in source(fresh, max_corrupt=1).description


def test_no_example(fresh):
    name = damage(fresh, b"\xff\xff no protocol buffer")
    refusal(lambda: read_all(source(fresh)), name, "tf.train.Example")


def test_fit_stops_at_a_corrupt_record(fresh):
    name = damage(fresh, small.example(b"", 3))
    made = source(fresh)
    model = keras.Sequential(
        [
            keras.Input(made.image_shape),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1000),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)

    def fit():
        with made.reporting_corrupt():
            model.fit(made.train(0, 3), verbose=0)

    refusal(fit, name, "no JPEG")


def test_other_errors_are_left_alone(fresh):
    with pytest.raises(tf.errors.UnavailableError):
        with source(fresh).reporting_corrupt():
            raise tf.errors.UnavailableError(None, None, "of the network")


def test_next_image_takes_the_place_of_a_corrupt_one(fresh):
    clean = batches(source(fresh).train(0, 6))
    label = 10  # the third of the second of four shards
    damage(fresh, small.example(b"", label))
    made = source(fresh, max_corrupt=1)
    found = batches(made.train(0, 6))
    replaced = 0
    for (images, labels), (was, of) in zip(found, clean):
        bad = of == label - 1
        np.testing.assert_array_equal(images[~bad], was[~bad])
        np.testing.assert_array_equal(labels[~bad], of[~bad])
        for row in np.flatnonzero(bad):
            replaced += 1
            after = (row + 1) % len(of)
            np.testing.assert_array_equal(images[row], was[after])
            assert labels[row] == of[after]
    # Once an epoch, counted once.
    assert replaced == 2 and len(made.corrupt.names) == 1
    assert_same(batches(source(fresh, max_corrupt=1).train(4, 6)), found[4:])


def test_corrupt_evaluation_image_has_no_weight(fresh):
    name = damage(fresh, small.example(b"", 5), "validation-00000-of-00002")
    made = source(fresh, max_corrupt=1, evaluation_batch_size=4)
    found = batches(made.evaluation())
    good = joined(found, 1)[joined(found, 2) == 1]
    assert sorted(good) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert list(made.corrupt.names) == [name]


def test_a_batch_of_nothing_but_corrupt_records(fresh):
    for path in fresh.glob("train-*"):
        small.rewrite(path, [small.example(b"", 1)] * 6)
    made = source(fresh, max_corrupt=100)
    refusal(lambda: read_all(made), "whole batch", "train-0000", "no JPEG")


def test_counting_goes_on_with_the_run(fresh, tmp_path):
    first = damage(fresh, small.example(b"", 1))
    file = tmp_path / "corrupt.txt"
    arguments = {"corrupt_file": file, "max_corrupt": 1}
    read_all(source(fresh, **arguments))
    assert file.read_text().startswith(first + "\t'x.JPEG': no JPEG")
    # The same one does not count again, a second one does.
    read_all(source(fresh, **arguments))
    second = damage(fresh, small.example(b"", 1), place=4)
    refusal(lambda: read_all(source(fresh, **arguments)), second, "2 corrupt")
    refusal(lambda: source(fresh, **arguments), "2 corrupt")
    read_all(source(fresh, corrupt_file=file, max_corrupt=2))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_decoded(fresh, mode):
    damage(fresh, small.example(small.jpeg(0, mode=mode), 3))
    made = source(fresh)
    assert np.isfinite(joined(read_all(made), 0)).all()
    assert not made.corrupt.names


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"batch": 25}, ["global_batch_size 25", "1 to 24"]),
        ({"batch": 0}, ["global_batch_size 0"]),
        ({"reader": (2, 2)}, ["reader 2 of 2"]),
        ({"reader": (0, 3)}, ["global_batch_size 8", "reader 0 of 3"]),
        ({"seed": 2**32}, ["seed"]),
        ({"resize": "area"}, ["'area'", "bicubic"]),
        ({"image_size": 0}, ["image_size 0"]),
        ({"shuffle_buffer": 0}, ["shuffle_buffer 0"]),
        ({"central_fraction": 1.5}, ["central_fraction 1.5"]),
        ({"max_corrupt": -1}, ["max_corrupt -1"]),
    ],
)
def test_arguments(fresh, arguments, parts):
    refusal(lambda: source(fresh, **arguments), *parts)


def test_steps(fresh):
    made = source(fresh)
    for first, last in ((-1, 2), (2, 2), (3, 1)):
        refusal(lambda f=first, n=last: made.train(f, n), "first < last")


def test_rows_that_take_the_place_of_others():
    rows = tf.range(5)
    for valid, expected in (
        ("11111", "01234"),
        ("01010", "11331"),
        ("00001", "44444"),
        ("10000", "00000"),
    ):
        mask = tf.constant([c == "1" for c in valid])
        found = corrupt.without_invalid(rows[:, None], rows, mask)
        for tensor in found:
            assert "".join(map(str, tensor.numpy().ravel())) == expected
