"""BERT's masking as a pure TensorFlow function of a batch and a seed.

The rules are those of Devlin et al. 2018, section 3.1 and appendix A.1, as
`create_pretraining_data.py` of google-research/bert states them.

Axes: B batch, T tokens of a sequence, P predictions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining.packing import PackedPairs

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def masking_arguments(tokenizer: Tokenizer) -> dict:
    """The arguments of `mask_tokens` that the vocabulary decides."""
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "mask_id": tokenizer.token_to_id("[MASK]"),
        "special_ids": tuple(map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))),
    }


def mask_tokens(
    batch: PackedPairs,
    *,
    seed: tf.Tensor,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    whole_word: bool = False,
) -> dict[str, tf.Tensor]:
    """Chooses the tokens to predict and hides them.

    Of each example n = min(P, max(1, round(length * `masked_lm_prob`))) tokens
    are chosen, the length counting [CLS] and [SEP], which are never chosen.
    A chosen token becomes [MASK] (80%), stays (10%), or becomes uniform over
    the whole vocabulary (10%).

    Args:
        batch: Tensors or arrays of B examples.
        seed: int32 or int64 [2]; the result is a function of the arguments.
        vocab_size: V.
        mask_id: Id of [MASK].
        special_ids: Ids of [CLS] and [SEP].
        max_predictions: P, at most T.
        masked_lm_prob: In (0, 1).
        whole_word: Choose whole words, in random order; a word with more
            pieces than are left of n is passed over, so that there may be
            fewer than n.

    Returns:
        BERT's features: input_ids, input_mask, segment_ids int32 [B, T];
        masked_lm_positions (ascending), masked_lm_ids int32 [B, P], both
        padded with 0; masked_lm_weights float32 [B, P], 1 where a prediction
        is and 0 on the padding; next_sentence_labels int32 [B].
    """
    input_ids = tf.convert_to_tensor(batch.input_ids)
    seq_length = input_ids.shape[1]
    input_mask = tf.sequence_mask(batch.lengths, seq_length)
    candidate = input_mask
    for special_id in special_ids:
        candidate &= input_ids != special_id
    choice_seed, kind_seed, token_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 3)
    )
    wanted = tf.cast(batch.lengths, tf.float64) * masked_lm_prob
    wanted = tf.cast(tf.round(wanted), tf.int32)
    wanted = tf.clip_by_value(wanted, 1, max_predictions)
    chosen = _choose(
        candidate, batch.word_starts, wanted, choice_seed, whole_word
    )
    positions = tf.where(chosen, tf.range(seq_length), seq_length)
    positions = tf.sort(positions, axis=1)[:, :max_predictions]
    valid = positions < seq_length
    positions = tf.where(valid, positions, 0)
    labels = tf.gather(input_ids, positions, batch_dims=1)

    kind = tf.random.stateless_uniform(tf.shape(input_ids), kind_seed)
    noise = tf.random.stateless_uniform(
        tf.shape(input_ids), token_seed, 0, vocab_size, tf.int32
    )
    hidden = tf.where(kind < 0.9, input_ids, noise)
    hidden = tf.where(kind < 0.8, mask_id, hidden)
    return {
        "input_ids": tf.where(chosen, hidden, input_ids),
        "input_mask": tf.cast(input_mask, tf.int32),
        "segment_ids": tf.convert_to_tensor(batch.segment_ids),
        "masked_lm_positions": positions,
        "masked_lm_ids": tf.where(valid, labels, 0),
        "masked_lm_weights": tf.cast(valid, tf.float32),
        "next_sentence_labels": tf.convert_to_tensor(
            batch.next_sentence_labels
        ),
    }


def _choose(candidate, word_starts, wanted, seed, whole_word):
    """Candidates to predict, bool [B, T]: words in random order that fit."""
    seq_length = candidate.shape[1]
    sizes = tf.cast(candidate, tf.int32)
    word = tf.broadcast_to(tf.range(seq_length), tf.shape(candidate))
    if whole_word:
        # A word also starts after [CLS] or [SEP], where truncation may have
        # left its last pieces only.
        after_special = tf.pad(~candidate[:, :-1], [[0, 0], [1, 0]])
        starts = candidate & (word_starts | after_special)
        word = tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1
        word = tf.maximum(word, 0)
        row = seq_length * tf.range(tf.shape(word)[0])[:, tf.newaxis]
        sizes = tf.math.unsorted_segment_sum(sizes, row + word, tf.size(word))
        sizes = tf.reshape(sizes, tf.shape(word))
    order = tf.random.stateless_uniform(tf.shape(candidate), seed)
    order = tf.argsort(tf.where(sizes > 0, order, 2.0), axis=1)
    fits = _fill(tf.gather(sizes, order, batch_dims=1), wanted[:, tf.newaxis])
    fits = tf.gather(fits, tf.argsort(order, axis=1), batch_dims=1)
    return candidate & tf.gather(fits, word, batch_dims=1)


def _fill(sizes, budget):
    """Which words, taken greedily from the left, fit the budget [B, 1].

    Each round accepts the words before the first one that is too large, then
    discards all that are larger than what is left. As that is less than the
    rejected word, and every round accepts a word, there are few rounds.
    """

    def crowded(alive):
        return tf.reduce_any(alive & (total(alive) > budget))

    def total(alive):
        return tf.cumsum(tf.where(alive, sizes, 0), axis=1)

    def narrow(alive):
        filled = total(alive)
        accepted = alive & (filled <= budget)
        used = tf.reduce_max(tf.where(accepted, filled, 0), 1, keepdims=True)
        return accepted | (alive & (sizes <= budget - used))

    return tf.while_loop(crowded, lambda a: (narrow(a),), (sizes > 0,))[0]


def check_masking(
    packed: PackedPairs,
    *,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    whole_word: bool = False,
) -> None:
    """Raises `InputError` unless `packed` can be masked with these."""
    del whole_word
    if not len(packed.lengths):
        raise InputError("no examples: the corpus gave no pair of segments")
    largest = max(int(packed.input_ids.max()), mask_id, *special_ids)
    if largest >= vocab_size:
        raise InputError(
            f"vocab_size {vocab_size} is too small: the examples and special "
            f"tokens use id {largest}"
        )
    tokens = packed.input_ids.shape[1] - 3
    if not 1 <= max_predictions <= tokens:
        raise InputError(
            f"max_predictions {max_predictions}: expected 1 to {tokens}, the "
            f"tokens of a sequence of {tokens + 3} that can be masked"
        )
    if not 0 < masked_lm_prob < 1:
        raise InputError(
            f"masked_lm_prob {masked_lm_prob}: expected between 0 and 1"
        )
