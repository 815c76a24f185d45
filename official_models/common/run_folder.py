"""The folder of a run, here or behind a URL, and the run that it belongs to."""

from __future__ import annotations

import atexit
import errno
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from official_models.common import files, flags
from official_models.common.errors import InputError, first_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RECORD = "run.json"
_LOCK = ".lock"
# {folder: the file that this process has locked}
_locked: dict[Path, IO[str]] = {}


def need_local(output_dir: str) -> None:
    """Refuses a URL, for a script that writes its files here.

    Raises:
        InputError: It is one.
    """
    if files.is_remote(output_dir):
        raise InputError(
            f"--output_dir {output_dir}: this script writes its files here; "
            "name a local folder"
        )


def check_flags(output_dir: str, identity: Mapping[str, Any]) -> None:
    """Refuses the folder of a run with other flags, before data are read.

    `open_run` compares all that decides a run; this is for a script that writes
    to the folder before all of it is known.

    Args:
        output_dir: a local folder; it need not be there.
        identity: the flags' part of the run's identity, as JSON values; None is
            not compared: such a flag may follow the data.

    Raises:
        InputError: it holds another run.
    """
    record = Path(output_dir) / RECORD
    if record.exists():
        given = [name for name, value in identity.items() if value is not None]
        _check_same_run(record, identity, given)


@functools.cache
def local_folder(output_dir: str) -> Path:
    """Where a run's files are written: for a URL, a scratch folder here."""
    if not files.is_remote(output_dir):
        return Path(output_dir)
    scratch = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


def fetch(output_dir: str) -> None:
    """Copies a URL's files, not its folders, to the `local_folder`.

    Raises:
        InputError: it cannot be made or read.
    """
    import tensorflow as tf

    try:
        tf.io.gfile.makedirs(output_dir)
        for name in tf.io.gfile.listdir(output_dir):
            source = f"{output_dir.rstrip('/')}/{name}"
            if not tf.io.gfile.isdir(source):
                target = local_folder(output_dir) / name
                tf.io.gfile.copy(source, str(target), overwrite=True)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(
            f"--output_dir {output_dir}: {first_line(error)}; name a folder "
            "that TensorFlow can write"
        ) from error


def push(folder: Path, output_dir: str) -> None:
    """Copies a folder's files, not its folders, to a URL; else nothing."""
    if not files.is_remote(output_dir):
        return
    import tensorflow as tf

    for path in sorted(folder.iterdir()):
        if path.is_file():
            target = f"{output_dir.rstrip('/')}/{path.name}"
            with files.replacing(target) as temporary:
                tf.io.gfile.copy(str(path), temporary, overwrite=True)


def open_run(
    output_dir: str, identity: Mapping[str, Any], writes: bool = True
) -> Path:
    """Makes the folder of a run, or finds that it holds this run already.

    `record_run` makes it this run's, once its inputs have proved good.

    Args:
        output_dir: the folder; a URL such as gs:// as well.
        identity: everything that decides the run's weights, as JSON values.
        writes: whether this process will write the run's files, alone. Until
            `release` no other process can; a URL is not locked.

    Returns:
        The folder; for a URL, its `local_folder`, with the files of the run.

    Raises:
        InputError: it cannot be written, holds another run, or another
            process writes it.
    """
    folder = local_folder(output_dir)
    if files.is_remote(output_dir):
        fetch(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"--output_dir {output_dir}: {error.strerror}; name a folder that "
            "can be written"
        ) from error
    if (folder / RECORD).exists():
        _check_same_run(folder / RECORD, identity)
    if writes and fcntl and not files.is_remote(output_dir):
        _lock(folder)
    return folder


def _lock(folder: Path) -> None:
    """Keeps other processes of this machine from writing a run's files."""
    folder = folder.resolve()
    if folder in _locked:
        return
    file = open(folder / _LOCK, "a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read(20).strip()
        file.close()
        raise InputError(
            f"--output_dir {folder}: process {owner} writes this run; wait for "
            "it, end it, or name another folder"
        ) from error
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _locked[folder] = file  # The lock ends when the file is closed.


def release() -> None:
    """Lets other processes write what this one has opened."""
    for file in _locked.values():
        file.close()
    _locked.clear()


def record_run(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes down whose run the folder is."""
    files.write_json(folder / RECORD, identity)


def _check_same_run(
    record: Path,
    identity: Mapping[str, Any],
    names: Collection[str] | None = None,
) -> None:
    """Compares `names`; None: all that either has."""
    remedy = (
        "it is not the record of a run: remove it or name another --output_dir"
    )
    before = files.read_json(record, remedy, json.loads)
    if not isinstance(before, dict):
        raise InputError(f"{record}: expected an object; {remedy}")
    before = {**_of_new_flags(record, before, identity), **before}
    for name in sorted({*before, *identity} if names is None else names):
        then, now = (_shown(values, name) for values in (before, identity))
        if then != now:
            raise InputError(
                f"{record.parent} holds a run with {name} = {_short(then)}, "
                f"this one has {_short(now)}; give the flags of that run or "
                "name another --output_dir"
            )


def _of_new_flags(
    record: Path, before: Mapping[str, Any], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run did before there were flags that its record lacks; says so."""
    found = {
        name: value
        for name, value in sorted(flags.values_before().items())
        if name in identity and name not in before
    }
    if found:
        print(
            f"{record}: written before there was "
            + ", ".join(f"--{name}" for name in found)
            + "; such a run is one with "
            + ", ".join(f"{name} = {x!r}" for name, x in found.items())
        )
    return found


def _shown(values: Mapping[str, Any], name: str) -> str:
    """A value as Python shows what JSON gives back; no value is None."""
    # As text, since a NaN does not equal itself.
    return repr(json.loads(json.dumps(values.get(name))))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
