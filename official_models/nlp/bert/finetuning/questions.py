"""SQuAD's files for fine-tuning: which questions are used, what is written.

For any training loop.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning import answers, windows
from official_models.nlp.datasets import squad

# Output of the model -> the feature that it has to find.
POSITIONS = {
    "start_logits": "start_positions",
    "end_logits": "end_positions",
}
# What `squad.read_squad` finds -> in words.
FAULTS = {
    "moved": "that begins elsewhere (the nearest is taken)",
    "absent": "that is not in the paragraph",
    "inside": "that begins or ends within a word",
}
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Options:
    """The published script's options.

    Args:
        train_file: SQuAD's JSON to train on; None where none is read.
        predict_file: SQuAD's JSON to answer; None where none is read.
        doc_stride: Tokens between two windows' beginnings.
        max_query_length: Tokens of a question.
        n_best_size: Best starts and ends that are paired, and answers listed.
        max_answer_length: Tokens of an answer.
        version_2_with_negative: A question may have no answer (SQuAD 2.0).
        null_score_diff_threshold: It has none where null score - best score
            is more than this.
    """

    train_file: str | None = None
    predict_file: str | None = None
    doc_stride: int = 128
    max_query_length: int = 64
    n_best_size: int = 20
    max_answer_length: int = 30
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0

    def windows(
        self, questions: Sequence[squad.Question], tokenizer, max_seq_length
    ) -> Iterator[windows.Window]:
        """The windows of `windows.cut`.

        Raises:
            InputError: As there.
        """
        return windows.cut(
            questions,
            tokenizer,
            max_seq_length=max_seq_length,
            doc_stride=self.doc_stride,
            max_query_length=self.max_query_length,
        )

    def answers(
        self,
        questions: Sequence[squad.Question],
        cut: Sequence[windows.Window],
        logits: Mapping[int, answers.Logits],
    ) -> answers.Answers:
        """The answers of `answers.answers`.

        Raises:
            InputError: As there.
        """
        return answers.answers(
            questions,
            cut,
            logits,
            n_best_size=self.n_best_size,
            max_answer_length=self.max_answer_length,
            version_2_with_negative=self.version_2_with_negative,
            null_score_diff_threshold=self.null_score_diff_threshold,
        )

    def trainable(
        self, questions: Sequence[squad.Question], where: str
    ) -> list[squad.Question]:
        """The questions that can be trained on.

        One whose answer is not in its paragraph is left out; so is, but of
        SQuAD 2.0, one that has none.

        Args:
            questions: Of a file.
            where: Begins the message, such as "--train_file train.json".

        Raises:
            InputError: No question has an answer.
        """
        kept = [q for q in questions if q.is_impossible or has_answer(q)]
        if not self.version_2_with_negative:
            kept = [q for q in kept if not q.is_impossible]
        if not kept:
            raise InputError(
                f"{where}: none of its {len(questions)} questions has an answer"
            )
        return kept


def has_answer(question: squad.Question) -> bool:
    """Whether the answer to be learned, the first, is in the paragraph."""
    return bool(question.starts) and question.starts[0] is not None


def describe_faults(
    path: str, number: int, faults: Mapping[str, Sequence[str]]
) -> list[str]:
    """A line for each kind of wrong answers that a file has.

    Args:
        path: Of the file.
        number: Of its questions.
        faults: Of `squad.read_squad`.
    """
    return [
        f"{path}: {len(ids)} of {number} questions have an answer "
        f"{FAULTS[kind]}, such as {', '.join(ids[:_SHOWN])}"
        for kind, ids in faults.items()
        if ids
    ]


def result_files(found: answers.Answers, version_2: bool) -> dict[str, dict]:
    """The files of the published script: {name: what it holds}.

    Args:
        found: The answers.
        version_2: Whether a question may have none.
    """
    odds = {"null_odds.json": found.null_odds} if version_2 else {}
    return {
        "predictions.json": found.predictions,
        "nbest_predictions.json": found.nbest,
        **odds,
    }


def write_results(
    folder: str | os.PathLike, results: Mapping[str, dict]
) -> None:
    """Writes `result_files` into a folder, on `gs://` too."""
    for name, content in results.items():
        path = os.path.join(folder, name)
        files.write_json(path, content, ensure_ascii=False)
