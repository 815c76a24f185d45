"""Fine-tuning on SQuAD: windows, loss, answers.

Axes: B windows, T tokens.
"""

from __future__ import annotations

import os

import tensorflow as tf
from absl import logging

from official_models.common.errors import InputError
from official_models.nlp.bert import heads
from official_models.nlp.bert.finetuning import (
    answers,
    feature_records,
    questions,
    windows,
)
from official_models.nlp.bert.finetuning.questions import Options
from official_models.nlp.bert.finetuning.tasks.runner import Runner
from official_models.nlp.datasets import squad

NAMES, POSITIONS = zip(*questions.POSITIONS.items(), strict=True)


class QuestionAnswering:
    """SQuAD, for any training loop.

    Args:
        tokenizer: Of the model's vocabulary.
        max_seq_length: T.
        options: The published script's; None for its defaults.

    Attributes:
        lengths: {feature beside the tokens: its length in a record}.
        metrics: None beside the loss: `evaluate` has the official ones.
    """

    # Variables that a pretraining checkpoint does not have.
    new = (r"^cls/squad/output_(weights|bias)$",)
    metrics = None

    def __init__(
        self, tokenizer, max_seq_length: int, options: Options | None = None
    ):
        self.tokenizer, self.max_seq_length = tokenizer, max_seq_length
        self.options = options or Options()
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
        name = self.options.train_file
        kept = self.options.trainable(_read(name), f"--train_file {name}")
        return self._write(path, self._windows(kept))[0]

    def evaluate(self, runner: Runner) -> dict[str, dict[str, float]]:
        """Answers the `predict_file`; writes `eval_results.json`.

        Returns:
            {"dev": {metric: value}}, the official ones, in percent.

        Raises:
            InputError: The file is missing or damaged, or has no answers.
        """
        asked, found = self._answer(runner)
        if not any(q.answers or q.is_impossible for q in asked):
            raise InputError(
                f"--predict_file {self.options.predict_file}: has no answers "
                "to evaluate by; use --do_predict alone"
            )
        scores = answers.score(asked, found.predictions)
        scores["global_step"] = runner.step()
        results = {"dev": scores}
        questions.write_results(runner.folder, {"eval_results.json": results})
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
        asked = _read(options.predict_file)
        cut = list(self._windows(asked))
        path = os.path.join(runner.folder, "eval.tf_record")
        self._write(path, cut, runner.predict_batch_size)
        logits = {
            int(row["unique_ids"][0]): answers.Logits(
                *(row[name] for name in NAMES)
            )
            for row in runner.predict(path)
        }
        found = options.answers(asked, cut, logits)
        questions.write_results(
            runner.folder,
            questions.result_files(found, options.version_2_with_negative),
        )
        self._answered = asked, found
        return self._answered

    def _windows(self, asked):
        return self.options.windows(asked, self.tokenizer, self.max_seq_length)

    def _write(self, path, cut, multiple=1):
        rows = (windows.features(w, self.max_seq_length) for w in cut)
        return feature_records.write_features(path, rows, multiple)


def _read(path: str) -> list[squad.Question]:
    """The questions of a file; a warning counts what is wrong with it."""
    found, faults = squad.read_squad(path)
    for line in questions.describe_faults(path, len(found), faults):
        logging.warning(line)
    return found
