"""Fine-tuning on a task of GLUE: examples, loss, metrics, results.

Axes: B examples, T tokens, K labels.
"""

from __future__ import annotations

import json
import os

import numpy as np
import tensorflow as tf
from absl import flags, logging

from official_models.common.errors import InputError
from official_models.nlp.bert import heads
from official_models.nlp.bert.finetuning import features as bert_features
from official_models.nlp.datasets import glue
from tpu import job

tf1 = tf.compat.v1
FLAGS = flags.FLAGS


class Classification:
    """What `bert_finetuning` has to know of a classification.

    Args:
        task: of `glue.TASKS`.
        tokenizer: of `wordpiece.load_tokenizer`.
        max_seq_length: T.
    """

    # Variables that a pretraining checkpoint does not have.
    new = (r"^output_(weights|bias)$",)

    def __init__(self, task: glue.Task, tokenizer, max_seq_length: int):
        self.task, self.tokenizer = task, tokenizer
        self.max_seq_length = max_seq_length
        self.lengths = {"label_ids": 1}

    def layers(self, config, **options):
        """The encoder and the head."""
        return heads.classifier_layers(
            config, len(self.task.labels), dropout=FLAGS.dropout, **options
        )

    def logits(self, outputs, head, training: bool) -> tf.Tensor:
        """[B, K]."""
        return head(outputs[1], training=training)

    def losses(self, logits: tf.Tensor, features: dict) -> tf.Tensor:
        """By example, [B]."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            features["label_ids"][:, 0], logits
        )

    def predictions(self, logits: tf.Tensor, features: dict) -> dict:
        """`probabilities` and `logits` [B, K], `label` [B]."""
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "label": tf.argmax(logits, -1, tf.int32),
        }

    def eval_metrics(self, logits, features: dict, losses) -> tuple:
        """`eval_accuracy`, `eval_loss` and the task's, for a spec."""
        tensors = {
            "labels": features["label_ids"][:, 0],
            "predictions": tf.argmax(logits, -1, tf.int32),
            "losses": losses,
            "weights": features[bert_features.REAL],
        }
        extra = {f"eval_{n}": METRICS[n] for n in self.task.metrics}

        def metric_fn(labels, predictions, losses, weights):
            found = {
                "eval_accuracy": tf1.metrics.accuracy(
                    labels, predictions, weights
                ),
                "eval_loss": tf1.metrics.mean(losses, weights),
            }
            if extra:
                counts = confusion(labels, predictions, weights)
                for name, formula in extra.items():
                    found[name] = tuple(formula(*row) for row in counts)
            return found

        return metric_fn, tensors

    def write_train_records(self, path: str) -> int:
        """Writes the training set; returns its number of examples."""
        return self._write("train", path, 1, labelled=True)[0]

    def _write(self, split: str, path: str, multiple: int, labelled: bool):
        examples, broken = glue.read_split(
            FLAGS.data_dir, self.task, split, labelled=labelled
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
        return bert_features.write_features(path, rows, multiple)

    def evaluate(self, estimator, input_fn_of) -> dict:
        """Evaluates the dev splits; writes `eval_results.json`.

        Args:
            estimator: the job's.
            input_fn_of: gives the input function of a file of records.

        Returns:
            {split: {metric: value}}.
        """
        folder, results = FLAGS.output_dir, {}
        for split in self.task.dev_splits:
            path = os.path.join(folder, f"{split}.tf_record")
            batch = FLAGS.eval_batch_size
            _, number = self._write(split, path, batch, labelled=True)
            metrics = job.evaluate(
                estimator, input_fn_of(path), number // batch
            )
            # Estimator's own mean counts the padding of the last batch.
            del metrics["loss"]
            results[split] = metrics
        job.write_text(
            os.path.join(folder, "eval_results.json"),
            json.dumps(results, indent=2) + "\n",
        )
        return results

    def predict(self, estimator, input_fn_of) -> None:
        """Writes `test_results.tsv`: a line an example, a column a label.

        MNLI's second test set goes to `test_results_mismatched.tsv`.
        """
        for i, split in enumerate(self.task.test_splits):
            path = os.path.join(FLAGS.output_dir, f"{split}.tf_record")
            number, _ = self._write(
                split, path, FLAGS.predict_batch_size, labelled=False
            )
            rows = [
                row["probabilities"]
                for row in job.predict(estimator, input_fn_of(path))
            ][:number]
            if not np.isfinite(rows).all():
                raise InputError(
                    f"{estimator.model_dir}: its predictions are not finite; "
                    "the training has diverged: lower the rate"
                )
            suffix = f"_{split[5:]}" if i else ""
            job.write_text(
                os.path.join(FLAGS.output_dir, f"test_results{suffix}.tsv"),
                "".join("\t".join(map(str, row)) + "\n" for row in rows),
            )


def f1(tp, fp, fn, tn):
    """F1 of label 1 from the four counts; 0 without any of it."""
    del tn
    return tf.math.divide_no_nan(2 * tp, 2 * tp + fp + fn)


def matthews(tp, fp, fn, tn):
    """Matthews' correlation from the four counts; 0 where it is undefined."""
    # The product of four counts would be too large for float32's 24 bits.
    scale = tf.sqrt(tp + fp) * tf.sqrt(tp + fn)
    scale *= tf.sqrt(tn + fp) * tf.sqrt(tn + fn)
    return tf.math.divide_no_nan(tp * tn - fp * fn, scale)


METRICS = {"f1": f1, "matthews": matthews}


def confusion(labels, predictions, weights) -> tuple:
    """(tp, fp, fn, tn), and the same with the updates of this batch."""
    counts = [
        count(labels, predictions, weights)
        for count in (
            tf1.metrics.true_positives,
            tf1.metrics.false_positives,
            tf1.metrics.false_negatives,
            tf1.metrics.true_negatives,
        )
    ]
    return tuple(zip(*counts))
