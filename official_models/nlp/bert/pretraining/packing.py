"""Sentences packed into pairs of segments, as BERT's pretraining wants them.

The rules are those of Devlin et al. 2018, appendix A.2, as
`create_pretraining_data.py` of google-research/bert states them, and those of
Lan et al. 2019, section 3.1, for sentence order.

What is drawn for a document depends on the seed, on which time it is packed
and on the document itself, never on where it stands: other documents decide
only what a random next segment is taken from. So a corpus may be packed in
parts, in any order and by any number of workers. Equal documents are packed
alike.

Axes: N examples, T tokens of a sequence.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from official_models.common.errors import InputError
from official_models.nlp.text import vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class PackedPairs(NamedTuple):
    """Unmasked examples: `[CLS] a [SEP] b [SEP]`, padded with 0.

    Arrays of N examples, or, inside a `tf.data` pipeline, tensors of B.
    """

    input_ids: np.ndarray  # int32 [N, T]
    segment_ids: np.ndarray  # int32 [N, T]: 1 on b and the [SEP] after it
    lengths: np.ndarray  # int32 [N]: tokens that are not padding
    word_starts: (
        np.ndarray
    )  # bool [N, T]: False within words, on specials, pads
    # int32 [N]: 1 where b is random, or the two segments are swapped.
    next_sentence_labels: np.ndarray


def unknown_words(packed: PackedPairs, tokenizer: Tokenizer) -> str:
    """How many of the tokens are unknown to the vocabulary, in words.

    Args:
        packed: Examples, as arrays.
        tokenizer: Whose token [UNK] (<unk>) stands for them.
    """
    count = vocabulary.count_unknown(packed.input_ids, tokenizer)
    return vocabulary.unknown_words(count, int(packed.lengths.sum()))


class _Document(NamedTuple):
    tokens: np.ndarray  # int32 [tokens of the document]
    starts: np.ndarray  # int64 [sentences + 1]: where each sentence starts

    def key(self) -> int:
        """A number of 128 bits that says which document it is."""
        digest = hashlib.blake2b(self.starts.tobytes(), digest_size=16)
        digest.update(self.tokens.tobytes())
        return int.from_bytes(digest.digest(), "little")


def pack_pairs(
    documents: list[list[np.ndarray]],
    tokenizer: Tokenizer,
    max_seq_length: int,
    *,
    short_seq_prob: float = 0.1,
    dupe_factor: int = 1,
    sentence_order: bool = False,
    may_be_empty: bool = False,
    seed: int,
) -> PackedPairs:
    """Packs sentences into pairs of segments (a, b).

    Sentences are taken until they reach a target length, `max_seq_length` - 3
    or with probability `short_seq_prob` uniform on [2, that]. The first of
    them, uniform on [1, n - 1], are a. With probability 1/2, and always if
    there is but one sentence, b is random: it starts at any sentence of
    another document (of a single document: at another place), and the unused
    sentences are put back. Otherwise b is the rest. While a pair is too long
    the longer segment loses a token, at either end with probability 1/2.

    With `sentence_order` (ALBERT's SOP) b is always the rest, and a and b are
    swapped with probability 1/2, which is the label. A lone sentence is cut in
    two at any token, since no other document is drawn from.

    The published script draws the target once a document; here it is drawn
    for each pair, because a document may be a whole book.

    Args:
        documents: Sentences of token ids as `corpus.tokenize` gives them.
        tokenizer: Knows the special tokens and with which tokens words begin.
        max_seq_length: T, at least 5.
        short_seq_prob: In [0, 1].
        dupe_factor: How often the documents are packed, each time anew.
        sentence_order: Whether labels say that segments are swapped, not that
            b is random.
        may_be_empty: Whether documents may be too few or short for any pair.
        seed: Non-negative. The result is a function of the arguments.

    Raises:
        InputError: If an argument is out of range, or the documents are too
            few or short to give one pair.
    """
    if max_seq_length < 5:
        raise InputError(
            f"max_seq_length {max_seq_length}: [CLS] a [SEP] b [SEP] needs 5"
        )
    if dupe_factor < 1 or not 0 <= short_seq_prob <= 1 or seed < 0:
        raise InputError(
            f"dupe_factor {dupe_factor}, short_seq_prob {short_seq_prob}, "
            f"seed {seed}: expected >= 1, in [0, 1] and >= 0"
        )
    flat = [_flatten(document) for document in documents if document]
    keys = [document.key() for document in flat]
    pack = _pack_in_order if sentence_order else _pack_document
    pairs = []
    for copy in range(dupe_factor):
        for index, key in enumerate(keys):
            rng = np.random.default_rng([seed, copy, key])
            pairs += pack(flat, index, max_seq_length - 3, short_seq_prob, rng)
    if not pairs and not may_be_empty:
        raise InputError("the corpus is too small: no two sentences to pair")
    return _assemble(pairs, tokenizer, max_seq_length)


def _flatten(document: list[np.ndarray]) -> _Document:
    lengths = [len(sentence) for sentence in document]
    return _Document(np.concatenate(document), np.cumsum([0, *lengths]))


def _pack_document(documents, index, max_tokens, short_seq_prob, rng):
    """The pairs (a, b, is_random) of one document, truncated."""
    tokens, starts = documents[index]
    last = len(starts) - 1
    # What is drawn for a random b, so that the rest is this document's alone.
    (elsewhere,) = rng.spawn(1)
    pairs = []
    begin = 0
    while begin < last:
        target = _target(max_tokens, short_seq_prob, rng)
        end, middle = _chunk(starts, begin, target, rng)
        a = tokens[starts[begin] : starts[middle]]
        b = tokens[starts[middle] : starts[end]]
        is_random = end - begin == 1 or rng.random() < 0.5
        if is_random:
            random_b = _random_segment(
                documents, index, (begin, middle), target - len(a), elsewhere
            )
            is_random = random_b is not None
            b = random_b if is_random else b
        if len(b):
            cut = _truncate(a, b, max_tokens, elsewhere if is_random else rng)
            pairs.append((*cut, is_random))
        begin = middle if is_random else end
    return pairs


def _pack_in_order(documents, index, max_tokens, short_seq_prob, rng):
    """The pairs (a, b, is_swapped) of one document, truncated."""
    tokens, starts = documents[index]
    pairs = []
    begin = 0
    while begin < len(starts) - 1:
        target = _target(max_tokens, short_seq_prob, rng)
        end, middle = _chunk(starts, begin, target, rng)
        first, cut, last = starts[[begin, middle, end]]
        if end - begin == 1 and last - first > 1:
            cut = first + rng.integers(1, last - first)
        pair = tokens[first:cut], tokens[cut:last]
        is_swapped = rng.random() < 0.5
        if len(pair[1]):
            pair = pair[::-1] if is_swapped else pair
            pairs.append((*_truncate(*pair, max_tokens, rng), is_swapped))
        begin = end
    return pairs


def _target(max_tokens, short_seq_prob, rng):
    """How many tokens a pair is to have."""
    if rng.random() < short_seq_prob:
        return rng.integers(2, max_tokens, endpoint=True)
    return max_tokens


def _chunk(starts, begin, target, rng):
    """(end, middle): the sentences of a pair, and where a ends in them."""
    # The first sentence boundary at which the target is reached.
    end = min(np.searchsorted(starts, starts[begin] + target), len(starts) - 1)
    middle = begin + 1
    if end - begin > 2:
        middle = begin + rng.integers(1, end - begin - 1, endpoint=True)
    return end, middle


def _random_segment(documents, index, used, target, rng):
    """Sentences from elsewhere until `target` tokens; None if there are none.

    `used` is (begin, middle): a, and the sentence that truly follows it.
    """
    begin, middle = used
    if len(documents) > 1:
        other = rng.integers(len(documents) - 1)
        tokens, starts = documents[other + (other >= index)]
        start = rng.integers(len(starts) - 1)
        limit = len(starts) - 1
    else:
        tokens, starts = documents[0]
        sentences = len(starts) - 1
        after = max(sentences - middle - 1, 0)
        if begin + after == 0:
            return None
        start = rng.integers(begin + after)
        limit = begin if start < begin else sentences
        start += 0 if start < begin else middle + 1 - begin
    end = np.searchsorted(starts, starts[start] + target)
    end = min(max(end, start + 1), limit)
    return tokens[starts[start] : starts[end]]


def _truncate(a, b, max_tokens, rng):
    """Shortens the longer segment, token by token, at a random end."""
    excess = max(len(a) + len(b) - max_tokens, 0)
    # Of two equally long segments b loses the next token.
    keep_a = min(len(a), max(max_tokens - len(b), (max_tokens + 1) // 2))
    keep_b = len(a) + len(b) - excess - keep_a
    return _cut(a, keep_a, rng), _cut(b, keep_b, rng)


def _cut(segment, keep, rng):
    removed = len(segment) - keep
    front = rng.binomial(removed, 0.5) if removed else 0
    return segment[front : front + keep]


def _assemble(pairs, tokenizer, max_seq_length) -> PackedPairs:
    # Only here, so that reading records needs no tokenizers package.
    from official_models.nlp.text import vocabulary

    cls_id, sep_id = map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))
    shape = len(pairs), max_seq_length
    input_ids = np.zeros(shape, np.int32)
    segment_ids = np.zeros(shape, np.int32)
    lengths = np.zeros(len(pairs), np.int32)
    special = np.ones(shape, bool)
    input_ids[:, 0] = cls_id
    for row, (a, b, _) in enumerate(pairs):
        middle = len(a) + 1
        end = middle + len(b) + 1
        input_ids[row, 1:middle] = a
        input_ids[row, middle] = input_ids[row, end] = sep_id
        input_ids[row, middle + 1 : end] = b
        segment_ids[row, middle + 1 : end + 1] = 1
        special[row, 1:middle] = special[row, middle + 1 : end] = False
        lengths[row] = end + 1
    labels = np.array([is_random for _, _, is_random in pairs], np.int32)
    word_starts = vocabulary.begins_word(tokenizer)[input_ids] & ~special
    return PackedPairs(input_ids, segment_ids, lengths, word_starts, labels)
