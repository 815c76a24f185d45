"""Metrics of GLUE from all examples at once, against other libraries."""

import numpy as np
import pytest
from scipy import stats

from official_models.nlp.bert.finetuning import metrics
from official_models.nlp.datasets import glue


def test_correlations_of_a_regression():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 50) / 1.0  # with ties
    scores = labels + rng.normal(0, 2, 50)
    found = metrics.measure(glue.TASKS["sts-b"], scores[:, None], labels)
    assert list(found) == ["pearson", "spearman"]
    assert found["pearson"] == pytest.approx(stats.pearsonr(scores, labels)[0])
    expected = stats.spearmanr(scores, labels)[0]
    assert found["spearman"] == pytest.approx(expected)
    assert metrics.correlation(np.ones(50), labels) == 0


def test_metrics_of_a_classification():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 2, (2, 40))
    logits = np.stack([-guesses, guesses], -1).astype("float32")
    found = metrics.measure(glue.TASKS["mrpc"], logits, labels)
    assert list(found) == ["f1", "accuracy"]
    precision, recall = labels[guesses == 1].mean(), guesses[labels == 1].mean()
    expected = 2 * precision * recall / (precision + recall)
    assert found["f1"] == pytest.approx(expected)
    assert found["accuracy"] == np.mean(labels == guesses)
    found = metrics.measure(glue.TASKS["cola"], logits, labels)
    assert list(found) == ["accuracy", "matthews"]
    expected = np.corrcoef(labels, guesses)[0, 1]
    assert found["matthews"] == pytest.approx(expected)
    assert metrics.names_of(glue.TASKS["mnli"]) == ("accuracy",)
