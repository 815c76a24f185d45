r"""Writes ImageNet's raw images, or any tree of classes, as TFRecord shards.

    python -m official_models.vision.datasets.imagenet.convert \
        --raw imagenet --output_dir tfrecords

`--raw` holds train/n01440764/*.JPEG and so on, and validation/ (or val/) with
the same folders, or with all images side by side and --validation_labels, the
published list of one synset a line in the order of the files' names. Labels
are 1 to the number of classes, by the sorted names of the training folders.

A conversion that was interrupted resumes with the shards that are not there.
JPEGs are copied as they are; what is no JPEG of three colours or of grey is
made one. An image that cannot be decoded is left out, up to --max_corrupt of
them; one that decodes with a warning is kept and named in counts.json. A JPEG
has no checksum and may be damaged without a sign: hold the archives against
their published MD5 before. From then on the records' checksums watch.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from official_models.common import errors, files, processes
from official_models.common.errors import InputError
from official_models.vision.datasets.imagenet import shards as shard_files
from official_models.vision.datasets.imagenet.encode import (
    check_skipped,
    write_shard,
)

FLAGS = flags.FLAGS
PROGRESS = "conversion.json"
# Lists of images, of each shard and in all.
NOTES = ("skipped", "reencoded", "warned")


class Labelled(NamedTuple):
    """An image file and its class.

    Attributes:
        path: Below the raw folder.
        label: 1 to the number of classes.
        synset: The class's name.
    """

    path: str
    label: int
    synset: str


def define_flags() -> None:
    """Defines this script's flags."""
    flags.DEFINE_string("raw", None, "Folder with train/ and validation/.")
    flags.DEFINE_string("output_dir", None, "Folder that receives the shards.")
    flags.DEFINE_string(
        "validation_labels",
        None,
        "File with a class name a line, for a flat validation/, such as "
        "imagenet_2012_validation_synset_labels.txt.",
    )
    flags.DEFINE_integer(
        "train_shards", 1024, "Number of files for training.", 1, 99999
    )
    flags.DEFINE_integer(
        "validation_shards", 128, "Number of files for validation.", 1, 99999
    )
    flags.DEFINE_integer(
        "workers", processes.cores(), "Number of processes.", 1
    )
    flags.DEFINE_integer(
        "max_corrupt", 0, "Number of images that may be left out as corrupt.", 0
    )
    flags.DEFINE_integer(
        "seed", 1, "Seed of the order of the images.", 0, 2**32 - 1
    )


def find_images(
    raw: Path, validation_labels: Path | None
) -> tuple[dict[str, list[Labelled]], list[str]]:
    """All images with their labels, by split, and the classes' names.

    Args:
        raw: Holds train/ and validation/.
        validation_labels: For a flat validation/.

    Raises:
        InputError: A folder is missing or empty, or a label is unknown.
    """
    classes = _folders(raw / "train")
    if not classes:
        raise InputError(
            f"{raw / 'train'}: no folders of classes; expected "
            "train/n01440764/*.JPEG and so on"
        )
    labels = {name: i + 1 for i, name in enumerate(classes)}
    train = _from_folders(raw, "train", labels)
    # The other usual name.
    held_out = "val" if (raw / "val").is_dir() else "validation"
    if validation_labels is not None:
        validation = _from_list(raw, held_out, validation_labels, labels)
    else:
        validation = _from_folders(raw, held_out, labels)
    if not validation:
        raise InputError(
            f"{raw / held_out}: no images in folders of classes; if they "
            "lie side by side, give --validation_labels"
        )
    return {"train": train, "validation": validation}, classes


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; --raw expects train/ and "
            "validation/ in it"
        ) from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _files(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_file()]


def _from_folders(
    raw: Path, split: str, labels: dict[str, int]
) -> list[Labelled]:
    images = []
    for name in _folders(raw / split):
        if name not in labels:
            raise InputError(
                f"{raw / split / name}: no class of that name in "
                f"{raw / 'train'}; remove or rename the folder"
            )
        there = _files(raw / split / name)
        if not there:
            raise InputError(f"{raw / split / name}: no image in this folder")
        images += [
            Labelled(f"{split}/{name}/{file}", labels[name], name)
            for file in there
        ]
    return images


def _from_list(
    raw: Path, split: str, path: Path, labels: dict[str, int]
) -> list[Labelled]:
    there = _files(raw / split)
    text = files.read_text(path, "correct --validation_labels")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) != len(there):
        raise InputError(
            f"--validation_labels {path}: {len(names)} labels, but "
            f"{raw / split} has {len(there)} files; expected one a file"
        )
    for line, name in enumerate(names, 1):
        if name not in labels:
            raise InputError(
                f"--validation_labels {path}: line {line}: {name!r} is no "
                f"folder of {raw / 'train'}"
            )
    return [
        Labelled(f"{split}/{file}", labels[name], name)
        for file, name in zip(there, names)
    ]


def plan_shards(
    images: dict[str, list[Labelled]], shards: dict[str, int], seed: int
) -> dict[str, list[Labelled]]:
    """Which images, in which order, each shard gets.

    Args:
        images: By split.
        shards: Their number, by split.
        seed: Of the order.

    Raises:
        InputError: There are more shards than images.
    """
    plan = {}
    for place, split in enumerate(shard_files.SPLITS):
        found, count = images[split], shards[split]
        if count > len(found):
            raise InputError(
                f"--{split}_shards {count}: more than the {len(found)} "
                f"{split} images; give a smaller number"
            )
        order = np.random.default_rng((seed, place)).permutation(len(found))
        for i, part in enumerate(np.array_split(order, count)):
            name = shard_files.shard_name(split, i, count)
            plan[name] = [found[j] for j in part]
    return plan


