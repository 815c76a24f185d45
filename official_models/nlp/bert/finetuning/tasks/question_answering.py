"""Fine-tuning on SQuAD: windows, loss, answers.

Axes: B windows, T tokens.
"""

from __future__ import annotations

import dataclasses
import json
import os

import tensorflow as tf
from absl import logging

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert import heads
from official_models.nlp.bert.finetuning import answers, windows
from official_models.nlp.bert.finetuning import features as bert_features
from official_models.nlp.bert.finetuning.tasks.runner import Runner
from official_models.nlp.datasets import squad

NAMES = "start_logits", "end_logits"
POSITIONS = "start_positions", "end_positions"


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


class QuestionAnswering:
    """SQuAD, for any training loop.

    Args:
        tokenizer: Of the model's vocabulary.
        max_seq_length: T.
        options: The published script's.

    Attributes:
        lengths: {feature beside the tokens: its length in a record}.
        metrics: None beside the loss: `evaluate` has the official ones.
    """

    # Variables that a pretraining checkpoint does not have.
    new = (r"^cls/squad/output_(weights|bias)$",)
    metrics = None

    def __init__(
        self, tokenizer, max_seq_length: int, options: Options = Options()
    ):
        self.tokenizer, self.max_seq_length = tokenizer, max_seq_length
        self.options = options
        self.lengths = dict.fromkeys(("unique_ids", *POSITIONS), 1)
        self._answered = None

    def layers(self, config, **options) -> tuple:
        """The encoder and the head; the options are `seed` and `dtype`."""
        return heads.span_layers(config, **options)

    def logits(self, outputs: tuple, head, training: bool) -> dict:
        """Of the encoder's outputs: `start_logits` and `end_logits` [B, T]."""
        return head(outputs[0], training=training)

    def losses(self, logits: dict, features: dict) -> tf.Tensor:
        """Mean of -log softmax(logits)[position] of start and end, [B]."""
        return tf.add_n(
            [
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    features[position][:, 0], logits[name]
                )
                for position, name in zip(POSITIONS, NAMES)
            ]
        ) / len(NAMES)

    def predictions(self, logits: dict, features: dict) -> dict:
        """The logits and, of records, `unique_ids` [B, 1]."""
        ids = {n: features[n] for n in ("unique_ids",) if n in features}
        return {**logits, **ids}

    def write_train_records(self, path: str) -> int:
        """Writes the training set's windows; returns their number.

        A question whose answer is not in its paragraph is left out.

        Raises:
            InputError: The file is missing or damaged, or no question of it
                has an answer.
        """
        questions = _read(self.options.train_file)
        kept = [q for q in questions if q.is_impossible or _has_answer(q)]
        if not self.options.version_2_with_negative:
            kept = [q for q in kept if not q.is_impossible]
        if not kept:
            raise InputError(
                f"--train_file {self.options.train_file}: none of its "
                f"{len(questions)} questions has an answer"
            )
        return self._write(path, self._windows(kept))[0]

    def evaluate(self, runner: Runner) -> dict[str, dict[str, float]]:
        """Answers the `predict_file`; writes `eval_results.json`.

        Returns:
            {"dev": {metric: value}}, the official ones, in percent.

        Raises:
            InputError: The file is missing or damaged, or has no answers.
        """
        questions, found = self._answer(runner)
        if not any(q.answers or q.is_impossible for q in questions):
            raise InputError(
                f"--predict_file {self.options.predict_file}: has no answers "
                "to evaluate by; use --do_predict alone"
            )
        scores = answers.score(questions, found.predictions)
        scores["global_step"] = runner.step()
        results = {"dev": scores}
        _write_json(runner.folder, "eval_results.json", results)
        return results

    def predict(self, runner: Runner) -> None:
        """Answers the `predict_file`, unless `evaluate` has already.

        Writes `predictions.json`, `nbest_predictions.json` and, of SQuAD 2.0,
        `null_odds.json`.

        Raises:
            InputError: The file is missing or damaged, or the logits are not
                finite.
        """
        if not self._answered:
            self._answer(runner)

    def _answer(self, runner):
        """Questions and answers; writes the latter's three files."""
        options = self.options
        questions = _read(options.predict_file)
        cut = list(self._windows(questions))
        path = os.path.join(runner.folder, "eval.tf_record")
        self._write(path, cut, runner.predict_batch_size)
        logits = {
            int(row["unique_ids"][0]): answers.Logits(
                *(row[name] for name in NAMES)
            )
            for row in runner.predict(path)
        }
        found = answers.answers(
            questions,
            cut,
            logits,
            n_best_size=options.n_best_size,
            max_answer_length=options.max_answer_length,
            version_2_with_negative=options.version_2_with_negative,
            null_score_diff_threshold=options.null_score_diff_threshold,
        )
        _write_json(runner.folder, "predictions.json", found.predictions)
        _write_json(runner.folder, "nbest_predictions.json", found.nbest)
        if options.version_2_with_negative:
            _write_json(runner.folder, "null_odds.json", found.null_odds)
        self._answered = questions, found
        return self._answered

    def _windows(self, questions):
        return windows.cut(
            questions,
            self.tokenizer,
            max_seq_length=self.max_seq_length,
            doc_stride=self.options.doc_stride,
            max_query_length=self.options.max_query_length,
        )

    def _write(self, path, cut, multiple=1):
        rows = (windows.features(w, self.max_seq_length) for w in cut)
        return bert_features.write_features(path, rows, multiple)


def _has_answer(question: squad.Question) -> bool:
    return bool(question.starts) and question.starts[0] is not None


def _read(path: str) -> list[squad.Question]:
    """The questions of a file; a warning counts what is wrong with it."""
    questions, faults = squad.read_squad(path)
    for kind, ids in faults.items():
        if ids:
            logging.warning(
                "%s: %d of %d questions have an answer %s, such as %s",
                path,
                len(ids),
                len(questions),
                {
                    "moved": "that begins elsewhere (the nearest is taken)",
                    "absent": "that is not in the paragraph",
                    "inside": "that begins or ends within a word",
                }[kind],
                ", ".join(ids[:3]),
            )
    return questions


def _write_json(folder: str, name: str, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    files.write_text(os.path.join(folder, name), text)
