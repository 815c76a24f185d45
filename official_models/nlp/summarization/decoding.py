"""Beam search with cached keys and values.

Axes: B documents, K beams, R = B K rows, T tokens of a document, L of a
summary, V vocabulary, H hidden.

References:
    Liu, Lapata 2019 (arXiv:1908.08345), section 4.3, and its code
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from official_models.common import ops
from official_models.common.errors import InputError
from official_models.nlp.checkpoint import models
from official_models.nlp.summarization.inputs import (
    Encoded,
    Marks,
    document_batch,
)
from official_models.nlp.summarization.model import DECODER, DOCUMENT
from tf_lamb import check

NOT_YET = -1e20  # the end, before the minimum length
REPEATED = -1e21  # what would repeat a trigram
_ENDED = -1e10


@dataclasses.dataclass(frozen=True)
class Beam:
    """How summaries are searched.

    Args:
        size: K; 1 is greedy.
        alpha: Of the length penalty ((5 + length) / 6)^alpha by which
            log-probabilities are divided; length counts the end.
        min_length: Tokens before the end, at least.
        max_length: Tokens at most, the end included.
        block_trigrams: Whether a trigram of words (wordpieces merged, sentence
            breaks left out) may come but once.

    Raises:
        ValueError: A value is out of range.
    """

    size: int = 5
    alpha: float = 0.95
    min_length: int = 50
    max_length: int = 200
    block_trigrams: bool = True

    def __post_init__(self):
        check.count("size", self.size)
        check.non_negative("alpha", self.alpha)
        check.count("max_length", self.max_length)
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(
                f"min_length: got {self.min_length}, expected at least 0 and "
                f"less than max_length = {self.max_length}"
            )


class Hypothesis(NamedTuple):
    """A summary that was found.

    Attributes:
        tokens: Ids, without beginning and end.
        log_probability: Sum over tokens and the end.
        score: It, by the length penalty.
    """

    tokens: list[int]
    log_probability: float
    score: float


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha."""
    return ((5 + length) / 6) ** alpha


