"""CIFAR-10, from whichever of its formats is there."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from pathlib import Path

from tqdm import tqdm

from official_models.common import files, pypi
from official_models.common.errors import InputError
from official_models.vision.datasets.cifar10 import jpeg_npz, read
from official_models.vision.datasets.images import LabelledImages

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
JPEG_NPZ = "cifar10_jpeg.npz"

_SHAPE = (32, 32, 3)
# The binary version, since reading it takes no pickle.
_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_TIMEOUT_S = 60
_BLOCK = 1 << 20


def load_cifar10(
    data_dir: str | Path,
    *,
    max_corrupt: int = 0,
    examples_per_file: int = 10_000,
    check_md5: bool = False,
) -> tuple[LabelledImages, LabelledImages]:
    """CIFAR-10 from whichever of its formats is there.

    Args:
        data_dir: A folder with data_batch_1.bin .. test_batch.bin (binary
            version) or data_batch_1 .. test_batch (python version), the
            folder above it, an archive cifar-10-{binary,python}.tar.gz or
            the folder of one, or cifar10_jpeg.npz (see `cifar10.jpeg_npz`)
            or its folder; looked for in this order. "" fetches the archive
            of the binary version once, 170 MB, and keeps it in
            `$XDG_CACHE_HOME/tf_lamb` or `~/.cache/tf_lamb`.
        max_corrupt: Of the .npz: how many images may be undecodable.
        examples_per_file: Of the published versions: what each of the six
            files must hold; 0 takes any.
        check_md5: Whether published files must have their published MD5;
            unpacked files of the binary version and the .npz have none.

    Returns:
        Training and test images, uint8 [N, 32, 32, 3].

    Raises:
        InputError: Nothing found or fetched, or a damaged file. Which damage
            can be seen, `cifar10.read` and `cifar10.jpeg_npz` say.
    """
    if not str(data_dir):
        data_dir = fetch()
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise InputError(f"{data_dir}: no such file or folder")
    published = read.find_published(data_dir)
    if published:
        splits = read.read_published(
            published,
            examples_per_file=examples_per_file,
            check_md5=check_md5,
        )
        return tuple(LabelledImages(*split, CLASSES) for split in splits)
    path = data_dir / JPEG_NPZ if data_dir.is_dir() else data_dir
    if not path.is_file() or path.suffix != ".npz":
        raise InputError(
            f"{data_dir}: no CIFAR-10 there; expected data_batch_1.bin, "
            "data_batch_1, cifar-10-binary.tar.gz, cifar-10-python.tar.gz or "
            f"{JPEG_NPZ}"
        )
    if check_md5:
        raise InputError(
            f"{path}: no MD5 is published for this file; do without the check"
        )
    return _read_jpeg(path, max_corrupt)


def _read_jpeg(
    path: Path, max_corrupt: int
) -> tuple[LabelledImages, LabelledImages]:
    *splits, names = jpeg_npz.read_archive(
        path, image_shape=_SHAPE, max_corrupt=max_corrupt
    )
    if len(names) != len(CLASSES):
        raise InputError(
            f"{path}: {len(names)} classes, expected CIFAR-10's 10"
        )
    return tuple(LabelledImages(*split, names) for split in splits)


def fetch(cache_dir: str | Path | None = None) -> Path:
    """The archive of the binary version, fetched if it is not in the cache.

    Args:
        cache_dir: Default: `$XDG_CACHE_HOME/tf_lamb` or `~/.cache/tf_lamb`.

    Raises:
        InputError: It cannot be fetched or written, or is another file.
    """
    folder = Path(cache_dir) if cache_dir else pypi.default_cache()
    path = folder / _URL.rpartition("/")[2]
    remedy = (
        f"fetch {_URL} where there is a network and name its folder with "
        "--data_dir"
    )
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as temporary:
                _download(temporary, remedy)
    # An InputError is no OSError.
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"CIFAR-10 cannot be fetched to {path}: {error}; {remedy}"
        ) from error
    return path


def _download(target: Path, remedy: str) -> None:
    digest = hashlib.sha256()
    bar = tqdm(unit="B", unit_scale=True, desc="CIFAR-10", disable=None)
    with bar, open(target, "wb") as file:
        with urllib.request.urlopen(_URL, timeout=_TIMEOUT_S) as source:
            while block := source.read(_BLOCK):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
    if digest.hexdigest() != _SHA256:
        raise InputError(
            f"{_URL}: SHA-256 is {digest.hexdigest()}, expected {_SHA256}: cut "
            f"short or another file; {remedy}"
        )
