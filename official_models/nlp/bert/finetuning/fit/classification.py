"""A task of GLUE for Keras' `fit`, and labels of texts: lines in, lines out.

Axes: N examples, T tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning import features, metrics
from official_models.nlp.bert.finetuning.fit import prediction, training
from official_models.nlp.bert.finetuning.fit.training import TOKENS, Encoded
from official_models.nlp.checkpoint import models
from official_models.nlp.datasets import glue


class Classification:
    """A `training.Task` of GLUE.

    Args:
        task: One of `glue.TASKS`.
        data_dir: Folder of its TSV files.
        tokenizer: Of the model's vocabulary.
        max_seq_length: T.
        dropout: Rate before the classifier.

    Raises:
        InputError: As `glue.read_split` and `features.encode`.
    """

    unit = "examples"

    def __init__(
        self,
        task: glue.Task,
        data_dir: str,
        tokenizer,
        max_seq_length: int,
        dropout: float,
    ):
        self.task, self.name, self.labels = task, task.folder, task.labels
        self._dropout = dropout
        self._splits = {}
        for split in ("train", *task.dev_splits):
            examples, broken = glue.read_split(data_dir, task, split)
            if broken:
                print(f"{split}: {len(broken)} lines are cut off: passed over.")
            self._splits[split] = encode(
                examples, task, tokenizer, max_seq_length
            )
            training.print_unknown(split, self._splits[split], tokenizer)
        self.train = self._splits["train"]
        self.compared_by = task.dev_splits[0], metrics.names_of(task)[-1]
        self.figures = {n: split.number for n, split in self._splits.items()}
        self.record = {
            "task_name": task.folder,
            "max_seq_length": max_seq_length,
        }

    def make_model(self, config, seed: int, dtype: str) -> keras.Model:
        """A classifier, or a regression.

        Raises:
            ValueError: The dropout is out of range.
        """
        return models.make(
            config,
            "classifier",
            num_labels=len(self.labels) or 1,
            dropout=self._dropout,
            seed=seed,
            dtype=dtype,
        )

    def compile_arguments(self) -> dict:
        """-log softmax(logits)[label]; (score - label) ** 2 of a regression."""
        if self.task.is_regression:
            return {"loss": keras.losses.MeanSquaredError()}
        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        }

    def measure(self, model: keras.Model, batch_size: int) -> training.Measured:
        """The metrics of each validation split."""
        scores = {}
        for name in self.task.dev_splits:
            split = self._splits[name]
            logits = training.outputs_of(
                model, split.inputs, batch_size, by_length=True
            )
            scores[name] = metrics.measure(self.task, logits, split.labels)
        return training.Measured(scores)

    def digest(self) -> str:
        """SHA-256 of the arrays of all splits."""
        found = training.new_digest()
        for name, split in self._splits.items():
            split.add_to(found, name)
        return found.hexdigest()

    def __str__(self) -> str:
        sizes = (f"{name} {number:,}" for name, number in self.figures.items())
        return f"{self.name}: {', '.join(sizes)} examples."


def encode(
    examples: Sequence[glue.Example],
    task: glue.Task,
    tokenizer,
    max_seq_length: int,
) -> Encoded:
    """Examples as the arrays of `features.encode`.

    Returns:
        With labels int32 [N], of a regression float32.

    Raises:
        InputError: As there.
    """
    blocks = (
        examples[first : first + training.BLOCK]
        for first in range(0, len(examples), training.BLOCK)
    )
    rows = (
        row
        for block in blocks
        for row in features.encode(block, tokenizer, max_seq_length)
    )
    kind = "float32" if task.is_regression else "int32"
    dtypes = {**dict.fromkeys(TOKENS, "int32"), "label_ids": kind}
    arrays = training.stacked(rows, dtypes)
    labels = arrays.pop("label_ids")[:, 0]
    return Encoded(arrays, labels)


def predict(folder: Path, path: str, batch_size: int) -> str:
    """The labels of the texts in a file, by the model in a run's folder.

    Args:
        folder: Of a complete run.
        path: A text a line, the two texts of a pair with a tab between them,
            in UTF-8; "-" is the standard input.
        batch_size: Texts at once.

    Returns:
        Lines of columns with tabs between them, a head line first: the label,
        then the probability of each; of a regression the number.

    Raises:
        InputError: The run is not complete, or the text is not as expected.
    """
    task, length = _task_of(folder)
    examples = _read_examples(path, task)
    trained = prediction.open_trained(folder)
    encoded = encode(examples, task, trained.tokenizer, length)
    logits = training.outputs_of(
        trained.model, encoded.inputs, batch_size, by_length=True
    )
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


def _task_of(folder: Path) -> tuple[glue.Task, int]:
    path, record = prediction.read_record(folder)
    try:
        return glue.task_of(record["task_name"]), int(record["max_seq_length"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: no task of GLUE, or no max_seq_length; expected the "
            "folder of a run of this script"
        ) from error


def _read_examples(path: str, task: glue.Task) -> list[glue.Example]:
    name = f"--predict {path}"
    lines = prediction.lines_of(
        prediction.read_text(path, "expected a text a line, in UTF-8")
    )
    if not lines:
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
