"""BERT's pretraining batches, and the baseline that a model has to beat.

Axes: N examples, B batch, T tokens of a sequence, P predictions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from official_models.common import readers
from official_models.common.errors import InputError
from official_models.common.readers import Reader
from official_models.nlp.bert.pretraining.masking import (
    check_masking,
    mask_tokens,
)
from official_models.nlp.bert.pretraining.packing import PackedPairs


def pretraining_dataset(
    packed: PackedPairs,
    *,
    batch_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    whole_word: bool = False,
    max_ngram: int = 1,
    pair: str = "next_sentence",
    reader: Reader = readers.ALONE,
) -> tf.data.Dataset:
    """Batches number `first_step` to `last_step` - 1 of an endless run.

    Batch k is a function of (packed, seed, k) and the masking arguments, so a
    run resumed at step k sees the batches that an uninterrupted one would.
    Every epoch is a new permutation of all examples; a batch may straddle two
    epochs. Each visit of an example is masked anew.

    Args:
        packed: The examples, as arrays.
        batch_size: B.
        first_step: Number of the first batch, from 0.
        last_step: Number after the last batch's.
        seed: In [0, 2**32).
        vocab_size: As for `mask_tokens`, like the next six.
        pair: Name of the label of the pair: the model's output for it.
        reader: (index, count); it gives its B / count rows of each batch.
            Masks are drawn for each reader by itself: they are those of one
            reader only with a count of 1.

    Returns:
        Batches `(x, y, sample_weight)` of static shape, dicts of int32
        tensors (weights float32):
        x: input_ids, input_mask, segment_ids [B, T], masked_lm_positions
        [B, P]. y: masked_lm [B, P], next_sentence [B]. sample_weight:
        masked_lm [B, P], next_sentence [B] (ones).

    Raises:
        InputError: If there are no examples or an argument is out of range.
    """
    masking = {
        "vocab_size": vocab_size,
        "mask_id": mask_id,
        "special_ids": tuple(special_ids),
        "max_predictions": max_predictions,
        "masked_lm_prob": masked_lm_prob,
        "whole_word": whole_word,
        "max_ngram": max_ngram,
    }
    check_masking(packed, **masking)
    readers.check_steps(first_step, last_step)
    # The kernel of RandomIndexShuffle reads no more than 32 bits of a seed.
    readers.check_seed(seed)
    index, count = reader
    rows = readers.rows_of(reader, batch_size)
    rows_each = rows.stop - rows.start
    int64_seed = tf.constant(seed, tf.int64)
    examples = tf.constant(len(packed.lengths), tf.int64)
    tensors = PackedPairs(*map(tf.constant, packed))

    def batch(step):
        first = step * batch_size + rows.start
        visit = first + tf.range(rows_each, dtype=tf.int64)
        epoch = visit // examples
        key = tf.stack([tf.fill(epoch.shape, int64_seed), epoch, 0 * epoch], 1)
        # tf.random.experimental.index_shuffle takes only one seed a call, and
        # a batch that straddles two epochs needs one a row.
        row = tf.raw_ops.RandomIndexShuffle(
            index=visit % examples, seed=key, max_index=examples - 1, rounds=4
        )
        examples_of = PackedPairs(*(tf.gather(t, row) for t in tensors))
        mask_seed = tf.stack([int64_seed, step * count + index])
        features = mask_tokens(examples_of, seed=mask_seed, **masking)
        return model_inputs(features, pair)

    dataset = tf.data.Dataset.range(first_step, last_step)
    dataset = dataset.map(
        batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def model_inputs(
    features: dict[str, tf.Tensor], pair: str = "next_sentence"
) -> tuple[dict, dict, dict]:
    """BERT's features as `(x, y, sample_weight)` for `keras.Model.fit`.

    Args:
        features: As `masking.mask_tokens` gives them.
        pair: Name of the label of the pair, the model's output for it.
    """
    names = "input_ids", "input_mask", "segment_ids", "masked_lm_positions"
    labels = features["next_sentence_labels"]
    return (
        {name: features[name] for name in names},
        {"masked_lm": features["masked_lm_ids"], pair: labels},
        {
            "masked_lm": features["masked_lm_weights"],
            pair: tf.ones_like(labels, tf.float32),
        },
    )


def unigram_baseline(
    train_tokens: np.ndarray,
    held_out: Iterable[tuple[dict, dict, dict]],
    vocab_size: int,
) -> tuple[float, float]:
    """What masked-token prediction reaches without looking at the context.

    Args:
        train_tokens: Token ids of the training text, int [any], as
            `ordinary_tokens` or `masked_tokens` gives them.
        held_out: Batches `(x, y, sample_weight)` as `pretraining_dataset`
            gives them.
        vocab_size: V; every token's count starts at one.

    Returns:
        (cross-entropy in nats a masked token, share of masked tokens that
        are the training text's commonest token).
    """
    counts = np.bincount(train_tokens, minlength=vocab_size)
    smoothed = counts + 1.0
    log_probability = np.log(smoothed / smoothed.sum())
    targets = masked_tokens(held_out)
    if not targets.size:
        raise InputError("the held-out batches have no masked token")
    return (
        float(-log_probability[targets].mean()),
        float((targets == counts.argmax()).mean()),
    )


def masked_tokens(batches: Iterable[tuple[dict, dict, dict]]) -> np.ndarray:
    """Ids of all tokens to predict in batches, int32 [tokens]."""
    found = [np.zeros((0,), np.int32)]
    for _, y, sample_weight in batches:
        weight = np.asarray(sample_weight["masked_lm"])
        found.append(np.asarray(y["masked_lm"])[weight > 0])
    return np.concatenate(found)


def ordinary_tokens(packed: PackedPairs) -> np.ndarray:
    """Ids of all tokens of a and b, without special tokens, int32 [tokens]."""
    place = np.arange(packed.input_ids.shape[1])
    last_of_a = packed.segment_ids.argmax(1)[:, np.newaxis] - 1
    last_of_b = packed.lengths[:, np.newaxis] - 1
    ordinary = (place > 0) & (place < last_of_b) & (place != last_of_a)
    return packed.input_ids[ordinary]
