"""The files of a folder or of a tar archive, in the order of their names."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from official_models.common import files
from official_models.common.errors import InputError, first_line


def members(path: str | Path, what: str) -> Iterator[tuple[str, bytes]]:
    """Names, with / between folders, and contents.

    Args:
        path: A folder, or a tar archive, compressed or not. Of an archive only
            plain files are read, and nothing is written.
        what: Is expected there, for the messages.

    Raises:
        InputError: There is nothing, or the archive is damaged.
    """
    path = Path(path)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                name = file.relative_to(path).as_posix()
                yield name, files.read_bytes(file, f"expected {what}")
        return
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected {what}")
    try:
        with tarfile.open(path) as archive:
            found = [m for m in archive.getmembers() if m.isfile()]
            # In the archive's order: a compressed one cannot go back.
            contents = {m.name: archive.extractfile(m).read() for m in found}
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
    ) as e:
        raise InputError(
            f"{path}: {first_line(e)}; expected {what}, as a folder or a whole "
            "tar archive"
        ) from e
    yield from sorted(contents.items())
