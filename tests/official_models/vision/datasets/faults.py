"""Damages files of every data format at random and counts what comes of it.

    python -m tests.official_models.vision.datasets.faults --files 1000

Each file is cut short or has bytes changed, and is loaded. It must be refused
with an `InputError` of one line that names it, or give the data it gave
before. Other data is only right where the format has no checksum. Anything
else that is raised is a defect of the loader.

A format is a function in FORMATS: it writes a sound sample into a folder and
returns a `Sample`.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from benchmarks import measure
from official_models.common.errors import InputError
from official_models.vision.datasets.cifar10 import jpeg_npz, load, read
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10 as tiny
from tests.robustness import damage

# "unclear" is an InputError of several lines or that names no file.
OUTCOMES = ("refused", "unchanged", "changed", "unclear", "crashed")


class Sample(NamedTuple):
    """A sound sample of a format.

    Attributes:
        files: what is damaged, one at a time.
        load: gives arrays, or raises `InputError`.
        blind: why damage may load as other data; "" where it must not.
    """

    files: list[Path]
    load: Callable[[], list[np.ndarray]]
    blind: str = ""


def _load(path):
    splits = tiny.load(path)
    return [array for split in splits for array in split[:2]]


def binary(folder):
    """CIFAR-10's binary version, unpacked."""
    tiny.write_binary(folder)
    return Sample(
        sorted(folder.iterdir()),
        lambda: _load(folder),
        "no checksum: changed pixels and labels look like any others",
    )


def binary_archive(folder):
    """The .tar.gz of the binary version."""
    path = folder / "cifar-10-binary.tar.gz"
    tiny.write_archive(
        path, "cifar-10-batches-bin", read.BINARY, tiny.binary_file
    )
    return Sample([path], lambda: _load(path))


def _python(folder, content):
    tiny.write_files(folder, read.PYTHON, content)
    return Sample(
        sorted(folder.iterdir()),
        lambda: _load(folder),
        "no checksum: changed pixels and labels look like any others",
    )


def python2(folder):
    """CIFAR-10's python version, unpacked, as published."""
    return _python(folder, tiny.python2_file)


def python3(folder):
    """The python version as Python 3 writes it."""
    return _python(folder, lambda i: tiny.python3_file(i, protocol=4))


def python2_md5(folder):
    """The python version with `check_md5`."""
    sample = python2(folder)
    known = {p.name: md5(p.read_bytes()).hexdigest() for p in sample.files}

    def load_checked():
        with mock.patch.dict(read.PUBLISHED_MD5, known):
            splits = tiny.load(folder, check_md5=True)
        return [array for split in splits for array in split[:2]]

    return Sample(sample.files, load_checked)


def _npz(folder, save):
    path = folder / load.JPEG_NPZ
    save(path, **tiny.jpeg_arrays(tiny.jpeg_files(6), tiny.jpeg_files(2)))
    return Sample([path], lambda: _load(path))


def npz(folder):
    """JPEGs in an .npz."""
    return _npz(folder, np.savez)


def npz_deflated(folder):
    """JPEGs in a compressed .npz."""
    return _npz(folder, np.savez_compressed)


def jpeg(folder):
    """A JPEG that is damaged before it is put into the .npz."""
    file = folder / "image.jpg"
    path = folder / load.JPEG_NPZ
    first, *others = tiny.jpeg_files(3)
    file.write_bytes(first)

    def load_packed():
        arrays = tiny.jpeg_arrays([file.read_bytes(), *others], others)
        np.savez(path, **arrays)
        train, test, _ = jpeg_npz.read_archive(path, image_shape=(32, 32, 3))
        return [*train, *test]

    return Sample(
        [file],
        load_packed,
        "JPEG has no checksum: changed data decode to something",
    )


FORMATS = {
    function.__name__: function
    for function in (
        binary,
        binary_archive,
        python2,
        python3,
        python2_md5,
        npz,
        npz_deflated,
        jpeg,
    )
}


DAMAGE = {
    "cut short": damage.cut,
    "one bit": damage.flip,
    "one bit at an end": damage.flip_at_an_end,
    "8 bytes": damage.scatter,
    "a piece of zeros": damage.zeros,
}


def outcome(sample, folder, sound):
    """One of OUTCOMES, and what was raised.

    Args:
        sample: With a damaged file.
        folder: That the message has to name.
        sound: What `sample.load` gave before.
    """
    try:
        arrays = sample.load()
    except InputError as error:
        clear = str(folder) in str(error) and "\n" not in str(error)
        return "refused" if clear else "unclear", error
    except Exception as error:  # whatever it is, it is counted
        return "crashed", error
    same = len(arrays) == len(sound) and all(map(np.array_equal, arrays, sound))
    return "unchanged" if same else "changed", None


def count_outcomes(name, files, seed):
    """Damages and loads `files` files of one format.

    Returns:
        `{kind of damage: {outcome: count}}` and a list of defects: what was
        raised, or that other data was loaded where that must not be.
    """
    rng = random.Random(f"{seed} {name}")
    counts = {kind: Counter() for kind in DAMAGE}
    defects = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sample = FORMATS[name](folder)
        sound = sample.load()
        for number in range(files):
            kind = list(DAMAGE)[number % len(DAMAGE)]
            path = rng.choice(sample.files)
            content = path.read_bytes()
            path.write_bytes(damage.certainly(DAMAGE[kind], content, rng))
            result, error = outcome(sample, folder, sound)
            path.write_bytes(content)
            counts[kind][result] += 1
            if result in ("unclear", "crashed") or (
                result == "changed" and not sample.blind
            ):
                defects.append(f"{name}, file {number}, {kind}: {error!r}")
    return counts, defects


def report(counts):
    """The counts as a table, a line for each format and kind of damage."""
    lines = [
        f"{'format':16}{'damage':18}" + "".join(map("{:>10}".format, OUTCOMES))
    ]
    for name, kinds in counts.items():
        for kind, found in kinds.items():
            numbers = "".join(f"{found[o]:>10,}" for o in OUTCOMES)
            lines.append(f"{name:16}{kind:18}{numbers}")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--files", type=int, default=1000, help="damaged files a format"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        action="append",
        help="only this one; repeatable",
    )
    parser.add_argument("--output", type=Path, help="JSON to write")
    options = parser.parse_args(arguments)
    counts, defects = {}, []
    for name in options.format or FORMATS:
        counts[name], found = count_outcomes(name, options.files, options.seed)
        defects += found
    print(report(counts))
    for defect in defects:
        print(defect)
    if options.output:
        result = {
            "provenance": measure.provenance(seed=options.seed),
            "files": options.files,
            "counts": counts,
            "defects": defects,
        }
        measure.write_json(options.output, result)
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
