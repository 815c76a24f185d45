"""One image file as a JPEG that TensorFlow decodes, and a shard of them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from official_models.common import files
from official_models.common.errors import InputError
from official_models.vision.datasets.imagenet.corrupt import (
    IMAGE,
    LABEL,
    describe_image,
)

_QUALITY = 95
_TENSORFLOW_LOG = re.compile(r"[IWEF]\d{4} |WARNING: All log messages before")


class Encoded(NamedTuple):
    """A picture as it goes into a record.

    Attributes:
        jpeg: Of three colours or of grey.
        height: Pixels.
        width: Pixels.
        reencoded: What it was before; None if it was such a JPEG.
        warning: Of the decoder; None if it had none.
    """

    jpeg: bytes
    height: int
    width: int
    reencoded: str | None
    warning: str | None


def encode(data: bytes) -> Encoded:
    """Decodes an image file, and makes it a JPEG if it is none.

    Args:
        data: Of the file; what Pillow reads.

    Raises:
        ValueError: It cannot be decoded; says why.
    """
    kind = _kind(data)
    jpeg = data
    if kind not in ("JPEG RGB", "JPEG L"):
        jpeg = _as_jpeg(data)
    with _libjpeg_words() as words:
        try:
            # All of it, with the decoder that will read it.
            height, width, _ = tf.io.decode_jpeg(jpeg, channels=3).shape
        except tf.errors.OpError:
            raise ValueError(describe_image(jpeg)) from None
        warning = words()
    reencoded = None if jpeg is data else kind
    return Encoded(jpeg, int(height), int(width), reencoded, warning)


def _kind(data: bytes) -> str:
    """Format and mode, such as "JPEG CMYK"."""
    try:
        with warnings.catch_warnings():
            # Of metadata that nothing here depends on, and of size.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError(
            f"no image of a known format (begins with "
            f"{data[:4].hex() or 'nothing'})"
        ) from None
    except Exception as error:
        # Pillow's readers raise whatever their parsing ran into.
        raise ValueError(f"damaged: {error}") from None
    # Several pictures in one file begin with an ordinary one.
    name = "JPEG" if image.format == "MPO" else image.format
    return f"{name} {image.mode}"


class _Depth(ValueError):
    """A picture whose numbers do not say what white is."""


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8; Pillow would cut off what is above 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise _Depth(
            f"a picture of numbers from {pixels.min():g} to {pixels.max():g}, "
            "expected 8 or 16 bits; save it as such"
        )
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))


def _as_jpeg(data: bytes) -> bytes:
    out = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _with_8_bits(Image.open(io.BytesIO(data))).convert("RGB")
    except _Depth:
        raise
    except Exception as error:
        raise ValueError(f"damaged: {error}") from None
    image.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


@contextlib.contextmanager
def _libjpeg_words() -> Iterator[Callable[[], str | None]]:
    """Catches what libjpeg writes to the process's stderr.

    It is the only way to learn that it continued in spite of corrupt data:
    TensorFlow does not look at its count of warnings.

    Not for a process with several threads: file descriptor 2 is the whole
    process's, so that what another thread writes meanwhile is caught too.
    `convert` runs one image at a time in each of its processes.
    """
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)

        def words():
            caught.seek(0)
            lines = caught.read().decode(errors="replace").splitlines()
            said = [x for x in lines if x and not _TENSORFLOW_LOG.match(x)]
            return said[0].strip() if said else None

        try:
            yield words
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def write_shard(
    raw: str,
    path: str,
    images: Sequence[tuple[str, int, str]],
    max_corrupt: int,
) -> dict:
    """Writes a shard under a temporary name, then renames it.

    Args:
        raw: The folder that the images' paths are below.
        path: Of the shard.
        images: (path, label, synset) of each.
        max_corrupt: Images to leave out at most.

    Returns:
        {"records": their number, "bytes": the file's size, "skipped",
        "reencoded", "warned": lists of "path: what about it"}.

    Raises:
        InputError: There are more corrupt images, none is left, or the file
            cannot be written.
    """
    found = {"skipped": [], "reencoded": [], "warned": []}
    records = 0
    try:
        with files.replacing(path) as temporary:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in _records(raw, images, max_corrupt, found):
                    writer.write(record)
                    records += 1
            if not records:
                raise InputError(
                    f"{path}: none of its {len(images)} images is usable; "
                    "write fewer shards"
                )
            size = os.path.getsize(temporary)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"{path}: cannot be written: {error}") from error
    return {"records": records, "bytes": size, **found}


def _records(
    raw: str,
    images: Sequence[tuple[str, int, str]],
    max_corrupt: int,
    found: dict[str, list[str]],
) -> Iterator[bytes]:
    """Records of the images that are usable; the rest is noted in `found`."""
    for name, label, synset in images:
        try:
            with open(os.path.join(raw, name), "rb") as stream:
                encoded = encode(stream.read())
        except (OSError, ValueError) as error:
            found["skipped"].append(f"{name}: {error}")
            check_skipped(raw, found["skipped"], max_corrupt)
            continue
        if encoded.reencoded:
            found["reencoded"].append(f"{name}: {encoded.reencoded}")
        if encoded.warning:
            found["warned"].append(f"{name}: {encoded.warning}")
        yield _example(encoded, name, label, synset)


def check_skipped(raw: str, skipped: list[str], max_corrupt: int) -> None:
    """Raises `InputError` if more images were left out than may be."""
    if len(skipped) > max_corrupt:
        raise InputError(
            f"{os.path.join(raw, skipped[-1])}; {len(skipped)} corrupt, "
            f"--max_corrupt is {max_corrupt}: repair or remove the images, or "
            "raise it"
        )


def _example(encoded: Encoded, name: str, label: int, synset: str) -> bytes:
    example = tf.train.Example()
    feature = example.features.feature
    for key, value in (
        (IMAGE, encoded.jpeg),
        ("image/class/synset", synset.encode()),
        ("image/filename", os.path.basename(name).encode()),
        ("image/colorspace", b"RGB"),
        ("image/format", b"JPEG"),
    ):
        feature[key].bytes_list.value.append(value)
    for key, value in (
        (LABEL, label),
        ("image/height", encoded.height),
        ("image/width", encoded.width),
        ("image/channels", 3),
    ):
        feature[key].int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)
