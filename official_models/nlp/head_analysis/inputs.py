"""What is analysed: models of one architecture, and one labelled file.

Axes: M examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.fit import classification, prediction
from official_models.nlp.bert.finetuning.fit.training import Encoded
from official_models.nlp.checkpoint import models, opening
from official_models.nlp.checkpoint.source import Source, check_architecture
from official_models.nlp.checkpoint.source import make as make_model
from official_models.nlp.datasets import glue


class Opened(NamedTuple):
    """A model that is analysed.

    Attributes:
        folder: As the user gave it.
        source: Its checkpoint.
        run: The folder with its tokenizer and, if it was fine-tuned by our
            script, its task.json.
    """

    folder: str
    source: Source
    run: Path

    def make(self) -> keras.Model:
        """The model with its values.

        Raises:
            InputError: The checkpoint is damaged.
        """
        return make_model(self.source)[0]

    @property
    def is_classifier(self) -> bool:
        """Whether it has logits of labels."""
        return models.head_of(self.source.has) == "classifier"


class Data(NamedTuple):
    """A labelled file.

    Attributes:
        task: Of GLUE.
        file: Its name.
        encoded: Examples and labels.
        digest: SHA-256 of the file.
        chosen: Which examples a head is chosen by, boolean [M]; the others
            are reported on.
    """

    task: glue.Task
    file: str
    encoded: Encoded
    digest: str
    chosen: np.ndarray


def open_model(folder: str, flag: str) -> Opened:
    """A model of any kind that `checkpoint.opening` reads.

    The seed_N folder of a fine-tuning run has no tokenizer: the run's is
    taken.

    Args:
        folder: Where it is.
        flag: Begins messages.

    Raises:
        InputError: There is none, it is damaged, or has no configuration.
    """
    source = opening.open_source(folder, flag=flag)
    place = Path(folder)
    place = place if place.is_dir() else place.parent
    parent = place.resolve().parent
    run = place
    if not (place / prediction.RECORD).is_file() and (
        (parent / prediction.RECORD).is_file()
    ):
        run = parent
        beside = opening.open_source(parent, flag=flag)
        source = source._replace(
            tokenizer=beside.tokenizer, labels=beside.labels
        )
    if source.config is None:
        raise InputError(
            f"{source.where}: no configuration beside it; expected "
            f"{opening.EXPECTED}, with its bert_config.json"
        )
    return Opened(folder, source, run)


def open_all(folders: Sequence[str], raw: str | None) -> list[Opened]:
    """The fine-tuned models and, last, the raw one, if there is one.

    Raises:
        InputError: One cannot be read, or two are of different architectures
            or vocabularies.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise InputError(
            f"--model {','.join(folders)}: one is given twice; give each seed "
            "once"
        )
    found = [open_model(folder, "--model") for folder in folders]
    if raw:
        found.append(open_model(raw, "--raw_model"))
    first = found[0].source
    for other in found[1:]:
        check_architecture(other.source, first.config)
        if _words(other.source) not in (None, _words(first)):
            raise InputError(
                f"{other.source.where}: its vocabulary is another than that of "
                f"{first.where}; expected models of one vocabulary"
            )
    return found


def _words(source: Source) -> dict[str, int] | None:
    """A model's pieces and their numbers; None where no file has them."""
    if source.tokenizer.size() is None:
        return None
    return source.tokenizer.load(source.where).get_vocab()


def task_of(
    opened: Opened, name: str | None, length: int | None
) -> tuple[glue.Task, int]:
    """The task, and the tokens of a sequence.

    Args:
        opened: A model; its task.json says both.
        name: Of the task, in place of that, like
        length: the tokens.

    Raises:
        InputError: Nothing says which, the task is a regression, or the model
            has not as many positions or labels.
    """
    record: dict[str, Any] = {}
    path = opened.run / prediction.RECORD
    if path.is_file():
        found = files.read_json(path, "expected what fine-tuning wrote")
        record = found if isinstance(found, dict) else {}
    name = name or record.get("task_name")
    length = length or record.get("max_seq_length")
    for flag, value, kind in (
        ("task_name", name, str),
        ("max_seq_length", length, int),
    ):
        if not isinstance(value, kind):
            raise InputError(
                f"--{flag} is missing: {opened.source.where} has no "
                f"{prediction.RECORD} that says it"
            )
    task = glue.task_of(name)
    if task.is_regression:
        raise InputError(
            f"--task_name {name}: its labels are real numbers; expected a "
            "classification, whose accuracy heads change"
        )
    positions = opened.source.config.max_position_embeddings
    if not 5 <= length <= positions:
        raise InputError(
            f"--max_seq_length {length}: expected 5 to {positions}, which "
            f"{opened.source.where} has"
        )
    return task, length


def check_labels(opened: Opened, task: glue.Task) -> None:
    """Holds a classifier's labels against a task's; others have none.

    Raises:
        InputError: They do not fit.
    """
    if not opened.is_classifier:
        return
    number = opened.source.shape_of(models.MARKS["classifier"])[0]
    names = tuple(opened.source.labels)
    if number != len(task.labels) or (
        set(names) == set(task.labels) and names != task.labels
    ):
        theirs = ", ".join(names) or str(number)
        raise InputError(
            f"{opened.source.where}: its labels are {theirs}; "
            f"{task.folder} has {', '.join(task.labels)}; expected a model "
            "that was fine-tuned for this task"
        )


def read_data(
    path: str,
    task: glue.Task,
    tokenizer,
    max_seq_length: int,
    *,
    most: int | None = None,
    seed: int = 1,
) -> Data:
    """A labelled file in GLUE's form, cut at random into two splits.

    Args:
        path: Of the file.
        task: Its task.
        tokenizer: Of the models' vocabulary.
        max_seq_length: T.
        most: How many examples, at most, drawn at random; None for all.
        seed: Of what is drawn, and of the two splits.

    Raises:
        InputError: The file cannot be read, is not of the task, or has fewer
            than two examples.
    """
    content = files.read_bytes(path, f"expected a TSV file of {task.folder}")
    examples, broken = glue.read_file(path, task)
    if broken:
        print(f"{path}: {len(broken)} lines are cut off: passed over.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(examples))[:most]
    if len(order) < 2:
        raise InputError(
            f"--data {path}: {len(order)} example; expected 2 or more, since a "
            "head is chosen by some and reported on others"
        )
    if most and len(order) < len(examples):
        print(f"{path}: {len(order):,} of {len(examples):,} examples are used.")
    chosen = np.zeros(len(order), bool)
    chosen[: len(order) // 2] = True  # the order is random
    encoded = classification.encode(
        [examples[i] for i in order], task, tokenizer, max_seq_length
    )
    return Data(
        task,
        Path(path).name,
        encoded,
        hashlib.sha256(content).hexdigest(),
        chosen,
    )
