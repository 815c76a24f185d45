"""Metrics of GLUE's tasks: fractions of counts, and values from arrays.

Axes: N examples, K labels.

References:
    https://arxiv.org/abs/1804.07461, table 1
"""

from __future__ import annotations

import numpy as np

from official_models.nlp.datasets.glue import Task


def f1(tp, fp, fn, tn) -> tuple:
    """F1 of label 1 from the four counts: 2 tp / (2 tp + fp + fn).

    Args:
        tp: True positives, a number or a tensor, floating point.
        fp: False positives.
        fn: False negatives.
        tn: True negatives, which do not count.

    Returns:
        Numerator and denominator; the metric is 0 where the latter is.
    """
    del tn
    return 2 * tp, 2 * tp + fp + fn


def matthews(tp, fp, fn, tn) -> tuple:
    """Matthews' correlation from the four counts.

    (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn)).

    Args:
        tp: True positives, a number or a tensor, floating point.
        fp: False positives.
        fn: False negatives.
        tn: True negatives.

    Returns:
        Numerator and denominator; the metric is 0 where the latter is.
    """
    # The product of four counts would be too large for float32's 24 bits.
    scale = (tp + fp) ** 0.5 * (tp + fn) ** 0.5
    scale *= (tn + fp) ** 0.5 * (tn + fn) ** 0.5
    return tp * tn - fp * fn, scale


METRICS = {"f1": f1, "matthews": matthews}
# The last one of these that a task has is its main one.
_RANK = ("f1", "accuracy", "matthews")


def names_of(task: Task) -> tuple[str, ...]:
    """The metrics of a task; the last one is what models are compared by.

    That is the accuracy, but for CoLA Matthews' and for STS-B Spearman's
    correlation.
    """
    if task.is_regression:
        return task.metrics
    return tuple(sorted({*task.metrics, "accuracy"}, key=_RANK.index))


def measure(task: Task, logits: np.ndarray, labels) -> dict[str, float]:
    """The metrics of a task from all of its examples at once.

    Args:
        task: One of `glue.TASKS`.
        logits: [N, K], finite; of a regression [N, 1], the numbers themselves.
        labels: [N], of `glue.Example`.

    Returns:
        {metric: value} in the order of `names_of`.
    """
    labels = np.asarray(labels)
    if task.is_regression:
        scores = logits[:, 0]
        found = {
            "pearson": correlation(scores, labels),
            "spearman": correlation(ranks(scores), ranks(labels)),
        }
        return {name: found[name] for name in names_of(task)}
    guesses = logits.argmax(-1)
    counts = [
        np.float64(np.sum((guesses == guess) & (labels == label)))
        for guess, label in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    found = {name: _quotient(*METRICS[name](*counts)) for name in task.metrics}
    found["accuracy"] = float(np.mean(guesses == labels))
    return {name: found[name] for name in names_of(task)}


def _quotient(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else 0.0


def correlation(x, y) -> float:
    """Pearson's correlation of two [N]; 0 where one does not vary."""
    x, y = (np.asarray(v, "float64") - np.mean(v) for v in (x, y))
    scale = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / scale) if scale else 0.0


def ranks(x) -> np.ndarray:
    """Ranks from 1 of [N]; equal values share the mean of theirs."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
