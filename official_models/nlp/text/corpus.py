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
# Beyond ASCII: Unicode's property Sentence_Terminal, without the one dot leader
# and what lies above U+FFFF. No word ends in one of them, and in Chinese and
# Japanese no space follows.
_TERMINALS = (
    r"\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839"
    r"\u083d-\u083e\u0964-\u0965\u104a-\u104b\u1362\u1367-\u1368"
    r"\u166e\u1735-\u1736\u17d4-\u17d5\u1803\u1809\u1944-\u1945"
    r"\u1aa8-\u1aab\u1b4e-\u1b4f\u1b5a-\u1b5b\u1b5e-\u1b5f"
    r"\u1b7d-\u1b7f\u1c3b-\u1c3c\u1c7e-\u1c7f\u203c-\u203d"
    r"\u2047-\u2049\u2cf9-\u2cfb\u2e2e\u2e3c\u2e53-\u2e54"
    r"\u2e60-\u2e61\u3002\ua4ff\ua60e-\ua60f\ua6f3\ua6f7"
    r"\ua876-\ua877\ua8ce-\ua8cf\ua92f\ua9c8-\ua9c9\uaa5d-\uaa5f"
    r"\uaaf0-\uaaf1\uabeb\ufe12\ufe15-\ufe16\ufe52\ufe56-\ufe57"
    r"\uff01\uff0e\uff1f\uff61"
)
# A sentence ends at its mark, together with any quotes or brackets it closes.
_CLOSING = r"\"'”’»)\]_）」』】》〉"
_SENTENCE_END = re.compile(
    rf"((?<=[.!?;])[{_CLOSING}]*)\s+|([{_TERMINALS}][{_TERMINALS}{_CLOSING}]*)\s*"
)
_TERMINAL = re.compile(rf"[{_TERMINALS}][{_CLOSING}]*$")


def expand_inputs(patterns: Sequence[str]) -> list[Path]:
    """The files that `patterns` mean, sorted and each once.

    Args:
        patterns: File names, globs (`**` reaches into folders), or folders,
            which mean all their `*.txt` files, or if they have none, all
            `wiki_*` files in them and in their folders.

    Raises:
        InputError: If a pattern matches no file, or there is no pattern.
    """
    found = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            # Those of WikiExtractor are AA/wiki_00, AA/wiki_01, ...
            matches = list(path.glob("*.txt")) or list(path.rglob("wiki_*"))
        elif path.exists():
            matches = [path]
        else:
            matches = map(Path, glob.glob(str(pattern), recursive=True))
        matches = [match for match in matches if match.is_file()]
        if not matches:
            kind = (
                "no *.txt and no wiki_* file in folder"
                if path.is_dir()
                else "no file"
            )
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
    that a line of verse is no sentence, and then cut after `. ! ? ;` and after
    the marks that end a sentence in other scripts (`。`, `！`, `।`, `؟`, ...).
    Pieces of one or two words and pieces in capitals (speaker tags, "Mr.")
    stay with what follows them, unless they end in such a mark. The licence
    around a Project Gutenberg text and pieces without a letter or digit (rules,
    ornaments) are dropped.

    Args:
        paths: UTF-8 files, with or without a byte order mark.

    Raises:
        InputError: If a file cannot be read, is not UTF-8 text, or holds no
            sentence; names the file, and the line of an undecodable byte.
    """
    documents = []
    for path in map(Path, paths):
        sentences = cut_sentences(
            files.read_text(path, "convert the file to UTF-8")
        )
        if not sentences:
            raise InputError(
                f"{path}: no text in this file ({path.stat().st_size} bytes); "
                "leave it out or replace it"
            )
        documents.append(sentences)
    if not documents:
        raise InputError("no input files; name some with --input")
    return documents


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
    pieces = _SENTENCE_END.sub(
        lambda match: (match[1] or match[2] or "") + "\n", paragraph
    ).split("\n")
    sentences, pending = [], ""
    for piece in pieces:
        pending = f"{pending} {piece}".strip()
        is_long = len(pending.split()) > 2 and not pending.isupper()
        if is_long or _TERMINAL.search(pending):
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
