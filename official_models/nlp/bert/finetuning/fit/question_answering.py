"""SQuAD for Keras' `fit`, and answers to questions on any paragraphs.

Axes: N windows, T tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning import answers, questions, windows
from official_models.nlp.bert.finetuning.fit import prediction, training
from official_models.nlp.bert.finetuning.fit.training import TOKENS, Encoded
from official_models.nlp.bert.finetuning.questions import POSITIONS, Options
from official_models.nlp.bert.finetuning.windows import Window
from official_models.nlp.checkpoint import models
from official_models.nlp.datasets import squad

TASK = "squad"
# What task.json has of `Options`; their types.
_KEPT = {
    "doc_stride": int,
    "max_query_length": int,
    "n_best_size": int,
    "max_answer_length": int,
    "version_2_with_negative": bool,
    "null_score_diff_threshold": float,
}


class QuestionAnswering:
    """A `training.Task` of SQuAD 1.1 or 2.0.

    Args:
        options: The published script's; `train_file` and `predict_file` are
            the two files.
        tokenizer: Of the model's vocabulary.
        max_seq_length: T.

    Raises:
        InputError: A file is missing or damaged, or has no answers; an option
            is out of range.
    """

    unit = "windows"
    labels = ()
    compared_by = "dev", "f1"

    def __init__(self, options: Options, tokenizer, max_seq_length: int):
        self._options = options
        version = "2.0" if options.version_2_with_negative else "1.1"
        self.name = f"SQuAD {version}"
        self.record = {
            "task_name": TASK,
            "max_seq_length": max_seq_length,
            **{name: getattr(options, name) for name in _KEPT},
        }
        self.figures = {}

        def cut(asked):
            return options.windows(asked, tokenizer, max_seq_length)

        train = self._read("train", options.train_file)
        kept = options.trainable(train, f"--train_file {options.train_file}")
        self.train = encode(cut(kept), max_seq_length)
        self._questions = self._read("dev", options.predict_file)
        if not any(q.answers or q.is_impossible for q in self._questions):
            raise InputError(
                f"--dev_file {options.predict_file}: has no answers to compare "
                "with; expected a file with answers, or --predict with it"
            )
        self._windows = list(cut(self._questions))
        self._dev = encode(self._windows, max_seq_length)
        for split, data in (("train", self.train), ("dev", self._dev)):
            training.print_unknown(split, data, tokenizer)
        left_out = len(train) - len(kept)
        self.figures["train"] |= {
            "left_out": left_out,
            "windows": self.train.number,
        }
        self.figures["dev"] |= {"windows": self._dev.number}

    def _read(self, split: str, path: str) -> list[squad.Question]:
        """The questions of a file; says what is wrong with its answers."""
        found, faults = squad.read_squad(path)
        for line in questions.describe_faults(path, len(found), faults):
            print(line)
        impossible = sum(question.is_impossible for question in found)
        if impossible and not self._options.version_2_with_negative:
            print(
                f"{path}: {impossible} of {len(found)} questions have no "
                "answer: not trained on without --version_2, and right where "
                'the answer is ""'
            )
        self.figures[split] = {
            "questions": len(found),
            "without_answer": impossible,
            # Of questions: with an answer that is "moved", and so on.
            **{f"answer_{kind}": len(ids) for kind, ids in faults.items()},
        }
        return found

    def make_model(self, config, seed: int, dtype: str) -> keras.Model:
        """A finder of answers."""
        model = models.make(config, "span", seed=seed, dtype=dtype)
        # It has no part in the answers: without gradients, only decay would
        # move it, and on some backends only.
        model.get_layer("bert").pooler.trainable = False
        return model

    def compile_arguments(self) -> dict:
        """Mean of -log softmax(logits)[position] of start and end."""
        return {
            "loss": {
                name: keras.losses.SparseCategoricalCrossentropy(
                    from_logits=True
                )
                for name in POSITIONS
            },
            "loss_weights": dict.fromkeys(POSITIONS, 1 / len(POSITIONS)),
        }

    def measure(self, model: keras.Model, batch_size: int) -> training.Measured:
        """Exact match and F1 of the dev file, in percent, and its answers."""
        logits = logits_of(model, self._windows, self._dev.inputs, batch_size)
        found = self._options.answers(self._questions, self._windows, logits)
        scores = answers.score(self._questions, found.predictions)
        shown = {n: x for n, x in scores.items() if not n.endswith("total")}
        return training.Measured(
            {"dev": shown},
            questions.result_files(
                found, self._options.version_2_with_negative
            ),
        )

    def digest(self) -> str:
        """SHA-256 of both files' arrays and of the dev file's answers."""
        found = training.new_digest()
        self.train.add_to(found, "train")
        self._dev.add_to(found, "dev")
        rows = [(q.id, q.answers, q.is_impossible) for q in self._questions]
        found.update(hashlib.sha256(json.dumps(rows).encode()).digest())
        return found.hexdigest()

    def __str__(self) -> str:
        sizes = (
            f"{split} {row['questions'] - row.get('left_out', 0):,} questions "
            f"in {row['windows']:,} windows"
            for split, row in self.figures.items()
        )
        left_out = self.figures["train"]["left_out"]
        end = f"; {left_out:,} of train left out" if left_out else ""
        return f"{self.name}: {', '.join(sizes)}{end}."


def encode(cut, max_seq_length: int) -> Encoded:
    """Windows as arrays.

    Args:
        cut: One `Window` or more.
        max_seq_length: T.

    Returns:
        With labels {name in `POSITIONS`: int32 [N]}.
    """
    rows = (windows.features(window, max_seq_length) for window in cut)
    arrays = training.stacked(
        rows, dict.fromkeys((*TOKENS, *POSITIONS.values()), "int32")
    )
    return Encoded(
        {name: arrays[name] for name in TOKENS},
        {name: arrays[feature][:, 0] for name, feature in POSITIONS.items()},
    )


def logits_of(
    model: keras.Model,
    cut: Sequence[Window],
    inputs: Mapping[str, Any],
    batch_size: int,
) -> dict[int, answers.Logits]:
    """What a model says of windows, by `unique_id`.

    Raises:
        InputError: The outputs are not finite.
    """
    found = training.outputs_of(model, inputs, batch_size)
    pairs = zip(*(found[name] for name in POSITIONS), strict=True)
    return {
        window.unique_id: answers.Logits(*pair)
        for window, pair in zip(cut, pairs, strict=True)
    }


def predict(
    folder: Path, path: str, batch_size: int, changes: Mapping[str, Any]
) -> str:
    """The answers to the questions in a file, by the model in a run's folder.

    Args:
        folder: Of a complete run.
        path: SQuAD's JSON, or a question a line with a tab between it and its
            paragraph, in UTF-8; "-" is the standard input.
        batch_size: Windows at once.
        changes: Fields of `Options` in place of those of the run.

    Returns:
        A line of JSON for each question: `id` (of lines, their number from
        1), `question`, `answer` ("" for none), its `probability` among the
        best ones, and `nbest`, as in the published script's file.

    Raises:
        InputError: The run is not complete, or the text is not as expected.
    """
    options, length = _options_of(folder)
    options = dataclasses.replace(options, **changes)
    asked = read_questions(path)
    trained = prediction.open_trained(folder)
    cut = list(options.windows(asked, trained.tokenizer, length))
    inputs = encode(cut, length).inputs
    logits = logits_of(trained.model, cut, inputs, batch_size)
    found = options.answers(asked, cut, logits)
    return "\n".join(_line(question, found) for question in asked)


def _line(question: squad.Question, found: answers.Answers) -> str:
    answer, best = found.predictions[question.id], found.nbest[question.id]
    probability = next(x["probability"] for x in best if x["text"] == answer)
    row = {
        "id": question.id,
        "question": question.text,
        "answer": answer,
        "probability": probability,
        "nbest": best,
    }
    return json.dumps(row, ensure_ascii=False)


def _options_of(folder: Path) -> tuple[Options, int]:
    path, record = prediction.read_record(folder)
    try:
        if record["task_name"] != TASK:
            raise ValueError
        values = {name: kind(record[name]) for name, kind in _KEPT.items()}
        return Options(**values), int(record["max_seq_length"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not of a finder of answers; expected the folder of a "
            "run of this script"
        ) from error


def read_questions(path: str) -> list[squad.Question]:
    """The questions of --predict.

    Args:
        path: SQuAD's JSON, which begins with a brace, or lines; "-" is the
            standard input.

    Raises:
        InputError: It is neither.
    """
    name = f"--predict {path}"
    expected = "expected SQuAD's JSON, or a question, a tab, a paragraph a line"
    text = prediction.read_text(path, expected)
    if rows := squad.rows_of_lines(text, name):
        return squad.questions_of(rows, name)[0]
    if text.lstrip().startswith(("{", "[{")):
        try:
            content = files.parse_json(text)
        except ValueError as error:
            raise InputError(
                f"{name}: not JSON: {error}; {expected}"
            ) from error
        return squad.questions_of(content, name)[0]
    lines = prediction.lines_of(text)
    if not lines:
        raise InputError(f"{name}: empty; {expected}")
    found = []
    for number, line in enumerate(lines, 1):
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) != 2 or not all(parts):
            raise InputError(
                f"{name}, line {number}: got {line[:60]!r}, expected a "
                "question and a paragraph with a tab between them"
            )
        found.append(squad.Question(str(number), *parts))
    return found
