"""Labelled images as JPEGs in one .npz.

Keys, for the splits "train" and "test": `<split>_jpeg` uint8 [bytes], the
files end to end; `<split>_offset` int [N + 1], where each begins, the last
being the number of bytes; `<split>_label` int [N]; and `classes` str [K].

The zip format carries a CRC-32 of each array and it is checked, so damage to
the .npz is found. A JPEG that was already damaged when the .npz was written is
another matter: JPEG has no checksum, and `tf.io.decode_jpeg` refuses a file
that is cut short or whose headers are broken, but decodes changed image data
to wrong pixels, at most with a line on stderr.
"""

from __future__ import annotations

import io
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from official_models.common.errors import InputError, first_line

_DECODE_BATCH = 512
# What zipfile raises for a damaged archive.
_ZIP_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted member, a compression that is unknown
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
# What numpy.lib.format raises for a header that was written so: it parses the
# header as Python, and allocates what it says.
_HEADER_FAULTS = (
    ValueError,
    TypeError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
)


def read_archive(
    path: Path, *, image_shape: tuple[int, int, int], max_corrupt: int = 0
) -> tuple[tuple, tuple, tuple[str, ...]]:
    """Reads and decodes all images of both splits.

    Args:
        path: The .npz.
        image_shape: [H, W, C] that every image must have.
        max_corrupt: How many images of both splits may be undecodable or of
            another shape; they are left out.

    Returns:
        ((images uint8 [N, H, W, C], labels int32 [N]) of train, the same of
        test, class names).

    Raises:
        InputError: Names the array, or the split and the image, that is wrong.
    """
    arrays = _load_arrays(path)
    classes = arrays["classes"]
    if classes.dtype.kind != "U" or classes.ndim != 1 or not classes.size:
        raise InputError(f"{path}: classes is no list of strings")
    splits = []
    for split in ("train", "test"):
        labels = _labels(path, split, arrays, len(classes))
        images, kept, faults = _decode(
            _cut(path, split, arrays), image_shape, f"{path}: {split} image "
        )
        if len(faults) > max_corrupt or not kept.size:
            more = f" ({len(faults)} of {len(labels)})" * (len(faults) > 1)
            raise InputError(
                f"{faults[0]}{more}; expected a JPEG of {image_shape}, at "
                f"most {max_corrupt} corrupt"
            )
        max_corrupt -= len(faults)
        splits.append((images, labels[kept]))
    return splits[0], splits[1], tuple(str(name) for name in classes)


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    names = [
        f"{split}_{part}"
        for split in ("train", "test")
        for part in ("jpeg", "offset", "label")
    ]
    arrays = {}
    name = "its index"
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (*names, "classes"):
                # All of a member, because its CRC-32 is compared at its end,
                # and before anything in it is believed.
                content = io.BytesIO(archive.read(f"{name}.npy"))
                arrays[name] = np.lib.format.read_array(
                    content, allow_pickle=False
                )
    except KeyError as error:
        raise InputError(
            f"{path}: array {name!r} is missing; expected "
            f"{', '.join(names)} and classes"
        ) from error
    except (*_ZIP_FAULTS, *_HEADER_FAULTS) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"{path}: {name} cannot be read: {reason}; damaged or no .npz"
        ) from error
    return arrays


def _labels(path, split, arrays, num_classes) -> np.ndarray:
    labels = arrays[f"{split}_label"]
    offset = arrays[f"{split}_offset"]
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
        raise InputError(f"{path}: {split}_label is no list of integers")
    if offset.shape != (len(labels) + 1,):
        raise InputError(
            f"{path}: {split}_offset has shape {offset.shape}, expected "
            f"({len(labels) + 1},): one more than {split}_label"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise InputError(
            f"{path}: {split}_label {wrong[0]} (from 0) is "
            f"{labels[wrong[0]]}, expected 0 to {num_classes - 1}"
        )
    return labels.astype(np.int32)


def _cut(path, split, arrays) -> list[bytes]:
    """The JPEG files of a split."""
    stream, offset = arrays[f"{split}_jpeg"], arrays[f"{split}_offset"]
    if stream.dtype != np.uint8 or stream.ndim != 1:
        raise InputError(f"{path}: {split}_jpeg is no uint8 [bytes]")
    if offset.dtype.kind not in "iu":
        raise InputError(f"{path}: {split}_offset is no list of integers")
    wrong = np.flatnonzero(offset[1:] <= offset[:-1])
    if wrong.size:
        i = wrong[0]
        raise InputError(
            f"{path}: {split}_offset goes from {offset[i]} to {offset[i + 1]} "
            f"at image {i} (from 0), expected ascending"
        )
    if offset[0] != 0 or offset[-1] != len(stream):
        raise InputError(
            f"{path}: {split}_offset is {offset[0]} to {offset[-1]}, expected "
            f"0 to {len(stream)}, the length of {split}_jpeg"
        )
    content = stream.tobytes()
    ends = offset.tolist()
    return [content[i:j] for i, j in zip(ends, ends[1:])]


def _decode(
    files: Sequence[bytes], image_shape: tuple[int, int, int], what: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images of what can be decoded, their numbers, and the faults."""
    images = np.zeros((len(files), *image_shape), np.uint8)
    numbers = np.arange(len(files))
    dataset = tf.data.Dataset.from_tensor_slices(files).map(
        lambda file: tf.ensure_shape(tf.io.decode_jpeg(file), image_shape),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    done = 0
    try:
        for batch in dataset.batch(_DECODE_BATCH):
            images[done : done + len(batch)] = batch
            done += len(batch)
        return images, numbers, []
    except tf.errors.InvalidArgumentError:
        return _decode_singly(files, done, images, what)


def _decode_singly(files, done, images, what):
    """Continues from image `done`, one after the other, past the faults."""
    faults = []
    kept = np.ones(len(files), bool)
    for i in range(done, len(files)):
        try:
            image = tf.io.decode_jpeg(files[i]).numpy()
            if image.shape == images.shape[1:]:
                images[i] = image
                continue
            fault = f"has shape {image.shape}"
        except tf.errors.InvalidArgumentError:
            fault = "cannot be decoded"
        kept[i] = False
        faults.append(f"{what}{i} (from 0) {fault}")
    return images[kept], np.flatnonzero(kept), faults
