"""How much each head looks at tokens of a class: [CLS], [SEP], given words.

Of one example, the mean over its queries of A[query, j], and of that the
largest over the tokens j of the class; the mean over the examples that have
such a token is reported. A class is a list of words: each is cut into tokens
by the model's own tokenizer, and every whole occurrence counts.

Axes: T tokens of an example without padding, L layers, N heads.

References:
    Kovaleva et al. 2019 (arXiv:1908.08593), section 4.4
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.text import vocabulary

CLS, SEP, PUNCTUATION = "[CLS]", "[SEP]", "punctuation"
EXPECTED = 'expected {"class": ["word", ...], ...}'


class Words:
    """Finds words in the ids of a text.

    Args:
        tokenizer: Of the model's vocabulary, of `tokenizers`.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self._begins = vocabulary.begins_word(tokenizer)

    def pieces(self, word: str) -> tuple[int, ...]:
        """The ids of a word's tokens."""
        found = self._tokenizer.encode(word, add_special_tokens=False)
        return tuple(found.ids)

    def places(self, pieces: Sequence[int], ids: np.ndarray) -> np.ndarray:
        """Which tokens belong to a word's occurrences, boolean [T].

        Args:
            pieces: From `pieces`.
            ids: Of a text's tokens, [T]; the word has to end where the next
                one begins.
        """
        found, number = np.zeros(len(ids), bool), len(pieces)
        for first in range(len(ids) - number + 1) if number else ():
            end = first + number
            whole = end == len(ids) or self._begins[ids[end]]
            if whole and tuple(ids[first:end]) == tuple(pieces):
                found[first:end] = True
        return found


class TokenClass(NamedTuple):
    """Tokens that attention to is measured.

    Attributes:
        name: Of the class.
        single: Ids of tokens that belong to it wherever they are.
        words: Ids of words of several tokens, or whose end counts.
    """

    name: str
    single: frozenset[int]
    words: tuple[tuple[int, ...], ...] = ()

    def places(self, words: Words, ids: np.ndarray) -> np.ndarray:
        """Which tokens of a text belong to it, boolean [T]."""
        found = np.isin(ids, list(self.single))
        for pieces in self.words:
            found |= words.places(pieces, ids)
        return found


def is_punctuation(token: str) -> bool:
    """Whether a token is nothing but Unicode's punctuation, such as ","."""
    bare = token.removeprefix("##").removeprefix("\u2581")
    return bool(bare) and all(
        unicodedata.category(c).startswith("P") for c in bare
    )


def usual_classes(tokenizer) -> list[TokenClass]:
    """[CLS], [SEP] and punctuation."""
    vocab = tokenizer.get_vocab()
    marks = {i for token, i in vocab.items() if is_punctuation(token)}
    special = [
        TokenClass(name, frozenset({vocab[name]})) for name in (CLS, SEP)
    ]
    return [*special, TokenClass(PUNCTUATION, frozenset(marks))]


def read_classes(path: str | os.PathLike, words: Words) -> list[TokenClass]:
    """The classes in a JSON file, {"class": ["word", ...], ...}.

    Raises:
        InputError: It has another form, or a class has the name of one that
            is measured anyway, or has no word.
    """
    given = files.read_json(path, EXPECTED)
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{path}: {EXPECTED}")
    found = []
    for name, listed in given.items():
        if name in (CLS, SEP, PUNCTUATION):
            raise InputError(
                f"{path}: class {name!r} is measured anyway; give yours "
                "another name"
            )
        if (
            not isinstance(listed, list)
            or not listed
            or not all(isinstance(w, str) and words.pieces(w) for w in listed)
        ):
            raise InputError(f"{path}: class {name[:40]!r}: {EXPECTED}")
        pieces = tuple(words.pieces(word) for word in listed)
        found.append(TokenClass(name, frozenset(), pieces))
    return found


def attention(maps: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The attention of an example's heads to some of its tokens.

    Args:
        maps: [L, N, T, T], without padding.
        places: Boolean [T], one True or more.

    Returns:
        [L, N]: the largest mean over queries, in (0, 1].
    """
    return maps.mean(axis=-2)[..., places].max(axis=-1)


def check_found(
    path: str,
    classes: Sequence[TokenClass],
    words: Words,
    inputs: Mapping[str, np.ndarray],
) -> None:
    """Refuses a given class of which no example has a token.

    Args:
        path: Where the classes are from.
        classes: From `read_classes`.
        words: As given there.
        inputs: Of all examples, `input_ids` [M, T] among them.

    Raises:
        InputError: It names the class.
    """
    for one in classes:
        rows = (one.places(words, ids) for ids in inputs["input_ids"])
        if not any(row.any() for row in rows):
            raise InputError(
                f"{path}: class {one.name!r}: none of its words is in the "
                "texts of --data; correct the words, or leave the class out"
            )
