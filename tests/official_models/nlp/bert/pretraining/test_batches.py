"""Masking and batches, and the baseline."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import batches, masking
from official_models.nlp.text import corpus

CLS, SEP, MASK = 2, 3, 4
VOCAB = 5005
MASKING = {"vocab_size": VOCAB, "mask_id": MASK, "special_ids": (CLS, SEP)}


def _equal(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, left, right)


# Masking


@pytest.fixture(scope="module")
def packed():
    """1,000 different examples up to 32 long; a third are "##" pieces."""
    rng = np.random.default_rng(10)
    lengths = np.where(rng.random(1000) < 0.7, 32, rng.integers(5, 33, 1000))
    ids = rng.integers(5, VOCAB, (1000, 32), np.int32)
    segment_ids = np.zeros_like(ids)
    for row, segment, length in zip(ids, segment_ids, lengths):
        middle = rng.integers(2, length - 2)
        row[[0, middle, length - 1]] = CLS, SEP, SEP
        segment[middle + 1 : length] = 1
        row[length:] = 0
    word_starts = (ids >= 5) & (ids % 3 > 0)
    labels = rng.integers(0, 2, 1000, np.int32)
    lengths = lengths.astype(np.int32)
    return batches.PackedPairs(ids, segment_ids, lengths, word_starts, labels)


def _mask(packed, seed=(1, 2), max_predictions=5, **arguments):
    features = batches.mask_tokens(
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
    packed = batches.PackedPairs(
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
    full = batches.PackedPairs(*(a[packed.lengths == 32] for a in packed))
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


# Batches


def _batches(packed, first_step, last_step, **arguments):
    arguments = {"batch_size": 16, "seed": 4, "max_predictions": 5, **arguments}
    return batches.pretraining_dataset(
        packed,
        first_step=first_step,
        last_step=last_step,
        **{**MASKING, **arguments},
    )


def _unmasked(x, y, sample_weight):
    """The rows of a batch as they were before masking."""
    ids = x["input_ids"].numpy()
    rows, places = np.nonzero(sample_weight["masked_lm"].numpy())
    positions = x["masked_lm_positions"].numpy()[rows, places]
    ids[rows, positions] = y["masked_lm"].numpy()[rows, places]
    return [row.tobytes() for row in ids]


def test_batches_have_static_shapes(packed):
    def int32(*shape):
        return tf.TensorSpec(shape, tf.int32)

    def float32(*shape):
        return tf.TensorSpec(shape, tf.float32)

    dataset = _batches(packed, 3, 10)
    assert dataset.cardinality() == 7
    assert dataset.element_spec == (
        {
            "input_ids": int32(16, 32),
            "input_mask": int32(16, 32),
            "segment_ids": int32(16, 32),
            "masked_lm_positions": int32(16, 5),
        },
        {"masked_lm": int32(16, 5), "next_sentence": int32(16)},
        {"masked_lm": float32(16, 5), "next_sentence": float32(16)},
    )
    for _, _, sample_weight in dataset:
        assert (sample_weight["next_sentence"].numpy() == 1).all()


@pytest.mark.parametrize("whole_word", [False, True])
def test_resuming_gives_the_same_batches(packed, whole_word):
    tf.random.set_seed(1)
    whole = list(_batches(packed, 0, 12, whole_word=whole_word))
    tf.random.set_seed(2)
    resumed = list(_batches(packed, 5, 12, whole_word=whole_word))
    assert len(resumed) == 7
    for expected, batch in zip(whole[5:], resumed):
        _equal(expected, batch)


def test_a_batch_depends_on_seed_and_step(packed):
    (first,), (other,) = _batches(packed, 0, 1), _batches(packed, 0, 1, seed=5)
    (second,) = _batches(packed, 1, 2)
    rows = [set(_unmasked(*batch)) for batch in (first, other, second)]
    assert rows[0] != rows[1] and rows[0].isdisjoint(rows[2])


def test_each_example_once_an_epoch(packed):
    small = batches.PackedPairs(*(array[:90] for array in packed))
    originals = Counter(row.tobytes() for row in small.input_ids)
    visits, labels = [], []
    for batch in _batches(small, 0, 45, batch_size=8):  # 4 epochs, straddling
        visits += _unmasked(*batch)
        labels += batch[1]["next_sentence"].numpy().tolist()
    epochs = [visits[i : i + 90] for i in range(0, 360, 90)]
    assert all(Counter(epoch) == originals for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    by_row = dict(
        zip((r.tobytes() for r in small.input_ids), small.next_sentence_labels)
    )
    assert labels == [by_row[row] for row in visits]


def test_each_visit_is_masked_anew(packed):
    one = batches.PackedPairs(*(array[:1] for array in packed))
    masks = {
        row.tobytes()
        for x, _, _ in _batches(one, 0, 4)
        for row in x["masked_lm_positions"].numpy()
    }
    assert len(masks) > 55  # of 64


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"last_step": 3}, "steps 3 to 3"),
        ({"first_step": -1}, "steps -1"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**32}, "seed"),
        ({"vocab_size": 1000}, "vocab_size 1000"),
        ({"mask_id": VOCAB}, "id 5005"),
        ({"max_predictions": 0}, "max_predictions 0"),
        ({"max_predictions": 30}, "max_predictions 30"),
        ({"masked_lm_prob": 0.0}, "masked_lm_prob 0.0"),
        ({"masked_lm_prob": 15.0}, "masked_lm_prob 15.0"),
    ],
)
def test_bad_batch_arguments(packed, arguments, part):
    arguments = {"first_step": 3, "last_step": 4, **arguments}
    with pytest.raises(InputError, match=part):
        _batches(packed, **arguments)


def test_no_examples(packed):
    none = batches.PackedPairs(*(array[:0] for array in packed))
    with pytest.raises(InputError, match="no examples"):
        _batches(none, 0, 1)


def test_masking_arguments(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[SEP]\n[MASK]\n[CLS]\n[UNK]\nword")
    assert batches.masking_arguments(corpus.load_tokenizer(path)) == {
        "vocab_size": 6,
        "mask_id": 2,
        "special_ids": (3, 1),
    }


# Baseline


def test_unigram_baseline():
    train = batches.PackedPairs(
        np.array(
            [[CLS, 5, 6, 6, SEP, 6, SEP, 0], [CLS, 7, SEP, 6, SEP, 0, 0, 0]]
        ),
        np.array([[0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0, 0, 0]]),
        np.array([7, 5]),
        None,
        None,
    )
    batch = (
        {},
        {"masked_lm": np.array([[6, 7, 0], [8, 6, 0]])},
        {"masked_lm": np.array([[1, 1, 0], [1, 0, 0]], np.float32)},
    )
    loss, accuracy = batches.unigram_baseline(
        batches.ordinary_tokens(train), [batch], vocab_size=10
    )
    # Six tokens and ten pseudo-counts; 6, 7 and 8 were seen 4, 1, 0 times.
    expected = -np.log([5 / 16, 2 / 16, 1 / 16]).mean()
    assert loss == pytest.approx(expected, abs=1e-12)
    assert accuracy == pytest.approx(1 / 3)


def test_unigram_baseline_of_batches(packed):
    dataset = _batches(packed, 0, 4)
    loss, accuracy = batches.unigram_baseline(
        batches.ordinary_tokens(packed), dataset, VOCAB
    )
    assert 0 < loss < np.log(VOCAB) and 0 <= accuracy < 0.05
    with pytest.raises(InputError, match="no masked token"):
        batches.unigram_baseline(batches.ordinary_tokens(packed), [], VOCAB)
