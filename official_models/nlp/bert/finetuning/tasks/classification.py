"""Fine-tuning on a task of GLUE: examples, loss, metrics, results.

Axes: B examples, T tokens, H hidden, K labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from absl import logging

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert import heads
from official_models.nlp.bert.finetuning import feature_records
from official_models.nlp.bert.finetuning import features as bert_features
from official_models.nlp.bert.finetuning.tasks.runner import Runner
from official_models.nlp.datasets import glue


class Classification:
    """A task of GLUE, for any training loop.

    Args:
        task: One of `glue.TASKS`.
        tokenizer: Of the model's vocabulary.
        max_seq_length: T.
        data_dir: Folder of the task's TSV files, on `gs://` too; None where
            no file is read.
        dropout: Rate before the classifier, in [0, 1).

    Attributes:
        lengths: {feature beside the tokens: its length in a record}.
        metrics: Names in `metrics.METRICS`, beside the accuracy.

    Raises:
        InputError: The task is a regression, whose labels the records of
            these features do not hold.
    """

    # Variables that a pretraining checkpoint does not have.
    new = (r"^output_(weights|bias)$",)

    def __init__(
        self,
        task: glue.Task,
        tokenizer,
        max_seq_length: int,
        *,
        data_dir: str | None = None,
        dropout: float = 0.1,
    ):
        if task.is_regression:
            raise InputError(
                f"--task_name {task.folder}: its labels are real numbers; "
                "expected a classification here, "
                "official_models.nlp.bert.finetune_classifier trains it"
            )
        self.task, self.tokenizer = task, tokenizer
        self.max_seq_length = max_seq_length
        self.data_dir, self.dropout = data_dir, dropout
        self.lengths = {"label_ids": 1}
        self.metrics = task.metrics

    def layers(self, config, **options) -> tuple:
        """The encoder and the head; the options are `seed` and `dtype`."""
        return heads.classifier_layers(
            config, len(self.task.labels), dropout=self.dropout, **options
        )

    def logits(self, outputs: tuple, head, training: bool) -> tf.Tensor:
        """Of the encoder's outputs: [B, K]."""
        return head(outputs[1], training=training)

    def labels(self, features: dict) -> tf.Tensor:
        """Of a batch of records: int32 [B]."""
        return features["label_ids"][:, 0]

    def losses(self, logits: tf.Tensor, features: dict) -> tf.Tensor:
        """-log softmax(logits)[label] of each example, [B]."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            self.labels(features), logits
        )

    def predictions(self, logits: tf.Tensor, features: dict) -> dict:
        """`probabilities` and `logits` [B, K], `label` int32 [B]."""
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "label": tf.argmax(logits, -1, tf.int32),
        }

    def write_train_records(self, path: str) -> int:
        """Writes the training set; returns its number of examples.

        Raises:
            InputError: A file of the task is missing or damaged.
        """
        return self.write_records("train", path)[0]

    def write_records(
        self, split: str, path: str, multiple: int = 1, *, labelled: bool = True
    ) -> tuple[int, int]:
        """Writes the examples of a split; a warning counts lines cut off.

        Args:
            split: As in `glue.read_split`.
            path: Of the TFRecords, on `gs://` too.
            multiple: The number of records is rounded up to one of it, by
                records that do not count.
            labelled: False also takes a file without labels.

        Returns:
            How many examples there are, and how many records.

        Raises:
            InputError: A file of the task is missing or damaged.
        """
        examples, broken = glue.read_split(
            self.data_dir, self.task, split, labelled=labelled
        )
        if broken:
            logging.warning(
                "%s: %d lines are cut off and were passed over, such as %s",
                split,
                len(broken),
                broken[:5],
            )
        rows = bert_features.encode(
            examples, self.tokenizer, self.max_seq_length
        )
        return feature_records.write_features(path, rows, multiple)

    def evaluate(self, runner: Runner) -> dict[str, dict[str, float]]:
        """Evaluates the dev splits; writes `eval_results.json`.

        Returns:
            {split: {metric: value}}.

        Raises:
            InputError: A file of the task is missing or damaged.
        """
        results, batch = {}, runner.eval_batch_size
        for split in self.task.dev_splits:
            path = os.path.join(runner.folder, f"{split}.tf_record")
            _, number = self.write_records(split, path, batch)
            results[split] = runner.evaluate(path, number // batch)
        path = os.path.join(runner.folder, "eval_results.json")
        files.write_text(path, json.dumps(results, indent=2) + "\n")
        return results

    def predict(self, runner: Runner) -> None:
        """Writes `test_results.tsv`: a line an example, a column a label.

        MNLI's second test set goes to `test_results_mismatched.tsv`.

        Raises:
            InputError: A file of the task is missing or damaged, or the
                predictions are not finite.
        """
        for i, split in enumerate(self.task.test_splits):
            path = os.path.join(runner.folder, f"{split}.tf_record")
            number, _ = self.write_records(
                split, path, runner.predict_batch_size, labelled=False
            )
            suffix = f"_{split[5:]}" if i else ""
            name = os.path.join(runner.folder, f"test_results{suffix}.tsv")
            rows = (row["probabilities"] for row in runner.predict(path))
            write_probabilities(name, list(rows)[:number])


def write_probabilities(path: str, rows: Iterable[np.ndarray]) -> None:
    """Writes a line an example, a column a label, between them tabs.

    Args:
        path: Of the file, on `gs://` too.
        rows: Probabilities [K] of each example.

    Raises:
        InputError: They are not finite.
    """
    rows = list(rows)
    if not np.isfinite(rows).all():
        raise InputError(
            f"{path}: the predictions are not finite; the training has "
            "diverged: lower the rate"
        )
    lines = ("\t".join(map(str, row)) + "\n" for row in rows)
    files.write_text(path, "".join(lines))
