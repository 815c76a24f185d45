"""Which tokens are masked, and how."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from official_models.nlp.bert.pretraining import masking
from official_models.nlp.bert.pretraining.packing import PackedPairs
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.pretraining import small_examples

CLS, SEP, MASK = small_examples.CLS, small_examples.SEP, small_examples.MASK
VOCAB, MASKING = small_examples.VOCAB, small_examples.MASKING


def _equal(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def packed():
    return small_examples.packed()


def _mask(packed, seed=(1, 2), max_predictions=5, **arguments):
    features = masking.mask_tokens(
        packed,
        seed=tf.constant(seed, tf.int64),
        max_predictions=max_predictions,
        **{**MASKING, **arguments},
    )
    return {name: value.numpy() for name, value in features.items()}


def _chosen(features):
    """bool [B, T]: the positions to predict."""
    chosen = np.zeros(features["input_ids"].shape, bool)
    rows, places = np.nonzero(features["masked_lm_weights"])
    chosen[rows, features["masked_lm_positions"][rows, places]] = True
    return chosen


@pytest.mark.parametrize("whole_word", [False, True])
def test_features(packed, whole_word):
    features = _mask(packed, whole_word=whole_word)
    examples = len(packed.lengths)
    assert {n: (v.shape, v.dtype.name) for n, v in features.items()} == {
        "input_ids": ((examples, 32), "int32"),
        "input_mask": ((examples, 32), "int32"),
        "segment_ids": ((examples, 32), "int32"),
        "masked_lm_positions": ((examples, 5), "int32"),
        "masked_lm_ids": ((examples, 5), "int32"),
        "masked_lm_weights": ((examples, 5), "float32"),
        "next_sentence_labels": ((examples,), "int32"),
    }
    _equal(features["segment_ids"], packed.segment_ids)
    _equal(features["next_sentence_labels"], packed.next_sentence_labels)
    _equal(features["input_mask"].sum(1), packed.lengths)
    assert (np.diff(features["input_mask"], axis=1) <= 0).all()
    chosen = _chosen(features)
    # Neither [CLS] nor [SEP] nor padding, and nothing else is touched.
    assert (packed.input_ids[chosen] >= 5).all()
    _equal(features["input_ids"][~chosen], packed.input_ids[~chosen])
    weights = features["masked_lm_weights"]
    positions = features["masked_lm_positions"]
    assert (np.diff(weights, axis=1) <= 0).all()
    ascending = np.diff(positions, axis=1) > 0
    assert ascending[weights[:, 1:] == 1].all()
    originals = np.take_along_axis(packed.input_ids, positions, 1)
    _equal(features["masked_lm_ids"], np.where(weights == 1, originals, 0))
    assert not positions[weights == 0].any()


@pytest.mark.parametrize("masked_lm_prob", [0.15, 0.5])
def test_number_of_predictions(masked_lm_prob):
    lengths = range(5, 65)
    ids = np.full((len(lengths), 64), 7, np.int32)
    for row, length in zip(ids, lengths):
        row[[0, 2, length - 1]] = CLS, SEP, SEP
        row[length:] = 0
    packed = PackedPairs(
        ids,
        np.zeros_like(ids),
        np.array(lengths, np.int32),
        ids == 7,
        np.zeros(len(lengths), np.int32),
    )
    features = _mask(packed, max_predictions=20, masked_lm_prob=masked_lm_prob)
    expected = [
        min(20, max(1, round(length * masked_lm_prob))) for length in lengths
    ]
    assert features["masked_lm_weights"].sum(1).tolist() == expected


def test_kinds_shares_and_places_of_masking(packed):
    kinds, places, share, replaced = Counter(), np.zeros(32), [], []
    full = PackedPairs(*(a[packed.lengths == 32] for a in packed))
    for seed in range(20):
        features = _mask(full, seed=(3, seed))
        chosen = _chosen(features)
        before, after = full.input_ids[chosen], features["input_ids"][chosen]
        noise = (after != MASK) & (after != before)
        kinds["masked"] += int((after == MASK).sum())
        kinds["kept"] += int((after == before).sum())
        kinds["random"] += int(noise.sum())
        replaced.append(after[noise])
        places += chosen.sum(0)
        share.append(chosen.sum(1))
    assert (np.concatenate(share) == 5).all()  # round(32 * .15)
    observed = [kinds["masked"], kinds["kept"], kinds["random"]]
    hit = 0.1 / VOCAB
    expected = np.array([0.8 + hit, 0.1 + hit, 0.1 - 2 * hit])
    assert sum(observed) > 50_000
    p = stats.chisquare(observed, expected * sum(observed)).pvalue
    assert p > 1e-3
    # Random tokens are uniform over the whole vocabulary, specials included.
    replaced = np.concatenate(replaced)
    observed = np.histogram(replaced, 20, (0, VOCAB))[0]
    assert stats.chisquare(observed).pvalue > 1e-3
    # Each ordinary place is equally likely.
    expected = (full.input_ids >= 5).sum(0) * 20 * 5 / 29
    usual = expected > 0
    assert stats.chisquare(places[usual], expected[usual]).pvalue > 1e-3


def test_random_tokens_may_be_special(packed):
    features = _mask(packed, vocab_size=5, mask_id=MASK)
    chosen = _chosen(features)
    replaced = Counter(features["input_ids"][chosen].tolist())
    assert {0, 1, CLS, SEP} < set(replaced)


def _words(row, word_starts, length):
    """The words of a row as lists of positions."""
    words = []
    for place in range(length):
        if row[place] in (CLS, SEP):
            continue
        if word_starts[place] or row[place - 1] in (CLS, SEP):
            words.append([])
        words[-1].append(place)
    return words


@pytest.mark.parametrize("max_predictions", [2, 5])
def test_whole_words(packed, max_predictions):
    arguments = {"max_predictions": max_predictions, "whole_word": True}
    features = _mask(packed, **arguments)
    chosen = _chosen(features)
    for example, length in enumerate(packed.lengths):
        words = _words(
            packed.input_ids[example], packed.word_starts[example], length
        )
        budget = min(max_predictions, max(1, round(int(length) * 0.15)))
        budget -= chosen[example].sum()
        assert budget >= 0
        for word in words:
            hits = chosen[example, word]
            assert hits.all() or not hits.any()
            # What was left out did not fit.
            assert hits.all() or len(word) > budget


@pytest.mark.parametrize("max_predictions", [2, 5])
def test_ngrams_are_whole_words_that_fill_the_budget(packed, max_predictions):
    arguments = {"max_predictions": max_predictions, "max_ngram": 3}
    chosen = _chosen(_mask(packed, **arguments))
    for example, length in enumerate(packed.lengths):
        words = _words(
            packed.input_ids[example], packed.word_starts[example], length
        )
        budget = min(max_predictions, max(1, round(int(length) * 0.15)))
        budget -= chosen[example].sum()
        assert budget >= 0
        for word in words:
            hits = chosen[example, word]
            assert hits.all() or not hits.any()
            assert hits.all() or len(word) > budget


def _one_word_tokens(rows, length):
    """Rows of words of one token: [CLS], words, [SEP], words, [SEP]."""
    ids = np.full((rows, length), 7, np.int32)
    ids[:, [0, length // 2, length - 1]] = CLS, SEP, SEP
    segment_ids = np.zeros_like(ids)
    segment_ids[:, length // 2 + 1 :] = 1
    lengths = np.full(rows, length, np.int32)
    labels = np.zeros(rows, np.int32)
    return PackedPairs(ids, segment_ids, lengths, ids == 7, labels)


@pytest.mark.parametrize("max_ngram", [2, 3, 4])
def test_sizes_of_ngrams(max_ngram):
    rows, length = 400, 128
    packed = _one_word_tokens(rows, length)
    candidate = tf.constant(packed.input_ids == 7)
    draws = masking.draw(tf.constant([1, 2]), tf.shape(candidate), VOCAB)
    starts = tf.constant(packed.word_starts)
    begins = masking._run_starts(
        candidate, starts, draws.size, max_ngram
    ).numpy()
    assert not (begins & ~candidate.numpy()).any()
    counts = np.zeros(max_ngram, int)
    for row in begins:
        for segment in (row[1 : length // 2], row[length // 2 + 1 : -1]):
            assert segment[0]
            # The last run ends with its segment.
            sizes = np.diff(np.flatnonzero(segment))
            # Leave out what the end cuts more often if it is long.
            counts += np.bincount(sizes[:12], minlength=max_ngram + 1)[1:]
    weights = 1 / np.arange(1, max_ngram + 1)
    expected = counts.sum() * weights / weights.sum()
    assert counts.sum() > 5000
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_ngrams_put_masks_side_by_side():
    packed = _one_word_tokens(500, 64)

    def neighbours(max_ngram):
        chosen = _chosen(_mask(packed, max_predictions=9, max_ngram=max_ngram))
        return (chosen[:, 1:] & chosen[:, :-1]).sum() / chosen.sum()

    alone, together = neighbours(1), neighbours(3)
    # By chance a mask's neighbour is one with 9 / 61; a run of k has k - 1.
    assert alone < 0.2 < 0.4 < together


def test_draws_belong_to_the_example(packed):
    keys = masking.example_keys(packed, dupe_factor=2, seed=3)
    assert len(set(keys)) == len(keys) == 2000
    part = PackedPairs(*(array[500:510] for array in packed))
    assert masking.example_keys(part, seed=3) == keys[500:510]
    assert not set(masking.example_keys(part, seed=4)) & set(keys)
    # Equal examples are masked each in its own way.
    twice = PackedPairs(*(array[[4, 4]] for array in packed))
    assert masking.example_keys(twice, seed=3) == [keys[4], keys[1004]]

    draws = masking.draw_by_key(keys, 32, VOCAB)
    few = masking.draw_by_key(keys[7:9], 32, VOCAB)
    _equal(tuple(few), tuple(array[7:9] for array in draws))
    for name in ("order", "kind", "size"):
        uniform = getattr(draws, name).ravel()
        assert uniform.dtype == np.float32
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    observed = np.histogram(draws.noise, 20, (0, VOCAB))[0]
    assert stats.chisquare(observed).pvalue > 1e-3
    assert draws.noise.max() < VOCAB


def test_greedy_filling():
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 9, (500, 12)).astype(np.int32)
    budgets = rng.integers(1, 15, (500, 1)).astype(np.int32)
    fits = masking._fill(tf.constant(sizes), tf.constant(budgets)).numpy()
    for row, left, fit in zip(sizes, budgets[:, 0], fits):
        for size, taken in zip(row, fit):
            assert taken == (0 < size <= left)
            left -= size * taken


def test_masking_is_a_function_of_the_seed(packed):
    tf.random.set_seed(1)
    first = _mask(packed, seed=(1, 2))
    tf.random.set_seed(2)
    _equal(first, _mask(packed, seed=(1, 2)))
    for seed in ((1, 3), (2, 2), (2, 1)):
        other = _mask(packed, seed=seed)["masked_lm_positions"]
        assert (first["masked_lm_positions"] != other).any(1).mean() > 0.9


def test_masking_arguments(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[SEP]\n[MASK]\n[CLS]\n[UNK]\nword")
    assert masking.masking_arguments(wordpiece.load_tokenizer(path)) == {
        "vocab_size": 6,
        "mask_id": 2,
        "special_ids": (3, 1),
    }
