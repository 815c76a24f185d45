"""CIFAR-10: the format that is there is found, or fetched."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from official_models.vision.datasets.cifar10 import load, read
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10 as tiny


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_binary_version(tmp_path, folder):
    tiny.write_binary(tmp_path / folder)
    tiny.assert_expected(tiny.load(tmp_path))


@pytest.mark.parametrize("archive", read.ARCHIVES)
def test_archives(tmp_path, archive):
    folder = read.ARCHIVES[archive]
    names = read.FOLDERS[folder]
    binary = names == read.BINARY
    content = tiny.binary_file if binary else tiny.python2_file
    tiny.write_archive(tmp_path / archive, folder, names, content)
    tiny.assert_expected(tiny.load(tmp_path))
    tiny.assert_expected(tiny.load(tmp_path / archive))


def test_jpegs_in_an_npz(tmp_path):
    train, test = tiny.jpeg_files(12, seed=1), tiny.jpeg_files(5, seed=2)
    path = tmp_path / load.JPEG_NPZ
    np.savez(path, **tiny.jpeg_arrays(train, test))
    for given in (path, str(tmp_path)):
        for split, files in zip(tiny.load(given), (train, test)):
            decoded = [tf.io.decode_jpeg(file) for file in files]
            np.testing.assert_array_equal(split.images, decoded)
            assert split.labels.tolist() == [i % 10 for i in range(len(files))]
            assert split.labels.dtype == np.int32
            assert split.class_names == tuple(tiny.CLASSES)


def test_nothing_there(tmp_path):
    refusal(lambda: tiny.load(tmp_path / "none"), tmp_path / "none", "no such")
    refusal(lambda: tiny.load(tmp_path), tmp_path, "data_batch_1.bin", "npz")
    other = tmp_path / "notes.txt"
    other.write_text("x")
    refusal(lambda: tiny.load(other), other, "no CIFAR-10 there")


# Fetched


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The archive at a URL of this machine, and an empty cache."""
    path = tmp_path / "web" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    tiny.write_archive(
        path, "cifar-10-batches-bin", read.BINARY, tiny.binary_file
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(load, "_URL", path.as_uri())
    monkeypatch.setattr(load, "_SHA256", digest)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def test_fetched_once(published, tmp_path):
    tiny.assert_expected(tiny.load(""))
    kept = tmp_path / "cache" / "tf_lamb"
    assert [p.name for p in kept.iterdir()] == [published.name]
    published.unlink()
    tiny.assert_expected(tiny.load(""))


def test_another_file_than_published_is_refused(published, tmp_path):
    published.write_bytes(published.read_bytes()[:-1])
    refusal(lambda: tiny.load(""), "SHA-256", published.as_uri(), "--data_dir")
    assert not list((tmp_path / "cache" / "tf_lamb").iterdir())


def test_without_a_network_it_says_what_to_fetch(published, tmp_path):
    published.unlink()
    refusal(
        lambda: tiny.load(""),
        "cannot be fetched",
        published.as_uri(),
        "--data_dir",
    )
    assert not list((tmp_path / "cache" / "tf_lamb").iterdir())


def test_a_cache_that_cannot_be_written_is_named(published, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    refusal(lambda: tiny.load(""), tmp_path / "cache")
