"""Labels of texts by a classifier that was fine-tuned: lines in, lines out."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert import classifier_training
from official_models.nlp.checkpoint import opening
from official_models.nlp.checkpoint.source import make
from official_models.nlp.datasets import glue

RECORD = "task.json"
STANDARD_INPUT = "-"


def describe(folder: Path, task_name: str, max_seq_length: int) -> None:
    """Writes beside a model what it was fine-tuned for.

    Args:
        folder: of the run.
        task_name: as `glue.task_of` takes it.
        max_seq_length: T.
    """
    record = {"task_name": task_name, "max_seq_length": max_seq_length}
    files.write_json(folder / RECORD, record)


def predict(folder: Path, path: str, batch_size: int) -> str:
    """The labels of the texts in a file, by the model in a run's folder.

    Args:
        folder: of a complete run.
        path: a text a line, the two texts of a pair with a tab between them,
            in UTF-8; "-" is the standard input.
        batch_size: texts at once.

    Returns:
        Lines of columns with tabs between them, a head line first: the label,
        then the probability of each; of a regression the number.

    Raises:
        InputError: the run is not complete, or the text is not as expected.
    """
    task, length = _read_record(folder)
    examples = _read_examples(path, task)
    source = opening.open_source(folder, flag="--output_dir")
    model, _ = make(source)
    tokenizer = source.tokenizer.load(source.where)
    encoded = classifier_training.encode(examples, task, tokenizer, length)
    logits = classifier_training.logits_of(model, encoded.inputs, batch_size)
    return "\n".join(_lines(task, logits))


def _lines(task: glue.Task, logits: np.ndarray) -> list[str]:
    if task.is_regression:
        return [task.label, *(f"{score:.4f}" for score in logits[:, 0])]
    lines = ["\t".join(["label", *task.labels])]
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    for row in probabilities:
        label = task.labels[row.argmax()]
        lines.append("\t".join([label, *(f"{p:.6f}" for p in row)]))
    return lines


def _read_record(folder: Path) -> tuple[glue.Task, int]:
    for name in (opening.KERAS, RECORD):
        if not (folder / name).is_file():
            raise InputError(
                f"--output_dir {folder}: no {name}; expected the folder of a "
                "run of this script that has come to its end"
            )
    path = folder / RECORD
    remedy = "expected what this script wrote"
    record = files.read_json(path, remedy)
    try:
        return glue.task_of(record["task_name"]), int(record["max_seq_length"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: no task_name or no max_seq_length; {remedy}"
        ) from error


def _read_examples(path: str, task: glue.Task) -> list[glue.Example]:
    name = f"--predict {path}"
    # Not `splitlines`: sentences hold its rarer line ends.
    lines = _read(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines == [""]:
        raise InputError(f"{name}: empty; expected a text a line")
    expected = "two texts with a tab between them"
    if len(task.texts) == 1:
        expected = "one text, without a tab"
    examples = []
    for number, line in enumerate(lines, 1):
        texts = tuple(text.strip() for text in line.split("\t"))
        if len(texts) != len(task.texts) or not all(texts):
            raise InputError(
                f"{name}, line {number}: got {line[:60]!r}, expected {expected}"
            )
        examples.append(glue.Example(texts, None))
    return examples


def _read(path: str) -> str:
    if path != STANDARD_INPUT:
        return files.read_text(path, "expected a text a line, in UTF-8")
    try:
        return sys.stdin.buffer.read().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        at = error.start
        raise InputError(
            f"--predict -: not UTF-8 text: byte 0x{error.object[at]:02x} at "
            f"byte offset {at} (from 0); expected a text a line"
        ) from error
