"""What --predict reads: the model of a run, its task, and texts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.checkpoint import opening
from official_models.nlp.checkpoint.source import make

RECORD = "task.json"
STANDARD_INPUT = "-"


class Trained(NamedTuple):
    """A model that was fine-tuned.

    Attributes:
        model: Of the best seed.
        tokenizer: Its tokenizer.
    """

    model: keras.Model
    tokenizer: Any


def read_record(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """What the model in a run's folder was fine-tuned for, and the file.

    Raises:
        InputError: The run is not complete, or the file is damaged.
    """
    for name in (opening.KERAS, RECORD):
        if not (folder / name).is_file():
            raise InputError(
                f"--output_dir {folder}: no {name}; expected the folder of a "
                "run of this script that has come to its end"
            )
    path = folder / RECORD
    record = files.read_json(path, "expected what this script wrote")
    if not isinstance(record, dict) or not isinstance(
        record.get("task_name"), str
    ):
        raise InputError(
            f"{path}: no task_name; expected what this script wrote"
        )
    return path, record


def open_trained(folder: Path) -> Trained:
    """The model in a run's folder.

    Raises:
        InputError: It cannot be read.
    """
    source = opening.open_source(folder, flag="--output_dir")
    model, _ = make(source)
    return Trained(model, source.tokenizer.load(source.where))


def read_text(path: str, expected: str) -> str:
    """The text of --predict.

    Args:
        path: Of a file in UTF-8; "-" is the standard input.
        expected: Ends a message.

    Raises:
        InputError: It cannot be read, or is no text.
    """
    if path != STANDARD_INPUT:
        return files.read_text(path, expected)
    try:
        return sys.stdin.buffer.read().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        at = error.start
        raise InputError(
            f"--predict -: not UTF-8 text: byte 0x{error.object[at]:02x} at "
            f"byte offset {at} (from 0); {expected}"
        ) from error


def lines_of(text: str) -> list[str]:
    """Its lines; of an empty text none."""
    # Not `splitlines`: sentences hold its rarer line ends.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return [] if lines == [""] else lines
