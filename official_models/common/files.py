"""Files that are read with one-line errors and are never half written.

A file is written under a temporary name in its own folder and renamed when it
is complete. A process that is killed leaves the old file as it was, and at
most a file whose name begins with `.writing-`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from official_models.common.errors import InputError, first_line

TEMPORARY = ".writing-"


def is_remote(path: str | os.PathLike) -> bool:
    """Whether only TensorFlow can reach it: a URL such as `gs://` or `ram://`.

    A `Path` is local, since it folds the two slashes into one.
    """
    return not isinstance(path, PurePath) and "://" in os.fspath(path)


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file or a folder.

    Args:
        path: A local path, or a URL that `tf.io.gfile` can read.
    """
    if not is_remote(path):
        return Path(path).exists()
    import tensorflow as tf

    return tf.io.gfile.exists(os.fspath(path))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path | str]:
    """A temporary path that takes the place of `path` if the block succeeds.

        with files.replacing(folder / "model.keras") as temporary:
            model.save(temporary)

    The temporary path is in the same folder and has the same suffix. If the
    block raises, `KeyboardInterrupt` included, its file is removed and `path`
    stays as it was.

    Args:
        path: A local path, or a URL that `tf.io.gfile` can write. Its folder
            must exist.

    Yields:
        The temporary path: a `Path`, for a URL a `str`.

    Raises:
        OSError, tf.errors.OpError: The file cannot be renamed, or the block
            wrote none.
    """
    if is_remote(path):
        with _replacing_remote(os.fspath(path)) as temporary:
            yield temporary
        return
    path = Path(path)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def _replacing_remote(path: str) -> Iterator[str]:
    import tensorflow as tf

    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/{_temporary_name(name)}"
    try:
        yield temporary
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(temporary)
        raise


def _temporary_name(name: str) -> str:
    # Random, not the process's number: workers on several machines may have
    # the same number.
    return f"{TEMPORARY}{secrets.token_hex(4)}-{name}"


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new empty folder that takes the place of `path` if the block succeeds.

    It lies beside `path`, whose parents are made. If the block raises, it is
    removed with what it holds, and `path` stays as it was.

    Args:
        path: A local path. A folder there is removed just before the rename.

    Raises:
        OSError: A folder cannot be made or renamed; also where another process
            put a folder at `path` in the meantime.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name))
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file, under a temporary name first."""
    with replacing(path) as temporary:
        if isinstance(temporary, Path):
            temporary.write_bytes(content)
            return
        import tensorflow as tf

        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file in UTF-8, under a temporary name first."""
    write_bytes(path, text.encode("utf-8"))


def write_json(
    path: str | os.PathLike, value: Any, *, indent: int = 2, **options
) -> None:
    """Writes `value` as JSON and a newline, under a temporary name first.

    Args:
        path: A local path, or a URL that `tf.io.gfile` can write.
        value: What `json.dumps` takes.
        indent: Spaces of a level.
        **options: Passed to `json.dumps`.
    """
    write_text(path, json.dumps(value, indent=indent, **options) + "\n")


def save_figure(
    path: str | os.PathLike, figure: Any, *, dpi: float = 110
) -> None:
    """Draws a figure into a file, under a temporary name first.

    Args:
        path: Its suffix decides the format, such as `.png`.
        figure: A `matplotlib.figure.Figure(...)`. One made without `pyplot`
            needs neither a display nor closing.
        dpi: Dots an inch.
    """
    drawn = io.BytesIO()
    suffix = PurePath(path).suffix.removeprefix(".")
    figure.savefig(drawn, format=suffix, dpi=dpi)
    write_bytes(path, drawn.getvalue())


def read_text(path: str | os.PathLike, remedy: str = "") -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Line endings stay as they are.

    Args:
        path: A local path, or a URL that `tf.io.gfile` can read.
        remedy: What the user can do; the end of every error message.

    Raises:
        InputError: It cannot be read, is not UTF-8, or has a NUL, as a file
            that was damaged by a crash does.
    """
    content = read_bytes(path, remedy)
    try:
        text = content.decode("utf-8")
        at, kind = content.find(b"\0"), "a NUL byte"
    except UnicodeDecodeError as error:
        at = error.start
        kind = f"byte 0x{content[at]:02x} ({error.reason})"
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        reason = (
            f"not UTF-8 text: {kind} at byte offset {at} (from 0), line {line}"
        )
        raise _refusal(path, reason, remedy)
    return text.removeprefix("\ufeff")


def read_bytes(path: str | os.PathLike, remedy: str = "") -> bytes:
    """The bytes of a file, as `read_text` reads it.

    Args:
        path: A local path, or a URL that `tf.io.gfile` can read.
        remedy: What the user can do; the end of every error message.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return _read_bytes(path)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise _refusal(path, f"cannot be read: {reason}", remedy) from error


def read_json(
    path: str | os.PathLike,
    remedy: str = "",
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """The value of a JSON file in UTF-8.

    Args:
        path: A local path, or a URL that `tf.io.gfile` can read.
        remedy: What the user can do; the end of every error message.
        parse: `json.loads` where strings may be names of files, which need
            not be UTF-8. Default: `parse_json`.

    Raises:
        InputError: It cannot be read, or is not JSON; the message says where.
    """
    text = read_text(path, remedy)
    try:
        return (parse or parse_json)(text)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # a number of too many digits
        reason = first_line(error)
    raise _refusal(path, f"not JSON: {reason}", remedy)


def parse_json(text: str) -> Any:
    r"""The value of a JSON text; its strings can be written as UTF-8.

    `json.loads` takes "\\ud800", half of a pair of escapes that is a character
    together; what reads texts, such as a tokenizer, raises whatever it likes.

    Raises:
        json.JSONDecodeError: It is not JSON, or has half of a pair.
        ValueError: A number has too many digits.
        RecursionError: It is nested too deeply.
    """
    value = json.loads(text)
    for found in _ESCAPE.finditer(text):
        if found["half"]:
            reason = "half of a pair of escapes such as \\ud83d\\ude00"
            raise json.JSONDecodeError(reason, text, found.start())
    return value


# In their order, so that what follows two backslashes is no escape.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)


def digest(*contents: Any) -> str:
    """SHA-256 of texts and arrays, in their order, in hexadecimal.

    Args:
        *contents: str, or what NumPy makes an array of; of an array, its dtype
            and shape count, too.
    """
    found = hashlib.sha256()
    for content in contents:
        if isinstance(content, str):
            head, body = "text", content.encode("utf-8", "surrogatepass")
        else:
            array = np.ascontiguousarray(content)
            head, body = f"{array.dtype} {array.shape}", array.tobytes()
        found.update(f"{head} {len(body)}\n".encode())
        found.update(body)
    return found.hexdigest()


def _read_bytes(path: str | os.PathLike) -> bytes:
    if not is_remote(path):
        return Path(path).read_bytes()
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(first_line(error)) from error


def _refusal(path, reason: str, remedy: str) -> InputError:
    end = f"; {remedy}" if remedy else ""
    return InputError(f"{os.fspath(path)}: {reason}{end}")
