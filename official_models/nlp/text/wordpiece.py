"""BERT's WordPiece vocabularies: trained here, or as published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from tokenizers.pre_tokenizers import BertPreTokenizer

from official_models.common import files
from official_models.common.errors import InputError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_MAX_ALPHABET = 1000
_MAX_WORD_LENGTH = 200


def is_uncased(vocab_path: str | os.PathLike) -> bool:
    """Whether a vocabulary is for text in lower case, by its tokens.

    Args:
        vocab_path: As of `load_tokenizer`.

    Raises:
        InputError: As there.
    """
    return not _capitals(_read_vocabulary(vocab_path))


def _capitals(vocab: Mapping[str, int]) -> list[str]:
    """Its tokens with capitals; none if they are not one of 200."""
    found = [t for t in vocab if t != t.lower() and not t.startswith("[")]
    return found if 200 * len(found) > len(vocab) else []


def load_tokenizer(
    vocab_path: str | os.PathLike, lowercase: bool | None = None
) -> Tokenizer:
    """BERT's tokenizer over a published or a trained `vocab.txt`.

    It adds no special token by itself and finds none in text: a text that
    spells "[MASK]" is tokenized as words and brackets. A word of more than 200
    characters is [UNK]. Both are so in `tokenization.py` of
    google-research/bert; Hugging Face's tokenizers differ.

    Args:
        vocab_path: Local or on `gs://`. UTF-8, one token a line, the line
            number from 0 is the id.
        lowercase: Whether to lower-case and strip accents ("uncased"); None
            for what `is_uncased` says.

    Raises:
        InputError: If the file cannot be read, is empty, repeats a token or
            has an empty line (both named by line, from 1), or lacks a
            special token; or if text is to be lower-cased for a vocabulary
            with capitals, most of which it would never find.
    """
    vocab = _read_vocabulary(vocab_path)
    capitals = _capitals(vocab)
    if lowercase and capitals:
        raise InputError(
            f"{vocab_path}: {len(capitals):,} of {len(vocab):,} tokens have "
            f"capitals, such as {capitals[0]!r}: it is cased, and lower-cased "
            "text would not find them; leave out the flag that lower-cases, or "
            "give an uncased vocabulary"
        )
    if lowercase is None:
        lowercase = not capitals
    model = models.WordPiece(
        vocab, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_LENGTH
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _read_vocabulary(vocab_path: str | os.PathLike) -> dict[str, int]:
    """{token: id}, every token once, with the special ones."""
    text = files.read_text(vocab_path, "expected one token a line, in UTF-8")
    # Not splitlines(): a published vocabulary may hold U+2028 as a token.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{vocab_path}: empty; expected one token a line")
    vocab = {}
    for number, token in enumerate(lines):
        if not token:
            raise InputError(f"{vocab_path}: line {number + 1} is empty")
        if token in vocab:
            raise InputError(
                f"{vocab_path}: line {number + 1} repeats {token!r} of line "
                f"{vocab[token] + 1}; every token must have one id"
            )
        vocab[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in vocab]
    if missing:
        raise InputError(
            f"{vocab_path}: lacks {', '.join(missing)}; a BERT vocabulary has "
            "each special token on a line of its own"
        )
    return vocab


def train_tokenizer(
    documents: list[list[str]],
    vocab_size: int,
    vocab_path: str | Path,
    lowercase: bool = True,
) -> Tokenizer:
    """Trains a WordPiece vocabulary and writes it.

    The result depends on the documents and `vocab_size` alone. The file has
    one token a line, the line number from 0 being its id: `[PAD]`, `[UNK]`,
    `[CLS]`, `[SEP]`, `[MASK]`, the characters, then the merged pieces.

    Args:
        documents: Sentences as `corpus.read_documents` gives them.
        vocab_size: Number of tokens wanted, special tokens included. A small
            corpus may give fewer: ask the result's `get_vocab_size()`.
        vocab_path: Where `vocab.txt` is written, in one step at the end.
        lowercase: Whether text is lower-cased and accents are stripped.

    Returns:
        What `load_tokenizer(vocab_path, lowercase)` returns.

    Raises:
        InputError: If `vocab_size` cannot hold the characters of the text, or
            the file cannot be written.
    """
    trainer_model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer_model.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    trainer_model.pre_tokenizer = BertPreTokenizer()
    first = [*SPECIAL_TOKENS, *_alphabet(documents, trainer_model)]
    if vocab_size < len(first):
        raise InputError(
            f"vocab_size {vocab_size} is too small: the special tokens and "
            f"the characters of this text already are {len(first)} tokens"
        )
    # Left to itself the trainer numbers the "##" characters in the order of a
    # randomly seeded hash map, and breaks ties between merges by those
    # numbers; given as special tokens they keep the order they have here.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=first,
        limit_alphabet=_MAX_ALPHABET,
        show_progress=False,
    )
    sentences = (sentence for document in documents for sentence in document)
    trainer_model.train_from_iterator(sentences, trainer)
    vocab = trainer_model.get_vocab()
    lines = (f"{token}\n" for token in sorted(vocab, key=vocab.get))
    try:
        Path(vocab_path).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(vocab_path, "".join(lines))
    except OSError as error:
        raise InputError(
            f"cannot write {vocab_path}: {error.strerror}"
        ) from error
    return load_tokenizer(vocab_path, lowercase)


def _alphabet(documents: list[list[str]], tokenizer: Tokenizer) -> list[str]:
    """The commonest characters, then those that continue a word as "##c"."""
    words = Counter()
    normalize = tokenizer.normalizer.normalize_str
    split = tokenizer.pre_tokenizer.pre_tokenize_str
    for document in documents:
        for sentence in document:
            words.update(word for word, _ in split(normalize(sentence)))
    counts, inside = Counter(), set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        inside.update(word[1:])
    ranked = sorted(
        counts, key=lambda character: (-counts[character], character)
    )
    kept = sorted(ranked[:_MAX_ALPHABET])
    return kept + [
        f"##{character}" for character in kept if character in inside
    ]
