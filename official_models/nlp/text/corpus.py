"""From plain text to sentences of WordPiece ids.

A document is a list of sentences: strings before `tokenize`, int32 arrays of
token ids after it.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from official_models.common import files
from official_models.common.errors import InputError

_GUTENBERG = r"\*\*\* ?%s OF TH(?:E|IS) PROJECT GUTENBERG[^*]*"
_GUTENBERG_START = re.compile(_GUTENBERG % "START" + r"\*\*\*")
_GUTENBERG_END = re.compile(_GUTENBERG % "END")
_BLANK_LINES = re.compile(r"\n\s*\n")
# A sentence ends at its mark, together with any quotes or brackets it closes.
_SENTENCE_END = re.compile(r"(?<=[.!?;])([\"'”’)\]_]*)\s+")


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
        sentences = cut_sentences(_read_text(path))
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
    remedy = "convert the file to UTF-8"
    text = files.read_text(path, remedy)
    at = text.find("\0")
    if at >= 0:
        before = text[:at]
        raise InputError(
            f"{path}: not UTF-8 text: a NUL byte at byte offset "
            f"{len(before.encode())} (from 0), line "
            f"{before.count(chr(10)) + 1}; {remedy}"
        )
    return text


def cut_sentences(text: str) -> list[str]:
    """The sentences of a document's text, as `read_documents` cuts them."""
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
