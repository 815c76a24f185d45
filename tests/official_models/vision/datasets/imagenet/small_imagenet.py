"""ImageNet in small: pictures of noise, and shards of them."""

import io
import json

import numpy as np
import tensorflow as tf
from PIL import Image

WIDTH, HEIGHT = 24, 18


def jpeg(seed, size=(WIDTH, HEIGHT), mode="RGB", kind="JPEG"):
    """A picture of a few blurred colours, encoded."""
    rng = np.random.default_rng(seed)
    channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[mode]
    pixels = rng.integers(0, 256, (4, 5, *channels), np.uint8)
    image = Image.fromarray(pixels, mode).resize(size, Image.BICUBIC)
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return out.getvalue()


def example(image, label, name="x.JPEG"):
    """A serialized record; None leaves a feature out."""
    made = tf.train.Example()
    feature = made.features.feature
    if image is not None:
        feature["image/encoded"].bytes_list.value.append(image)
    if label is not None:
        feature["image/class/label"].int64_list.value.append(label)
    feature["image/filename"].bytes_list.value.append(name.encode())
    return made.SerializeToString()


def write(folder, train=24, validation=10, shards=(4, 2), classes=None):
    """Shards whose records have the labels 1, 2, ... in turn.

    Args:
        folder: Made.
        train: Records.
        validation: Records.
        shards: Files of each split.
        classes: Names for an index; None for no index.
    """
    folder.mkdir(exist_ok=True)
    for split, total, count in zip(
        ("train", "validation"), (train, validation), shards
    ):
        for i in range(count):
            rewrite(
                folder / f"{split}-{i:05d}-of-{count:05d}",
                [
                    example(jpeg(1000 * len(split) + n), n + 1, f"{n}.JPEG")
                    for n in range(i, total, count)
                ],
            )
    if classes:
        index = {
            "class_names": classes,
            "shards": {
                path.name: {
                    "records": len(records(path)),
                    "bytes": path.stat().st_size,
                }
                for path in folder.iterdir()
            },
        }
        (folder / "counts.json").write_text(json.dumps(index))
    return folder


def records(path):
    """The serialized records of a file."""
    return [r.numpy() for r in tf.data.TFRecordDataset(str(path))]


def rewrite(path, serialized):
    """Writes a file of records; an index beside it has to go."""
    (path.parent / "counts.json").unlink(missing_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
