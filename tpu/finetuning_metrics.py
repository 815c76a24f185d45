"""The metrics of a fine-tuning task, for a `TPUEstimatorSpec`.

Axes: B examples.
"""

from __future__ import annotations

import tensorflow as tf

from official_models.nlp.bert.finetuning import feature_records
from official_models.nlp.bert.finetuning.metrics import METRICS

tf1 = tf.compat.v1


def eval_metrics(task, logits, features: dict, losses: tf.Tensor) -> tuple:
    """`eval_loss` and, of a classification, `eval_accuracy` and its own.

    Records that only fill up the last batch do not count.

    Args:
        task: A `Classification` or `QuestionAnswering`.
        logits: Of `task.logits`.
        features: A batch of records.
        losses: Of `task.losses`, [B].

    Returns:
        What the argument `eval_metrics` of the spec has to be: a function and
        the tensors that it takes.
    """
    tensors = {"losses": losses, "weights": features[feature_records.REAL]}
    if task.metrics is not None:
        tensors["labels"] = task.labels(features)
        tensors["predictions"] = task.predictions(logits, features)["label"]

    def metric_fn(losses, weights, labels=None, predictions=None):
        found = {"eval_loss": tf1.metrics.mean(losses, weights)}
        if labels is None:
            return found
        found["eval_accuracy"] = tf1.metrics.accuracy(
            labels, predictions, weights
        )
        if task.metrics:
            counts = confusion(labels, predictions, weights)
            for name in task.metrics:
                found[f"eval_{name}"] = tuple(
                    tf.math.divide_no_nan(*METRICS[name](*row))
                    for row in counts
                )
        return found

    return metric_fn, tensors


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
