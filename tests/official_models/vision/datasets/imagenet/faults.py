"""Damages shards and JPEGs at random and counts what comes of it.

    python -m tests.official_models.vision.datasets.imagenet.faults

Half of the files are shards of TFRecords, read by the pipeline: with and
without an index, and damaged after it was opened. The other half are raw
JPEGs, given to the converter. A file is cut at a random byte or has one to
three random bytes replaced.

A JPEG has no checksum. Where a replaced byte leaves the stream decodable,
nobody who has not seen the original can tell.
"""

import argparse
import collections
import io
import json
import os
import random
import tempfile
from pathlib import Path

import matplotlib.cbook
import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks import measure
from official_models.common.errors import InputError
from official_models.vision.datasets.imagenet import (
    batches,
    convert,
)
from official_models.vision.datasets.imagenet import (
    shards as shard_files,
)
from tests.official_models.vision.datasets.imagenet import (
    small_imagenet as small,
)
from tests.robustness import damage

MODULE = "tests.official_models.vision.datasets.imagenet.faults"
REFUSED, SKIPPED = "refused", "skipped and counted"
UNCHANGED, NAMED = "unchanged data", "different pixels, named by a warning"
SILENT, CRASHED = "silently different pixels", "crashed"
OUTCOMES = (REFUSED, SKIPPED, UNCHANGED, NAMED, SILENT, CRASHED)
SHARD = "train-00001-of-00003"
SITUATIONS = ("no index", "index", "after opening")


def damaged(data, rng):
    """(kind, bytes): cut, or with one to three bytes replaced."""
    if rng.randrange(2):
        return "cut", damage.cut(data, rng)

    def replace(content, rng):
        return damage.scatter(content, rng, rng.randint(1, 3))

    return "bytes", damage.certainly(replace, data, rng)


def photographs(count, rng):
    """JPEGs of parts of a photograph, 200 x 150 pixels."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    found = []
    for _ in range(count):
        left = rng.randrange(photo.width - 300)
        top = rng.randrange(photo.height - 225)
        part = photo.crop((left, top, left + 300, top + 225))
        out = io.BytesIO()
        part.resize((200, 150)).save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found


class Shards:
    """A set of shards, one of which is damaged again and again."""

    def __init__(self, folder):
        self.folder = small.write(folder, 18, 4, (3, 1))
        self.path = folder / SHARD
        self.whole = self.path.read_bytes()
        self.source = batches.ImageNetRecords(
            folder, 6, 1, image_size=8, max_corrupt=0
        )
        self.index = (folder / shard_files.INDEX).read_bytes()
        self.dataset = self.source.train(0, 3)
        self.clean = self._read()

    def _read(self):
        return [[t.numpy() for t in batch] for batch in self.dataset]

    def outcome(self, data, situation):
        """What the pipeline makes of the shard with these bytes."""
        self.source.corrupt.names.clear()
        self.source.corrupt.refused = None
        self.path.write_bytes(data)
        index = self.folder / shard_files.INDEX
        index.write_bytes(self.index)
        if situation == "no index":
            index.unlink()
        try:
            if situation != "after opening":
                shard_files.open_shards(self.folder)
            with self.source.reporting_corrupt():
                found = self._read()
        except InputError as error:
            # Only what names the file is worth the name.
            return REFUSED if SHARD in str(error) else CRASHED
        except Exception:
            return CRASHED
        if self.source.corrupt.names:
            return SKIPPED
        same = len(found) == len(self.clean) and all(
            np.array_equal(a, b)
            for ours, theirs in zip(found, self.clean)
            for a, b in zip(ours, theirs)
        )
        return UNCHANGED if same else SILENT


def shard_outcomes(count, folder, rng):
    """Counts by (what, kind of damage) and outcome."""
    shards = Shards(folder)
    counts = collections.defaultdict(collections.Counter)
    for i in range(count):
        situation = SITUATIONS[i % len(SITUATIONS)]
        kind, data = damaged(shards.whole, rng)
        outcome = shards.outcome(data, situation)
        counts[f"TFRecords, {situation}", kind][outcome] += 1
    return counts


def jpeg_outcomes(count, folder, rng):
    """The same of raw JPEGs, in one conversion."""
    raw, out = folder / "raw", folder / "out"
    (raw / "train" / "n01").mkdir(parents=True)
    (raw / "validation" / "n01").mkdir(parents=True)
    originals = photographs(8, rng)
    (raw / "validation" / "n01" / "good.JPEG").write_bytes(originals[0])
    (raw / "train" / "n01" / "good.JPEG").write_bytes(originals[0])
    files = {}
    for i in range(count):
        kind, data = damaged(originals[i % 8], rng)
        files[f"{i}.JPEG"] = kind, originals[i % 8]
        (raw / "train" / "n01" / f"{i}.JPEG").write_bytes(data)
    counts = collections.defaultdict(collections.Counter)
    convert.convert(
        raw, out, train_shards=1, validation_shards=1, max_corrupt=count
    )
    index = json.loads((out / shard_files.INDEX).read_text())
    shard = index["shards"]["train-00000-of-00001"]
    skipped, warned = (
        {os.path.basename(line.partition(":")[0]) for line in shard[what]}
        for what in ("skipped", "warned")
    )
    written = {}
    for record in small.records(out / "train-00000-of-00001"):
        feature = tf.train.Example.FromString(record).features.feature
        name = feature["image/filename"].bytes_list.value[0].decode()
        written[name] = feature["image/encoded"].bytes_list.value[0]
    for name, (kind, original) in files.items():
        if name in skipped:
            outcome = SKIPPED
        elif _same_pixels(written[name], original):
            outcome = UNCHANGED
        else:
            outcome = NAMED if name in warned else SILENT
        counts["raw JPEGs", kind][outcome] += 1
    return counts


def _same_pixels(data, original):
    ours, theirs = (
        tf.io.decode_jpeg(x, channels=3).numpy() for x in (data, original)
    )
    return np.array_equal(ours, theirs)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON; default: none")
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        shards = args.files // 2
        counts = shard_outcomes(shards, Path(folder) / "shards", rng)
        counts |= jpeg_outcomes(args.files - shards, Path(folder), rng)
    rows = [
        {
            "files": what,
            "damage": kind,
            **{o: counts[what, kind][o] for o in OUTCOMES},
        }
        for what, kind in sorted(counts)
    ]
    if args.output:
        value = dict(provenance=measure.provenance(seed=args.seed), rows=rows)
        measure.write_json(args.output, value)
    head = ["files", "damage", *OUTCOMES]
    print(measure.table(head, [[row[key] for key in head] for row in rows]))


if __name__ == "__main__":
    main()
