"""BERT's masking as a pure TensorFlow function of a batch and random numbers.

The rules are those of Devlin et al. 2018, section 3.1 and appendix A.1, as
`create_pretraining_data.py` of google-research/bert states them; n-grams are
those of Lan et al. 2019, section 4.1.

Axes: B batch, T tokens of a sequence, P predictions, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
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


class Draws(NamedTuple):
    """The random numbers of a batch's masks, arrays or tensors [B, T]."""

    order: np.ndarray  # float32 in [0, 1): the smallest are masked first
    kind: np.ndarray  # float32 in [0, 1): [MASK] < 0.8 <= itself < 0.9
    noise: np.ndarray  # int32 in [0, V): what the others become
    size: np.ndarray  # float32 in [0, 1): words of an n-gram


def draw(seed: tf.Tensor, shape: tf.Tensor, vocab_size: int) -> Draws:
    """Random numbers of a whole batch by one seed, int32 or int64 [2]."""
    order, kind, noise = tf.unstack(
        tf.random.experimental.stateless_split(seed, 3)
    )
    size = tf.random.experimental.stateless_fold_in(seed, 3)
    uniform = tf.random.stateless_uniform
    return Draws(
        uniform(shape, order),
        uniform(shape, kind),
        uniform(shape, noise, 0, vocab_size, tf.int32),
        uniform(shape, size),
    )


def example_keys(
    packed: PackedPairs, *, dupe_factor: int = 1, seed: int
) -> list[int]:
    """A key of each example, for `draw_by_key`, wherever the example stands.

    It depends on `seed`, on the example's tokens and on which time these are
    masked, so that a corpus may be masked in parts, in any order.

    Args:
        packed: N examples, as arrays.
        dupe_factor: How often each is masked, each time anew.
        seed: Any number.

    Returns:
        N * `dupe_factor` numbers of 128 bits: those of all examples once,
        then of all again.
    """
    times: Counter[bytes] = Counter()
    keys = []
    for _ in range(dupe_factor):
        for row in packed.input_ids:
            tokens = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            named = f"{seed} {times[tokens]} ".encode() + tokens
            times[tokens] += 1
            key = hashlib.blake2b(named, digest_size=16).digest()
            keys.append(int.from_bytes(key, "little"))
    return keys


def draw_by_key(keys: Sequence[int], seq_length: int, vocab_size: int) -> Draws:
    """Random numbers [B, T] of which each row is a function of its key."""
    shape = len(keys), seq_length
    drawn = Draws(*(np.empty(shape, kind) for kind in ("f4", "f4", "i4", "f4")))
    for row, key in enumerate(keys):
        rng = np.random.Generator(np.random.Philox(key=key))
        drawn.order[row] = rng.random(seq_length, np.float32)
        drawn.kind[row] = rng.random(seq_length, np.float32)
        drawn.noise[row] = rng.integers(0, vocab_size, seq_length, np.int32)
        drawn.size[row] = rng.random(seq_length, np.float32)
    return drawn


