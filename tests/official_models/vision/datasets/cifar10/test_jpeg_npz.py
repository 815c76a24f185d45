"""CIFAR-10 as JPEGs in an .npz: damage is refused and named."""

import zipfile

import numpy as np
import pytest
import tensorflow as tf

from official_models.vision.datasets.cifar10 import load
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10 as tiny


def _write_npz(tmp_path, **changes):
    files = tiny.jpeg_files(5)
    path = tmp_path / load.JPEG_NPZ
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
    refusal(lambda: tiny.load(path), path, *parts)


def test_no_npz(tmp_path):
    path = tmp_path / load.JPEG_NPZ
    np.savez(path, train_jpeg=np.zeros(3, np.uint8))
    refusal(lambda: tiny.load(path), path, "'train_offset' is missing")
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    refusal(lambda: tiny.load(path), path, "no .npz")
    path.write_bytes(b"")
    refusal(lambda: tiny.load(path), path, "no .npz")


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 31, 3)])
def test_images_of_another_shape(tmp_path, shape):
    files = tiny.jpeg_files(5)
    files[3:4] = tiny.jpeg_files(1, shape)
    arrays = tiny.jpeg_arrays(files, files[:2])
    path = _write_npz(tmp_path, **arrays)
    refusal(lambda: tiny.load(path), "train image 3 (from 0) has shape", shape)


def test_corrupt_images_are_named_and_left_out(tmp_path):
    train, test = tiny.jpeg_files(600), tiny.jpeg_files(4)
    # In the second of the batches that are decoded together, too.
    for split, number in ((train, 7), (train, 555), (test, 1)):
        split[number] = b"no JPEG at all"
    path = _write_npz(tmp_path, **tiny.jpeg_arrays(train, test))
    sound = "train image 7 (from 0) cannot be decoded (2 of 600)"
    refusal(lambda: tiny.load(path), path, sound, "at most 0 corrupt")
    refusal(lambda: tiny.load(path, max_corrupt=1), path, sound)
    refusal(
        lambda: tiny.load(path, max_corrupt=2), path, "test image 1 (from 0)"
    )
    splits = tiny.load(path, max_corrupt=3)
    for split, files in zip(splits, (train, test)):
        kept = [i for i, file in enumerate(files) if len(file) > 20]
        decoded = [tf.io.decode_jpeg(files[i]) for i in kept]
        np.testing.assert_array_equal(split.images, decoded)
        assert split.labels.tolist() == [i % 10 for i in kept]


def test_no_image_left(tmp_path):
    arrays = tiny.jpeg_arrays([b"no", b"none"], tiny.jpeg_files(2))
    path = _write_npz(tmp_path, **arrays)
    refusal(lambda: tiny.load(path, max_corrupt=9), path, "(2 of 2)")


def test_npz_checksum_is_compared(tmp_path):
    """A pixel's byte is changed: its JPEG decodes, the archive tells."""
    path = _write_npz(tmp_path)
    content = bytearray(path.read_bytes())
    stream = np.load(path)["train_jpeg"].tobytes()
    content[content.index(stream) + len(stream) - 10] ^= 1
    path.write_bytes(content)
    refusal(lambda: tiny.load(path), path, "train_jpeg", "CRC")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\x93NUMPY", b"\x93NUMPI"),  # ValueError
        (b"'shape'", b"'shap\x00'"),  # SyntaxError or ValueError
        (b"(5,)", b"(05)"),  # SyntaxError
        (b"(5,)", b'(5,"'),  # tokenize.TokenError
        (b"'descr'", b"b'escr'"),  # TypeError
        (b"(5,), }          ", b"(100000000000,), }"[:17]),  # MemoryError
    ],
)
def test_headers_of_arrays_that_make_no_sense(tmp_path, before, after):
    """With a right checksum: the .npz was written so."""
    path = _write_npz(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = members["train_label.npy"]
    assert before in content and len(before) == len(after)
    members["train_label.npy"] = content.replace(before, after, 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refusal(lambda: tiny.load(path), path, "train_label")


@pytest.mark.parametrize("method", [1, 12, 14, 99])
def test_members_of_another_compression(tmp_path, method):
    """The numbers of the local and the central headers say so."""
    path = _write_npz(tmp_path)
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.find(sign)
        while at >= 0:
            content[at + offset] = method
            at = content.find(sign, at + 1)
    path.write_bytes(content)
    refusal(lambda: tiny.load(path), path, "train_jpeg cannot be read")


def test_lzma_with_properties_that_make_no_sense(tmp_path):
    """The one fault that random damage is not likely to find."""
    path = _write_npz(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("train_jpeg.npy", bytes(100))
    content = path.read_bytes()
    at = content.index(b"train_jpeg.npy") + len("train_jpeg.npy")
    path.write_bytes(content[: at + 4] + b"\xff" * 5 + content[at + 4 + 5 :])
    refusal(lambda: tiny.load(path), path, "train_jpeg cannot be read")
