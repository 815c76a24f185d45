"""The tasks of GLUE, in the files they are published as.

All are classifications but STS-B, whose labels are real numbers.

References:
    https://arxiv.org/abs/1804.07461
    https://arxiv.org/abs/1810.04805, section 4.1
"""

from __future__ import annotations

import dataclasses
import math
import os

from official_models.common import files
from official_models.common.errors import InputError

BINARY = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")


@dataclasses.dataclass(frozen=True)
class Task:
    """One task, and how its files look.

    Args:
        folder: that GLUE's archive unpacks to.
        labels: in the order of the published code, which is that of logits;
            none for a regression.
        texts: head line's names of the columns with the one or two texts.
        label: head line's name of the column with the label.
        metrics: beside the accuracy, "f1" and "matthews"; of a regression,
            "pearson" and "spearman".
        columns: of labelled files without a head line.
        files: names of a split's file, the best first, by split; a split that
            is not here is in `<split>.tsv`.
        may_break: lines with too few columns are known, and passed over.
        scale: the least and the greatest label of a regression.
    """

    folder: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    label: str = "label"
    metrics: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    files: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    may_break: bool = False
    scale: tuple[float, float] | None = None

    @property
    def is_regression(self) -> bool:
        """Whether the labels are real numbers."""
        return self.scale is not None

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """The splits to evaluate on: two for MNLI."""
        two = tuple(name for name in self.files if name.startswith("dev_"))
        return two or ("dev",)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The splits to predict."""
        return tuple(f"test{name[3:]}" for name in self.dev_splits)


_PAIR = ("sentence1", "sentence2")
TASKS = {
    "cola": Task(
        "CoLA",
        BINARY,
        ("sentence",),
        metrics=("matthews",),
        columns=("source", "label", "mark", "sentence"),
    ),
    "sst-2": Task(
        "SST-2",
        BINARY,
        ("sentence",),
        files={
            "train": ("train_full.tsv", "train.tsv"),
            "test": ("test-labeled.tsv", "test.tsv"),
        },
    ),
    "mrpc": Task(
        "MRPC",
        BINARY,
        ("#1 String", "#2 String"),
        "Quality",
        metrics=("f1",),
        files={
            "train": ("train.tsv", "msr_paraphrase_train.txt"),
            # Microsoft's release has no dev split; GLUE cut one from its
            # training set.
            "dev": ("dev.tsv", "msr_paraphrase_test.txt"),
            "test": ("test.tsv", "msr_paraphrase_test.txt"),
        },
    ),
    "qqp": Task(
        "QQP",
        BINARY,
        ("question1", "question2"),
        "is_duplicate",
        metrics=("f1",),
        may_break=True,
    ),
    "mnli": Task(
        "MNLI",
        ("contradiction", "entailment", "neutral"),
        _PAIR,
        "gold_label",
        files={
            f"{split}_{kind}": (f"{split}_{kind}.tsv",)
            for split in ("dev", "test")
            for kind in ("matched", "mismatched")
        },
    ),
    "qnli": Task("QNLI", ENTAILMENT, ("question", "sentence")),
    "rte": Task("RTE", ENTAILMENT, _PAIR),
    "wnli": Task("WNLI", BINARY, _PAIR),
    "sts-b": Task(
        "STS-B",
        (),
        _PAIR,
        "score",
        metrics=("pearson", "spearman"),
        scale=(0.0, 5.0),
    ),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """One example.

    Args:
        texts: one or two.
        label: index in `Task.labels`, of a regression the number itself; None
            where the file has none.
    """

    texts: tuple[str, ...]
    label: float | None


def task_of(name: str, *also: str) -> Task:
    """The task of a name, in any case; "SST2" is "SST-2",
    "STSB" is "STS-B".

    Args:
        name: of the task.
        also: names that the script takes beside those of GLUE, for messages.

    Raises:
        InputError: no such task.
    """
    short = {"sst2": "sst-2", "stsb": "sts-b"}
    key = short.get(name.lower(), name.lower())
    if key not in TASKS:
        raise InputError(
            f"--task_name {name}: expected one of {', '.join((*TASKS, *also))}"
        )
    return TASKS[key]


def read_split(
    data_dir, task: Task, split: str, *, labelled: bool = True
) -> tuple[list[Example], list[int]]:
    """The examples of a split.

    Args:
        data_dir: folder with the task's files, or one that has the task's
            folder in it; on `gs://` too.
        task: one of `TASKS`.
        split: "train", "dev" or "test"; for MNLI "dev_matched" and so on.
        labelled: False also takes a file without labels.

    Returns:
        The examples in the file's order, and the numbers of the lines that
        were passed over because they are cut off (QQP only).

    Raises:
        InputError: no such file, another head line, a line with too few or
            too many columns, an unknown label, or no example at all.
    """
    path = _find(os.fspath(data_dir), task, split)
    return read_file(path, task, labelled=labelled)


def read_file(
    path: str, task: Task, *, labelled: bool = True
) -> tuple[list[Example], list[int]]:
    """The examples of one file of a task; as `read_split` but for the path.

    Raises:
        InputError: As there.
    """
    lines = _read_lines(path)
    columns, first, width = _columns(path, task, lines[0], labelled)
    examples, broken = [], []
    for number, line in enumerate(lines[first:], first + 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) <= max(columns.values()):
            if task.may_break:
                broken.append(number)
                continue
            raise InputError(
                f"{path}, line {number}: got {line[:60]!r}, expected at least "
                f"{max(columns.values()) + 1} columns"
            )
        if len(fields) > width and not task.may_break:
            raise InputError(
                f"{path}, line {number}: {len(fields)} columns, expected "
                f"{width}, in {line[:60]!r}: is a tab inside of a text? put a "
                "space there"
            )
        texts = tuple(fields[columns[name]].strip() for name in task.texts)
        label = None
        if task.label in columns:
            label = _label(path, number, task, fields[columns[task.label]])
        examples.append(Example(texts, label))
    if not examples:
        raise InputError(f"{path}: no example; expected GLUE's {task.folder}")
    return examples, broken


def _find(folder: str, task: Task, split: str) -> str:
    names = task.files.get(split, (f"{split}.tsv",))
    for parent in (folder, os.path.join(folder, task.folder)):
        for name in names:
            path = os.path.join(parent, name)
            if files.exists(path):
                return path
    raise InputError(
        f"--data_dir {folder}: no {' or '.join(names)}; expected GLUE's "
        f"{task.folder}, unpacked"
    )


def _read_lines(path: str) -> list[str]:
    text = files.read_text(path)
    # Not `splitlines`: sentences hold its rarer line ends.
    return text.replace("\r\n", "\n").split("\n")


def _columns(
    path: str, task: Task, head: str, labelled: bool
) -> tuple[dict[str, int], int, int]:
    """{column: its number}, the first example's line, how many columns."""
    names, first = head.split("\t"), 1
    wanted = {*task.texts, task.label}
    if task.columns and not set(task.texts) <= set(names):
        names, first = list(task.columns), 0
    missing = sorted(wanted - set(names))
    if missing == [task.label] and not labelled:
        missing = []
    if missing:
        raise InputError(
            f"{path}, line 1: no column {', '.join(map(repr, missing))} in "
            f"{head[:80]!r}; expected GLUE's {task.folder}"
            + (" with labels" if missing == [task.label] else "")
        )
    for name in wanted:
        if names.count(name) > 1:
            raise InputError(
                f"{path}, line 1: column {name!r} is there {names.count(name)} "
                "times; give each column a name of its own"
            )
    columns = {n: names.index(n) for n in wanted if n in names}
    return columns, first, len(names)


def _label(path: str, number: int, task: Task, text: str) -> float:
    text = text.strip()
    if task.scale:
        return _score(path, number, task.scale, text)
    if text not in task.labels:
        raise InputError(
            f"{path}, line {number}: label {text[:40]!r}, expected one of "
            f"{', '.join(task.labels)}"
        )
    return task.labels.index(text)


def _score(path: str, number: int, scale: tuple, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    least, greatest = scale
    if not least <= score <= greatest:
        raise InputError(
            f"{path}, line {number}: label {text[:40]!r}, expected a number "
            f"from {least:g} to {greatest:g}"
        )
    return score
