"""Ranking of sentences, and ROUGE: no network."""

import itertools
import random

import numpy as np
import pytest
from rouge_score import rouge_scorer

from official_models.nlp.summarization import oracle, ranking, rouge
from tests.official_models.nlp.summarization.test_documents import random_text


def test_ranking_by_score_with_and_without_blocking():
    document = ["a b c d", "x b c d y", "e f g", "h"]
    scores = [0.9, 0.8, 0.7, 0.6]
    assert ranking.select(document, scores, 3) == [0, 2, 3]
    assert ranking.select(document, scores, 3, block=False) == [0, 1, 2]
    assert ranking.select(document, scores, 1) == [0]
    assert ranking.select(document, [0.5, 0.5]) == [0]  # of equals the first
    assert ranking.lead(document) == [0, 1, 2]
    assert ranking.lead(document[:1]) == [0]


def test_no_trigram_is_repeated_after_blocking():
    rng = random.Random(4)
    for _ in range(30):
        document = [random_text(rng, 5, "abc") for _ in range(8)]
        scores = [rng.random() for _ in document]
        chosen = ranking.select(document, scores, 4)
        found = [oracle.ngrams(document[i].split(), 3) for i in chosen]
        for one, other in itertools.combinations(found, 2):
            assert not one & other


def test_rouge_lsum_is_of_lines_and_not_rouge_l():
    summary, reference = ["a b", "c d"], ["c d", "a b"]
    found = rouge.scores_of([summary], [[reference]], jobs=1)
    assert found["rougeLsum"] == [1.0]
    joined = rouge_scorer.RougeScorer(["rougeL"]).score(
        " ".join(reference), " ".join(summary)
    )
    assert joined["rougeL"].fmeasure == 0.5


def test_the_best_reference_counts_and_nothing_scores_zero():
    found = rouge.scores_of([["a b"], []], [[["x"], ["a b"]], [["a"]]])
    assert found["rouge1"].tolist() == [1.0, 0.0]
    assert found["rouge2"].tolist() == [1.0, 0.0]


def test_intervals_are_those_of_the_mean_and_repeatable():
    values = np.random.default_rng(0).normal(size=400)
    low, high = rouge.interval(values)
    assert (low, high) == rouge.interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    row = rouge.row({"rouge1": values, "rouge2": values, "rougeLsum": values})
    assert row["rouge1"]["mean"] == pytest.approx(100 * values.mean())
    text = rouge.table({"Lead-3": row})
    assert "Lead-3" in text and f"{100 * values.mean():.2f} (" in text
    zero = rouge.difference({"rouge1": values}, {"rouge1": values})
    assert zero["rouge1"] == {"mean": 0, "interval_95": [0, 0]}
    assert rouge.interval(values[:1]) == (values[0], values[0])
