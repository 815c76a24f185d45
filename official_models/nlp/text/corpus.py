"""From plain text to sentences of WordPiece ids.

A document is a list of sentences: strings before `tokenize`, int32 arrays of
token ids after it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from tokenizers.pre_tokenizers import BertPreTokenizer

from official_models.common.errors import InputError
from official_models.nlp.text.shakespeare import (
    HELD_OUT,
    fetch_shakespeare,
    split_held_out,
)

__all__ = [
    "HELD_OUT",
    "SPECIAL_TOKENS",
    "expand_inputs",
    "fetch_shakespeare",
    "load_tokenizer",
    "read_documents",
    "split_held_out",
    "tokenize",
    "train_tokenizer",
]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_MAX_ALPHABET = 1000
_MAX_WORD_LENGTH = 200

_GUTENBERG = r"\*\*\* ?%s OF TH(?:E|IS) PROJECT GUTENBERG[^*]*"
_GUTENBERG_START = re.compile(_GUTENBERG % "START" + r"\*\*\*")
_GUTENBERG_END = re.compile(_GUTENBERG % "END")
_BLANK_LINES = re.compile(r"\n\s*\n")
# A sentence ends at its mark, together with any quotes or brackets it closes.
_SENTENCE_END = re.compile(r"(?<=[.!?;])([\"'”’)\]_]*)\s+")


# Reading


def expand_inputs(patterns: Sequence[str]) -> list[Path]:
    """The files that `patterns` mean, sorted and each once.

    Args:
        patterns: File names, globs (`**` reaches into folders), or folders,
            which mean all their `*.txt` files.

    Raises:
        InputError: If a pattern matches no file, or there is no pattern.
    """
    found = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = list(path.glob("*.txt"))
        elif path.exists():
            matches = [path]
        else:
            matches = map(Path, glob.glob(str(pattern), recursive=True))
        matches = [match for match in matches if match.is_file()]
        if not matches:
            kind = "no *.txt file in folder" if path.is_dir() else "no file"
            raise InputError(
                f"{kind} {str(pattern)!r}; --input takes files, quoted globs "
                "and folders of *.txt files"
            )
        found.update((match.resolve(), match) for match in matches)
    if not found:
        raise InputError("no input files; name some with --input")
    return sorted(found.values())


def read_documents(paths: Iterable[str | Path]) -> list[list[str]]:
    """Reads plain text: one document a file, as a list of sentences.

    Blank lines separate paragraphs; the lines of a paragraph are joined, so
    that a line of verse is no sentence, and then cut after `. ! ? ;`. Pieces
    of one or two words and pieces in capitals (speaker tags, "Mr.")
    stay with what follows them. The licence around a Project Gutenberg text
    and pieces without a letter or digit (rules, ornaments) are dropped.

    Args:
        paths: UTF-8 files, with or without a byte order mark.

    Raises:
        InputError: If a file cannot be read, is not UTF-8 text, or holds no
            sentence; names the file, and the line of an undecodable byte.
    """
    documents = []
    for path in map(Path, paths):
        sentences = _sentences(_read_text(path))
        if not sentences:
            raise InputError(
                f"{path}: no text in this file ({path.stat().st_size} bytes); "
                "leave it out or replace it"
            )
        documents.append(sentences)
    if not documents:
        raise InputError("no input files; name some with --input")
    return documents


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8")
        offset = data.find(b"\0")
        reason = "a NUL byte"
    except UnicodeDecodeError as error:
        offset = error.start
        reason = f"byte 0x{data[offset]:02x} ({error.reason})"
    if offset >= 0:
        line = data.count(b"\n", 0, offset) + 1
        raise InputError(
            f"{path}: not UTF-8 text: {reason} at byte offset {offset} "
            f"(from 0), line {line}; convert the file to UTF-8"
        )
    return text.removeprefix("\ufeff")


def _sentences(text: str) -> list[str]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    start = _GUTENBERG_START.search(text)
    text = text[start.end() :] if start else text
    end = _GUTENBERG_END.search(text)
    text = text[: end.start()] if end else text
    sentences = []
    for paragraph in _BLANK_LINES.split(text):
        sentences += _split_paragraph(" ".join(paragraph.split()))
    return sentences


def _split_paragraph(paragraph: str) -> list[str]:
    """Cuts a paragraph without newlines into sentences."""
    pieces = _SENTENCE_END.sub(r"\1\n", paragraph).split("\n")
    sentences, pending = [], ""
    for piece in pieces:
        pending = f"{pending} {piece}".strip()
        if len(pending.split()) > 2 and not pending.isupper():
            sentences.append(pending)
            pending = ""
    if pending and sentences:
        sentences[-1] += " " + pending
    elif pending:
        sentences.append(pending)
    return [text for text in sentences if any(map(str.isalnum, text))]


# WordPiece


def train_tokenizer(
    documents: list[list[str]], vocab_size: int, vocab_path: str | Path
) -> Tokenizer:
    """Trains a lower-casing WordPiece vocabulary and writes it.

    The result depends on the documents and `vocab_size` alone. The file has
    one token a line, the line number from 0 being its id: `[PAD]`, `[UNK]`,
    `[CLS]`, `[SEP]`, `[MASK]`, the characters, then the merged pieces.

    Args:
        documents: Sentences as `read_documents` gives them.
        vocab_size: Number of tokens wanted, special tokens included. A small
            corpus may give fewer: ask the result's `get_vocab_size()`.
        vocab_path: Where `vocab.txt` is written, in one step at the end.

    Returns:
        What `load_tokenizer(vocab_path)` returns.

    Raises:
        InputError: If `vocab_size` cannot hold the characters of the text.
    """
    trainer_model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer_model.normalizer = normalizers.BertNormalizer(lowercase=True)
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
    _write_lines(Path(vocab_path), sorted(vocab, key=vocab.get))
    return load_tokenizer(vocab_path)


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


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file so that no reader ever sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def load_tokenizer(vocab_path: str | Path, lowercase: bool = True) -> Tokenizer:
    """BERT's tokenizer over a published or a trained `vocab.txt`.

    It adds no special token by itself and finds none in text: a text that
    spells "[MASK]" is tokenized as words and brackets.

    Args:
        vocab_path: UTF-8, one token a line, the line number from 0 is the id.
        lowercase: Whether to lower-case and strip accents ("uncased").

    Raises:
        InputError: If the file cannot be read, is empty, repeats a token or
            has an empty line (both named by line, from 1), or lacks a
            special token.
    """
    path = Path(vocab_path)
    text = _read_text(path)
    # Not splitlines(): a published vocabulary may hold U+2028 as a token.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(f"{path}: empty; expected one token a line")
    vocab = {}
    for number, token in enumerate(lines):
        if not token:
            raise InputError(f"{path}: line {number + 1} is empty")
        if token in vocab:
            raise InputError(
                f"{path}: line {number + 1} repeats {token!r} of line "
                f"{vocab[token] + 1}; every token must have one id"
            )
        vocab[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in vocab]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; a BERT vocabulary has "
            "each special token on a line of its own"
        )
    model = models.WordPiece(
        vocab, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_LENGTH
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def tokenize(
    documents: list[list[str]], tokenizer: Tokenizer
) -> list[list[np.ndarray]]:
    """Encodes every sentence, without special tokens.

    Returns:
        For each document its sentences, int32 [number of tokens >= 1] each;
        a sentence that has no token is dropped.
    """
    tokenized = []
    for document in documents:
        encodings = tokenizer.encode_batch_fast(
            document, add_special_tokens=False
        )
        ids = (np.asarray(encoding.ids, np.int32) for encoding in encodings)
        tokenized.append([sentence for sentence in ids if sentence.size])
    return tokenized
