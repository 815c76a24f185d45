"""CIFAR-10's published versions: read, and refused where damaged."""

import pickle

import numpy as np
import pytest

from official_models.vision.datasets.cifar10 import read
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10 as tiny


def test_python_version_as_published(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    tiny.write_files(folder, read.PYTHON, tiny.python2_file)
    tiny.assert_expected(tiny.load(tmp_path))
    tiny.assert_expected(tiny.load(folder))
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
    tiny.assert_expected(tiny.load(tmp_path))


def test_python_version_with_keys_of_bytes(tmp_path):
    def content(number):
        fields = pickle.loads(tiny.python3_file(number))
        return pickle.dumps({k.encode(): v for k, v in fields.items()})

    tiny.write_files(tmp_path, read.PYTHON, content)
    tiny.assert_expected(tiny.load(tmp_path))


@pytest.mark.parametrize("name", ["data_batch_4.bin", "test_batch.bin"])
def test_a_file_is_missing_or_empty(tmp_path, name):
    tiny.write_binary(tmp_path)
    (tmp_path / name).write_bytes(b"")
    refusal(lambda: tiny.load(tmp_path), tmp_path / name, "empty")
    (tmp_path / name).unlink()
    refusal(lambda: tiny.load(tmp_path), tmp_path / name, "No such file")


def test_binary_file_of_another_length(tmp_path):
    tiny.write_binary(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refusal(lambda: tiny.load(tmp_path), path, "9218 bytes", "multiple of 3073")
    # Cut between two rows.
    path.write_bytes(content[:3073])
    refusal(lambda: tiny.load(tmp_path), path, "1 examples, expected 3")
    assert len(tiny.load(tmp_path, examples_per_file=0)[0].labels) == 13


def test_binary_label_out_of_range(tmp_path):
    tiny.write_binary(tmp_path)
    path = tmp_path / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[2 * 3073] = 10
    path.write_bytes(content)
    refusal(lambda: tiny.load(tmp_path), path, "example 2 (from 0)", "label 10")


def test_archive_of_something_else(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    names = [f"{i}.txt" for i in range(6)]
    tiny.write_archive(path, "other", names, tiny.binary_file)
    refusal(lambda: tiny.load(path), path, "cifar-10-batches-bin")
    names = ("train.bin", *read.BINARY[1:])
    tiny.write_archive(path, "cifar-10-batches-bin", names, tiny.binary_file)
    refusal(lambda: tiny.load(path), path, "data_batch_1.bin is missing")


def test_archive_checksum_is_compared(tmp_path):
    """Of the gzip stream, which stands after all that tar reads."""
    path = tmp_path / "cifar-10-python.tar.gz"
    tiny.write_archive(
        path, "cifar-10-batches-py", read.PYTHON, tiny.python2_file
    )
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    refusal(lambda: tiny.load(path), path, "CRC")


def test_md5(tmp_path, monkeypatch):
    tiny.write_files(tmp_path, read.PYTHON, tiny.python2_file)
    refusal(
        lambda: tiny.load(tmp_path, check_md5=True),
        tmp_path / "data_batch_1",
        read.PUBLISHED_MD5["data_batch_1"],
    )
    binary = tmp_path / "binary"
    tiny.write_binary(binary)
    refusal(lambda: tiny.load(binary, check_md5=True), "no MD5 is published")
    npz = tmp_path / "images.npz"
    npz.write_bytes(b"x")
    refusal(lambda: tiny.load(npz, check_md5=True), "no MD5 is published")


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
    refusal(lambda: tiny.load(tmp_path), tmp_path / "data_batch_1", *parts)
