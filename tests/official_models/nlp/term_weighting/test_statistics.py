"""Statistics of terms, given weights and F1, against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import f1_score, mutual_info_score

from official_models.nlp.term_weighting import (
    metrics,
    statistics,
    transformer,
    weighting,
)
from tests.official_models.scripts import refusal

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.6, (60, 12))
COUNTS[:, 3] = 0  # a term that is nowhere
COUNTS[:, 4] = 2  # and one that is everywhere
LABELS = RNG.random(60) < 0.3
COUNTS[LABELS, 5] += 1
TABLE = statistics.table(sparse.csr_matrix(COUNTS), LABELS)


def test_the_table_by_hand():
    counts = np.array([[1, 0], [3, 2], [0, 1], [0, 0], [0, 1]])
    labels = np.array([True, True, True, False, False])
    for kind in (np.asarray, sparse.csr_matrix):
        found = statistics.table(kind(counts), labels)
        for cell, expected in zip(found, ([2, 2], [0, 1], [1, 1], [2, 1])):
            np.testing.assert_array_equal(cell, expected)
        np.testing.assert_allclose(found.rates, [[2 / 3, 0], [2 / 3, 1 / 2]])


def test_information_gain_is_mutual_information_in_bits():
    found = statistics.information_gain(TABLE)
    for term, value in enumerate(found):
        present = COUNTS[:, term] > 0
        expected = mutual_info_score(present, LABELS) / np.log(2)
        assert value == pytest.approx(expected, abs=1e-12)
    assert found[3] == found[4] == 0


def test_chi_square_is_scipys_over_the_documents():
    found = statistics.chi_square(TABLE)
    for term in (0, 1, 5, 11):
        cells = [[c[term] for c in pair] for pair in (TABLE[:2], TABLE[2:])]
        expected = stats.chi2_contingency(cells, correction=False).statistic
        assert found[term] == pytest.approx(expected / 60)
    assert found[3] == found[4] == 0  # no row of zeros divides by 0
    # A term that is there just where the category is.
    same = statistics.table(LABELS[:, None].astype(int), LABELS)
    assert statistics.chi_square(same)[0] == pytest.approx(1)


def test_the_other_statistics_by_hand():
    t = statistics.Table(*(np.array([x]) for x in (6.0, 0.0, 2.0, 8.0)))
    assert statistics.gss(t)[0] == pytest.approx(48 / 256)
    assert statistics.relevance_frequency(t)[0] == pytest.approx(3)  # fp = 0
    entropy = stats.entropy([0.5, 0.5], base=2)
    assert statistics.gain_ratio(t) == pytest.approx(
        statistics.information_gain(t) / entropy
    )
    # ConfWeight, with 1.96^2 and more than 30 documents on both sides.
    t = statistics.Table(*(np.array([x]) for x in (40.0, 4.0, 10.0, 46.0)))
    z2 = 3.84145882069

    def interval(count):
        p = (count + z2 / 2) / (50 + z2)
        return p, z2 / 2 * np.sqrt(p * (1 - p) / (50 + z2))

    (p, wide), (q, width) = interval(40), interval(4)
    lower, upper = p - wide, q + width
    expected = np.log2(2 * lower / (lower + upper))
    assert statistics.conf_weight(t)[0] == pytest.approx(expected)
    turned = statistics.Table(t.fp, t.tp, t.tn, t.fn)
    assert statistics.conf_weight(turned)[0] == 1e-20


def test_terms_are_selected_by_chi_square():
    found = statistics.select(TABLE, 0.25)
    order = np.argsort(-statistics.chi_square(TABLE))[:3]
    np.testing.assert_array_equal(found, np.sort(order))
    assert 5 in found
    assert len(statistics.select(TABLE, 1e-9)) == 1


def test_statistics_are_those_of_the_training_documents_alone():
    """Labels of other documents cannot be seen in any weight."""
    train, _ = transformer.split(LABELS, 0.5, 0)
    counts = sparse.csr_matrix(COUNTS)
    one = weighting.weighted("tfig", counts[train], LABELS[train], [counts])
    other_labels = LABELS.copy()
    rest = np.setdiff1d(np.arange(60), train)
    other_labels[rest] = ~other_labels[rest]
    other = weighting.weighted(
        "tfig", counts[train], other_labels[train], [counts]
    )
    np.testing.assert_array_equal(one[1].toarray(), other[1].toarray())


@pytest.mark.parametrize("name", weighting.BASELINES)
def test_vectors_have_length_one_and_do_not_move_with_other_documents(name):
    counts = sparse.csr_matrix(COUNTS)
    empty = sparse.csr_matrix((1, 12))
    train, both, nothing = weighting.weighted(
        name, counts, LABELS, [counts[:4], empty]
    )
    length = np.sqrt(train.multiply(train).sum(axis=1))
    np.testing.assert_allclose(length, 1)
    np.testing.assert_allclose(both.toarray(), train[:4].toarray())
    assert nothing.nnz == 0


def test_given_weights_by_hand():
    counts = sparse.csr_matrix([[2, 2, 0], [1, 0, 3], [4, 0, 0]])
    labels = np.array([True, False, False])
    (tf,) = weighting.weighted("tf", counts, labels, [])
    row = np.log1p([0.5, 0.5, 0])
    np.testing.assert_allclose(tf[0].toarray()[0], row / np.linalg.norm(row))
    (tfidf,) = weighting.weighted("tfidf", counts, labels, [])
    np.testing.assert_allclose(tfidf[0].toarray()[0], [0, 1, 0])  # log 3/3 = 0
    length = np.array([4, 4, 4]) / 4
    part = 1.2 * (1 - 0.75 + 0.75 * length[1])
    bm25 = np.array([0, 0, 3 * 2.2 / (3 + part) * np.log(3)])
    (found,) = weighting.weighted("bm25", counts, labels, [])
    np.testing.assert_allclose(
        found[1].toarray()[0], bm25 / np.linalg.norm(bm25)
    )
    # Saturation and length, before the lengths are made 1.
    longer = sparse.csr_matrix([[1, 3], [1, 0]])
    raw = weighting._bm25(longer, [longer])[0].toarray()
    k = 1.2 * (1 - 0.75 + 0.75 * 4 / 2.5)
    assert raw[0, 1] == pytest.approx(3 * 2.2 / (3 + k) * np.log(2))
    # In one category the gain ratio is the information gain times a constant.
    both = [
        weighting.weighted(n, counts, labels, [])[0].toarray()
        for n in ("tfig", "tfgr")
    ]
    np.testing.assert_allclose(*both)
    refusal(lambda: weighting.weighted("x", counts, labels, []), "'x'", "tfrf")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 0], [0, 0]),
        ([0, 0], [1, 0]),
        ([1, 0], [0, 0]),
        ([1, 1, 0, 1], [1, 0, 1, 1]),
    ],
)
def test_f1_is_that_of_scikit_learn(labels, said):
    found = metrics.count(np.array(labels), np.array(said)).f1
    assert found == f1_score(labels, said, zero_division=1)


def test_macro_and_micro():
    each = [metrics.Decisions(3, 1, 0), metrics.Decisions(0, 0, 2)]
    assert metrics.macro_f1(each) == pytest.approx((6 / 7 + 0) / 2)
    assert metrics.micro_f1(each) == pytest.approx(6 / 9)
    assert metrics.count_zeros(each) == 1
    assert metrics.count_zeros([metrics.Decisions(0, 0, 0)]) == 0


def test_a_split_has_both_labels_on_both_sides():
    labels = np.array([True] * 3 + [False] * 20)
    train, tuning = transformer.split(labels, 0.2, 1)
    assert sorted([*train, *tuning]) == list(range(23))
    assert labels[tuning].sum() == 1 and len(tuning) == 5
    alone = np.array([True] + [False] * 5)
    train, tuning = transformer.split(alone, 0.2, 1)
    np.testing.assert_array_equal(train, tuning)  # all of them, twice
