"""A vocabulary of either kind: WordPiece's `vocab.txt`, SentencePiece's."""

from __future__ import annotations

import os

import numpy as np
from tokenizers import Tokenizer

from official_models.nlp.text import sentence_piece, wordpiece

_MUCH_UNKNOWN = 0.01


def is_sentence_piece(path: str | os.PathLike) -> bool:
    """Whether a file is one of SentencePiece, by its name: `.model`."""
    return os.fspath(path).endswith(sentence_piece.SUFFIX)


def load_tokenizer(
    path: str | os.PathLike, lowercase: bool | None = None
) -> Tokenizer:
    """The tokenizer over a `vocab.txt` or a SentencePiece `.model`.

    Args:
        path: Local or on `gs://`.
        lowercase: Whether it is uncased; None for what a `vocab.txt` says by
            its tokens, and True for a `.model`, as published.

    Raises:
        InputError: As of `wordpiece.load_tokenizer` and
            `sentence_piece.load_tokenizer`.
    """
    if is_sentence_piece(path):
        return sentence_piece.load_tokenizer(path, lowercase is not False)
    return wordpiece.load_tokenizer(path, lowercase)


def is_uncased(path: str | os.PathLike) -> bool:
    """What `load_tokenizer` takes `lowercase` for where it is None.

    Raises:
        InputError: As there.
    """
    return is_sentence_piece(path) or wordpiece.is_uncased(path)


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """{name of a special token in transformers: that token}."""
    pad, unknown = "[PAD]", "[UNK]"
    if tokenizer.token_to_id(unknown) is None:
        pad, unknown = sentence_piece.PAD, sentence_piece.UNKNOWN
    return {
        "pad_token": pad,
        "unk_token": unknown,
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }


def count_unknown(ids: np.ndarray, tokenizer: Tokenizer) -> int:
    """How many of some ids are [UNK] (<unk>); padding is none of them."""
    unknown = tokenizer.token_to_id(special_tokens(tokenizer)["unk_token"])
    return int((ids == unknown).sum())


def unknown_words(unknown: int, tokens: int) -> str:
    """The share of [UNK] in words; above 1% with a question.

    Args:
        unknown: Of `count_unknown`.
        tokens: All tokens without padding.
    """
    share = unknown / max(tokens, 1)
    if share <= _MUCH_UNKNOWN:
        return f"{share:.2%} [UNK]"
    return (
        f"{share:.1%} [UNK], which is much: is the vocabulary for this "
        "language, and cased as the text is?"
    )


def begins_word(tokenizer: Tokenizer) -> np.ndarray:
    """Of each id, whether a word begins with its token, bool [V]."""
    is_piece = special_tokens(tokenizer)["pad_token"] == sentence_piece.PAD
    begins = np.ones(tokenizer.get_vocab_size(), bool)
    for token, token_id in tokenizer.get_vocab().items():
        begins[token_id] = (
            sentence_piece.begins_word(token)
            if is_piece
            else not token.startswith("##")
        )
    return begins