def _is_whole(shard: dict) -> bool:
    """Whether an entry has what `write_shard` gives."""
    return all(
        type(shard[name]) is int for name in ("records", "bytes")
    ) and all(
        isinstance(shard[name], list)
        and all(isinstance(line, str) for line in shard[name])
        for name in NOTES
    )


class _Progress:
    """What has been written: kept in the output folder after every shard."""

    def __init__(self, raw: str, folder: Path, plan: dict, max_corrupt: int):
        self.raw, self.folder, self.max_corrupt = raw, folder, max_corrupt
        self.plan_crc32 = zlib.crc32(json.dumps(plan).encode())
        self.shards: dict[str, dict] = {}
        for name in (PROGRESS, shard_files.INDEX):
            if (folder / name).exists():
                self._resume(folder / name)
        self._check()

    def _resume(self, path: Path) -> None:
        try:
            before = files.read_json(path, "remove it")
            plan, shards = before.get("plan_crc32"), before["shards"]
            known = {name: shard["bytes"] for name, shard in shards.items()}
            is_ours = plan == self.plan_crc32
            whole = not is_ours or all(map(_is_whole, shards.values()))
        except (KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise InputError(f"{path}: damaged; remove it")
        if not is_ours:
            raise InputError(
                f"{path} is of other images, shards or another seed; name "
                "another --output_dir or give the same flags"
            )
        for name, size in known.items():
            file = self.folder / name
            if file.exists() and file.stat().st_size == size:
                self.shards[name] = shards[name]

    def add(self, name: str, shard: dict) -> None:
        """Notes a shard; raises if too much had to be left out."""
        self.shards[name] = shard
        self._check()
        self._write(PROGRESS, {})

    def _check(self) -> None:
        check_skipped(self.raw, self.all("skipped"), self.max_corrupt)

    def all(self, what: str) -> list[str]:
        """The lists of that name in all shards as one."""
        return [x for shard in self.shards.values() for x in shard[what]]

    def finish(self, classes: list[str]) -> None:
        """Writes the index; the shards are complete."""
        self._write(shard_files.INDEX, {"class_names": classes})
        (self.folder / PROGRESS).unlink(missing_ok=True)

    def _write(self, name: str, more: dict) -> None:
        value = {
            "plan_crc32": self.plan_crc32,
            **more,
            "shards": dict(sorted(self.shards.items())),
        }
        shard_files.write_json(os.path.join(self.folder, name), value)


def convert(
    raw: Path,
    output_dir: Path,
    *,
    validation_labels: Path | None = None,
    train_shards: int = 1024,
    validation_shards: int = 128,
    workers: int = 1,
    max_corrupt: int = 0,
    seed: int = 1,
) -> dict[str, int]:
    """Writes the shards and `counts.json`.

    Args:
        raw: Holds train/ and validation/.
        output_dir: Made if it is not there.
        validation_labels: As for `find_images`.
        train_shards: Number of files.
        validation_shards: Number of files.
        workers: Processes; 1 works in this one.
        max_corrupt: Images to leave out at most.
        seed: Of the order of the images.

    Returns:
        How many images were written, skipped, re-encoded and kept in spite
        of a warning.

    Raises:
        InputError: Names the file or folder that is not as expected.
    """
    images, classes = find_images(raw, validation_labels)
    counts = {"train": train_shards, "validation": validation_shards}
    plan = plan_shards(images, counts, seed)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output_dir}: {error.strerror}") from error
    progress = _Progress(str(raw), output_dir, plan, max_corrupt)
    left = {n: part for n, part in plan.items() if n not in progress.shards}
    jobs = [
        (str(raw), str(output_dir / name), part, max_corrupt)
        for name, part in left.items()
    ]
    total = sum(map(len, plan.values()))
    done = total - sum(map(len, left.values()))
    with tqdm(total=total, initial=done, unit="image", disable=None) as bar:
        for job, shard in processes.results(write_shard, jobs, workers):
            name = os.path.basename(job[1])
            progress.add(name, shard)
            bar.update(len(plan[name]))
    progress.finish(classes)
    written = sum(shard["records"] for shard in progress.shards.values())
    found = {name: len(progress.all(name)) for name in NOTES}
    return {"written": written, **found}


def main(_) -> None:
    """Converts, and says what came of it."""
    for name in ("raw", "output_dir"):
        if not FLAGS[name].value:
            raise InputError(f"--{name}: expected a folder; see --help")
    labels = FLAGS.validation_labels
    found = convert(
        Path(FLAGS.raw),
        Path(FLAGS.output_dir),
        validation_labels=Path(labels) if labels else None,
        train_shards=FLAGS.train_shards,
        validation_shards=FLAGS.validation_shards,
        workers=FLAGS.workers,
        max_corrupt=FLAGS.max_corrupt,
        seed=FLAGS.seed,
    )
    print(
        f"{FLAGS.output_dir}: {found['written']:,} images, "
        f"{found['skipped']:,} left out as corrupt, {found['reencoded']:,} "
        f"made JPEGs, {found['warned']:,} kept with a warning; "
        f"{shard_files.INDEX} names them."
    )


if __name__ == "__main__":
    define_flags()
    errors.run(main)