def mask_tokens(
    batch: PackedPairs,
    *,
    seed: tf.Tensor | None = None,
    draws: Draws | None = None,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    whole_word: bool = False,
    max_ngram: int = 1,
) -> dict[str, tf.Tensor]:
    """Chooses the tokens to predict and hides them.

    Of each example n = min(P, max(1, round(length * `masked_lm_prob`))) tokens
    are chosen, the length counting [CLS] and [SEP], which are never chosen.
    A chosen token becomes [MASK] (80%), stays (10%), or becomes uniform over
    the whole vocabulary (10%).

    Args:
        batch: Tensors or arrays of B examples.
        seed: int32 or int64 [2]; the result is a function of the arguments.
        draws: In place of `seed`, the random numbers themselves.
        vocab_size: V.
        mask_id: Id of [MASK].
        special_ids: Ids of [CLS] and [SEP].
        max_predictions: P, at most T.
        masked_lm_prob: In (0, 1).
        whole_word: Choose whole words, in random order; a word with more
            pieces than are left of n is passed over, so that there may be
            fewer than n.
        max_ngram: N. Above 1, each segment is cut into runs of 1 to N whole
            words (fewer where it ends), a run of k words with probability
            (1/k) / (1/1 + ... + 1/N); whole runs are chosen as whole words
            are, and what is then left of n goes to single words.

    Returns:
        BERT's features: input_ids, input_mask, segment_ids int32 [B, T];
        masked_lm_positions (ascending), masked_lm_ids int32 [B, P], both
        padded with 0; masked_lm_weights float32 [B, P], 1 where a prediction
        is and 0 on the padding; next_sentence_labels int32 [B].
    """
    input_ids = tf.convert_to_tensor(batch.input_ids)
    seq_length = input_ids.shape[1]
    if draws is None:
        draws = draw(seed, tf.shape(input_ids), vocab_size)
    input_mask = tf.sequence_mask(batch.lengths, seq_length)
    candidate = input_mask
    for special_id in special_ids:
        candidate &= input_ids != special_id
    wanted = tf.cast(batch.lengths, tf.float64) * masked_lm_prob
    wanted = tf.cast(tf.round(wanted), tf.int32)
    wanted = tf.clip_by_value(wanted, 1, max_predictions)
    starts = None
    if whole_word or max_ngram > 1:
        starts = _word_starts(candidate, batch.word_starts)
    if max_ngram > 1:
        runs = _run_starts(candidate, starts, draws.size, max_ngram)
        chosen = _choose(candidate, runs, wanted, draws.order)
        wanted -= tf.reduce_sum(tf.cast(chosen, tf.int32), axis=1)
        rest = candidate & ~chosen
        chosen |= _choose(rest, starts, wanted, draws.order)
    else:
        chosen = _choose(candidate, starts, wanted, draws.order)
    positions = tf.where(chosen, tf.range(seq_length), seq_length)
    positions = tf.sort(positions, axis=1)[:, :max_predictions]
    valid = positions < seq_length
    positions = tf.where(valid, positions, 0)
    labels = tf.gather(input_ids, positions, batch_dims=1)

    hidden = tf.where(draws.kind < 0.9, input_ids, draws.noise)
    hidden = tf.where(draws.kind < 0.8, mask_id, hidden)
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


def _after_special(candidate):
    """Tokens that follow [CLS] or [SEP], bool [B, T]."""
    return candidate & tf.pad(~candidate[:, :-1], [[0, 0], [1, 0]])


def _word_starts(candidate, word_starts):
    # A word also starts after [CLS] or [SEP], where truncation may have left
    # its last pieces only.
    return candidate & (word_starts | _after_special(candidate))


def _run_starts(candidate, starts, size, max_ngram):
    """Which words begin an n-gram, bool [B, T]; segments begin one too."""
    weights = 1 / np.arange(1, max_ngram + 1)
    bounds = (np.cumsum(weights) / weights.sum())[:-1].astype(np.float32)
    words = 1 + tf.searchsorted(bounds, tf.reshape(size, [-1]), side="right")
    words = tf.reshape(words, tf.shape(size))

    def step(state, token):
        left, _ = state
        starts, opens, words = token
        begins = starts & (opens | (left == 0))
        left = tf.where(begins, words, left)
        return left - tf.cast(starts, tf.int32), begins

    tokens = starts, _after_special(candidate), words
    tokens = [tf.transpose(part) for part in tokens]
    none = tf.zeros_like(tokens[2][0])
    _, begins = tf.scan(step, tokens, (none, tf.cast(none, tf.bool)))
    return tf.transpose(begins)


def _choose(candidate, starts, wanted, order):
    """Candidates to predict, bool [B, T]: words in random order that fit.

    `starts` says where words begin; None for words of one token.
    """
    seq_length = candidate.shape[1]
    sizes = tf.cast(candidate, tf.int32)
    word = tf.broadcast_to(tf.range(seq_length), tf.shape(candidate))
    if starts is not None:
        word = tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1
        word = tf.maximum(word, 0)
        row = seq_length * tf.range(tf.shape(word)[0])[:, tf.newaxis]
        sizes = tf.math.unsorted_segment_sum(sizes, row + word, tf.size(word))
        sizes = tf.reshape(sizes, tf.shape(word))
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
    max_ngram: int = 1,
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
    if max_ngram < 1:
        raise InputError(f"max_ngram {max_ngram}: expected at least 1 word")