class Words:
    """The words of growing lists of tokens, for trigrams.

    Args:
        begins_word: Of each id, bool [V].
        marks: Left out.
    """

    def __init__(self, begins_word: np.ndarray, marks: Marks):
        self._begins, self._marks = begins_word, marks

    def of(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """Each word as the ids of its wordpieces."""
        found: list[tuple[int, ...]] = []
        for token in tokens:
            if token in self._marks:
                continue
            if found and not self._begins[token]:
                found[-1] += (token,)
            else:
                found.append((token,))
        return found

    def repeats(self, tokens: Sequence[int]) -> bool:
        """Whether the last three words came before."""
        words = self.of(tokens)
        last = words[-3:]
        return len(words) > 3 and any(
            words[i : i + 3] == last for i in range(len(words) - 3)
        )


class Stepper:
    """A trained model, a token at a time.

    Args:
        model: Of `model.bertsum_abs`.
        cached: Whether keys and values of earlier tokens are kept. False: all
            are computed again at each token, for comparison.

    Attributes:
        cached: As given.
        batch: Makes the inputs of `start` from rows.
    """

    def __init__(self, model: keras.Model, cached: bool = True):
        self._encoder = models.encoder_of(model)
        self._decoder = model.get_layer(DECODER)
        self.cached = cached
        self._encode = compiled(self._encoded)
        self._first = compiled(self._begin)
        self._next = compiled(self._continue)
        self._all = compiled(self._again)

    def _encoded(self, input_ids, input_mask, segment_ids):
        return self._encoder(input_ids, input_mask, segment_ids)[0]

    def _begin(self, ids, sequence, mask):
        memory = self._decoder.memory(sequence)
        logits, state = self._decoder.advance(
            ids, None, memory, mask, 0, last=True
        )
        return _log_probabilities(logits), state, memory

    def _continue(self, ids, before, memory, mask):
        first = ops.shape(before[0][0])[1]
        logits, state = self._decoder.advance(
            ids, before, memory, mask, first, last=True
        )
        return _log_probabilities(logits), state

    def _again(self, ids, sequence, mask):
        memory = self._decoder.memory(sequence)
        logits, _ = self._decoder.advance(ids, None, memory, mask, 0, last=True)
        return _log_probabilities(logits)

    batch = staticmethod(document_batch)

    def explain(
        self, row: Encoded, tokens: Sequence[int], begin: int
    ) -> dict[str, Any]:
        """What decided, beside the beams; nothing here."""
        return {}

    def start(self, inputs: dict[str, np.ndarray], beams: int) -> None:
        """Reads documents.

        Args:
            inputs: Of `inputs.document_batch`.
            beams: K; each document is repeated so often.
        """
        ids = [ops.convert_to_tensor(inputs[name]) for name in DOCUMENT]
        sequence = self._encode(*ids)
        self._sequence = ops.repeat(sequence, beams, axis=0)
        self._mask = ops.repeat(ids[1], beams, axis=0)
        self._state: Any = None
        self._memory: Any = None

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """log p of the token after each row's, float32 [R, V].

        Args:
            tokens: All so far, the beginning first, int32 [R, L].
        """
        if not self.cached:
            ids = ops.convert_to_tensor(tokens)
            found = self._all(ids, self._sequence, self._mask)
            return ops.convert_to_numpy(found)
        ids = ops.convert_to_tensor(tokens[:, -1:])
        if self._state is None:
            found, self._state, self._memory = self._first(
                ids, self._sequence, self._mask
            )
        else:
            found, self._state = self._next(
                ids, self._state, self._memory, self._mask
            )
        return ops.convert_to_numpy(found)

    def keep(self, rows: np.ndarray) -> None:
        """Takes the state of these rows, [R]; those of a document may mix."""
        if self.cached and (rows != np.arange(len(rows))).any():
            index = ops.convert_to_tensor(rows.astype("int32"))
            self._state = keras.tree.map_structure(
                lambda x: ops.take(x, index, axis=0), self._state
            )


def _log_probabilities(logits):
    return ops.log_softmax(logits[:, -1], axis=-1)


def compiled(function: Callable) -> Callable:
    """The function, traced once for all lengths, on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)


class _Search:
    """The beams of one document."""

    def __init__(self, beam: Beam, words: Words, marks: Marks):
        self.beam, self._words, self._marks = beam, words, marks
        self.tokens: list[list[int]] = [[] for _ in range(beam.size)]
        # All beams are the same at first: only the first one counts.
        self.sums = np.full(beam.size, -math.inf)
        self.sums[0] = 0.0
        self.found: list[Hypothesis] = []
        self.ended = False

    def advance(self, step: int, log_p: np.ndarray) -> np.ndarray:
        """Takes the best extensions; gives the beam that each extends.

        Args:
            step: Tokens of the beams so far.
            log_p: [K, V].
        """
        beam = self.beam
        log_p = log_p.astype("float64")
        if step < beam.min_length:
            log_p[:, self._marks.end] = NOT_YET
        sums = self.sums[:, None] + log_p
        penalty = length_penalty(step + 1, beam.alpha)
        chosen = self._best(sums)
        tokens, kept, after = [], [], []
        top_ended = False
        for place, (row, token, total) in enumerate(chosen):
            grown = [*self.tokens[row], token]
            if token == self._marks.end or step + 1 == beam.max_length:
                body = grown[:-1] if token == self._marks.end else grown
                if total > _ENDED / 2 or not self.found:
                    found = Hypothesis(body, total, total / penalty)
                    self.found.append(found)
                total = _ENDED
                top_ended |= place == 0
            tokens.append(grown)
            kept.append(row)
            after.append(total)
        self.tokens, self.sums = tokens, np.array(after)
        self.ended = top_ended or step + 1 == beam.max_length
        return np.array(kept)

    def _best(self, sums: np.ndarray) -> list[tuple[int, int, float]]:
        """(beam, token, sum) of the K best that repeat no trigram."""
        size, vocab = self.beam.size, sums.shape[1]
        flat = sums.reshape(-1)
        number = size
        while True:
            number = min(4 * number, len(flat))
            top = np.argpartition(-flat, number - 1)[:number]
            top = top[np.argsort(-flat[top], kind="stable")]
            free: list[tuple[int, int, float]] = []
            blocked: list[tuple[int, int, float]] = []
            for i in top:
                row, token = divmod(int(i), vocab)
                if self._is_blocked(row, token):
                    blocked.append((row, token, REPEATED))
                else:
                    free.append((row, token, float(flat[i])))
                if len(free) == size:
                    return free
            if number == len(flat):
                return [*free, *blocked][:size]

    def _is_blocked(self, row: int, token: int) -> bool:
        if not self.beam.block_trigrams or token in self._marks:
            return False
        return self._words.repeats([*self.tokens[row], token])


def search(
    stepper: Stepper,
    inputs: dict[str, np.ndarray],
    beam: Beam,
    marks: Marks,
    begins_word: np.ndarray,
) -> list[list[Hypothesis]]:
    """Summaries of some documents, the best of each first.

    At each step the K best of all K V extensions are taken, by the sum of
    log-probabilities over the length penalty. The end has `NOT_YET` before the
    minimum length. An extension that repeats a trigram has `REPEATED`; the
    published code gives it to the beam one step later, when that has taken a
    place. What has ended is kept; a document is done when its best extension
    has ended, or at the maximum length.

    Args:
        stepper: Of the model.
        inputs: Of the stepper's `batch`.
        beam: How to search.
        marks: Of summaries.
        begins_word: Of each id, bool [V].

    Returns:
        For each document what was found, by score.

    Raises:
        InputError: A probability is not a number.
    """
    number, size = len(inputs[DOCUMENT[0]]), beam.size
    stepper.start(inputs, size)
    words = Words(begins_word, marks)
    searches = [_Search(beam, words, marks) for _ in range(number)]
    tokens = np.full((number * size, 1), marks.begin, "int32")
    for step in range(beam.max_length):
        log_p = stepper.step(tokens).reshape(number, size, -1)
        if np.isnan(log_p).any():
            raise InputError(
                "the probabilities of tokens are not finite: the training has "
                "diverged; lower --learning_rate"
            )
        kept = np.arange(number * size).reshape(number, size)
        for i, one in enumerate(searches):
            if not one.ended:
                kept[i] = i * size + one.advance(step, log_p[i])
        if all(one.ended for one in searches):
            break
        stepper.keep(kept.reshape(-1))
        last = np.array(
            [
                [grown[-1] if len(grown) > step else marks.end]
                for one in searches
                for grown in one.tokens
            ],
            "int32",
        )
        tokens = np.concatenate([tokens[kept.reshape(-1)], last], axis=1)
    return [
        sorted(one.found, key=lambda found: -found.score) for one in searches
    ]
