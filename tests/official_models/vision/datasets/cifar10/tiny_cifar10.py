"""CIFAR-10's formats in small, for the tests: a few images a file."""

import io
import pickle
import struct
import tarfile

import numpy as np
import tensorflow as tf

from official_models.vision.datasets.cifar10 import read
from official_models.vision.datasets.cifar10.load import load_cifar10

EXAMPLES = 3  # in each of the six files
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def examples(number):
    """Rows uint8 [EXAMPLES, 3072] and labels of batch file `number`."""
    rng = np.random.default_rng(number)
    rows = rng.integers(0, 256, (EXAMPLES, 3072), np.uint8)
    return rows, rng.integers(0, 10, EXAMPLES)


def expected():
    """((train images, labels), (test images, labels)) of all six files."""
    parts = []
    for number in range(6):
        rows, labels = examples(number)
        images = np.stack([row.reshape(3, 1024).T for row in rows])
        parts.append((images.reshape(-1, 32, 32, 3), labels))
    train = tuple(np.concatenate(arrays) for arrays in zip(*parts[:5]))
    return train, parts[5]


def load(path, **arguments):
    """`load_cifar10` of these small files."""
    return load_cifar10(path, **{"examples_per_file": EXAMPLES, **arguments})


def assert_expected(splits):
    """Asserts that what was loaded is what was written."""
    for split, (images, labels) in zip(splits, expected()):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert split.class_names == tuple(CLASSES)


def binary_file(number):
    """A batch file of the binary version."""
    rows, labels = examples(number)
    return b"".join(bytes([k]) + r.tobytes() for r, k in zip(rows, labels))


def python3_file(number, protocol=3, **fields):
    """A batch file of the python version, written again by Python 3."""
    rows, labels = examples(number)
    content = {
        "batch_label": f"batch {number}",
        "labels": labels.tolist(),
        "data": rows,
        "filenames": [f"{i}.png" for i in range(EXAMPLES)],
    }
    return pickle.dumps({**content, **fields}, protocol=protocol)


def python2_file(number):
    """A batch file as Python 2 writes it, which is how they are published."""
    rows, labels = examples(number)
    memo = iter(range(1, 256))

    def kept(opcodes):
        return opcodes + b"q" + bytes([next(memo)])

    def text(word):
        return kept(b"U" + bytes([len(word)]) + word)

    def named(module, name):
        return kept(b"c" + module + b"\n" + name + b"\n")

    integers = b"".join(b"K" + bytes([k]) for k in labels)
    array = (
        named(b"numpy.core.multiarray", b"_reconstruct")
        + named(b"numpy", b"ndarray")
        + kept(b"K\x00\x85")
        + text(b"b")
        + kept(b"\x87")
        + kept(b"R")
        + b"(K\x01"
        + kept(b"K" + bytes([EXAMPLES]) + b"M\x00\x0c\x86")
        + named(b"numpy", b"dtype")
        + text(b"u1")
        + kept(b"K\x00K\x01\x87")
        + kept(b"R")
        + b"(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
        + kept(b"t")
        + b"b\x89"
        + kept(b"T" + struct.pack("<i", rows.size) + rows.tobytes())
        + kept(b"t")
        + b"b"
    )
    return (
        b"\x80\x02"
        + kept(b"}")
        + b"("
        + text(b"batch_label")
        + text(b"batch %d" % number)
        + text(b"labels")
        + kept(b"]")
        + b"("
        + integers
        + b"e"
        + text(b"data")
        + array
        + b"u."
    )


def write_files(folder, names, content):
    """Writes `content(number)` under each of six names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(content(number))


def write_archive(path, folder, names, content):
    """Writes a .tar.gz of the six files in a folder."""
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(names):
            data = content(number)
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_binary(folder):
    """The binary version, unpacked."""
    write_files(folder, read.BINARY, binary_file)


def smooth_images(count, shape=(32, 32, 3), seed=0):
    """Images that JPEG can hold, uint8 [count, *shape]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, shape[2]))
    images = tf.image.resize(coarse, shape[:2], "bicubic").numpy()
    return np.clip(images, 0, 255).astype(np.uint8)


def jpeg_arrays(train, test):
    """The arrays of an .npz of JPEGs.

    Args:
        train: JPEG files, a list of bytes; labels are 0, 1, ..., 9, 0, ...
        test: The same.
    """
    arrays = {"classes": np.array(CLASSES)}
    for split, files in (("train", train), ("test", test)):
        lengths = [len(file) for file in files]
        arrays |= {
            f"{split}_jpeg": np.frombuffer(b"".join(files), np.uint8),
            f"{split}_offset": np.cumsum([0, *lengths]),
            f"{split}_label": (np.arange(len(files)) % 10).astype(np.uint8),
        }
    return arrays


def jpeg_files(count, shape=(32, 32, 3), seed=0):
    """Some images as JPEG files."""
    images = smooth_images(count, shape, seed)
    return [tf.io.encode_jpeg(image).numpy() for image in images]
