"""Batches, and the baseline."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import batches
from official_models.nlp.bert.pretraining.packing import PackedPairs
from tests.official_models.nlp.bert.pretraining import small_examples

CLS, SEP, MASK = small_examples.CLS, small_examples.SEP, small_examples.MASK
VOCAB, MASKING = small_examples.VOCAB, small_examples.MASKING


def _equal(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def packed():
    return small_examples.packed()


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
    small = PackedPairs(*(array[:90] for array in packed))
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
    one = PackedPairs(*(array[:1] for array in packed))
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
    none = PackedPairs(*(array[:0] for array in packed))
    with pytest.raises(InputError, match="no examples"):
        _batches(none, 0, 1)


# Baseline


def test_unigram_baseline():
    train = PackedPairs(
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
