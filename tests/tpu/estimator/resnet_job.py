"""A tiny ResNet job: its records and its command."""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.tpu.estimator import job_process

SIZE, CLASSES, TRAIN, VALIDATION = 32, 8, 24, 10


def _record(rng, label: int) -> bytes:
    # Classes differ in colour, so that there is something to learn.
    mean = 40 + 25 * np.array([label, 7 - label, label % 3 * 3])
    pixels = rng.normal(mean, 30, (40, 36, 3)).clip(0, 255).astype("uint8")
    made = tf.train.Example()
    feature = made.features.feature
    feature["image/encoded"].bytes_list.value.append(
        tf.io.encode_jpeg(pixels, quality=95).numpy()
    )
    feature["image/class/label"].int64_list.value.append(label + 1)
    return made.SerializeToString()


def write_records(folder: Path) -> None:
    """`folder/data`: shards of both splits, and their `counts.json`."""
    rng, shards = np.random.default_rng(1), {}
    data = folder / "data"
    data.mkdir()
    for split, total, count in (
        ("train", TRAIN, 2),
        ("validation", VALIDATION, 2),
    ):
        for i in range(count):
            path = data / f"{split}-{i:05d}-of-{count:05d}"
            records = [_record(rng, n % CLASSES) for n in range(i, total, 2)]
            with tf.io.TFRecordWriter(str(path)) as writer:
                for record in records:
                    writer.write(record)
            shards[path.name] = {
                "records": len(records),
                "bytes": path.stat().st_size,
            }
    names = [f"n{label:08d}" for label in range(CLASSES)]
    index = {"class_names": names, "shards": shards}
    (data / "counts.json").write_text(json.dumps(index))


def command(folder: Path, run: str, *arguments) -> list[str]:
    """The command of one job that writes to `folder/run`."""
    return [
        *(sys.executable, "-m", "tpu.resnet_imagenet"),
        *("--data_dir", str(folder / "data")),
        *("--model_dir", str(folder / run)),
        *("--resnet_depth=18", "--width=4", f"--image_size={SIZE}"),
        *("--train_batch_size=8", "--eval_batch_size=8"),
        *("--learning_rate=0.02", "--warmup_epochs=1"),
        *map(str, arguments),
    ]


def run(*arguments) -> str:
    """Runs a `command` to its end; gives what it printed."""
    return job_process.run(command(*arguments))
