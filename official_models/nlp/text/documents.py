"""Documents from files of any size: text, sentences or JSON, gzipped or not.

Files are cut into pieces, and pieces from all over them are put together to
buckets of a bounded size, which can be read by themselves. A line that is no
text is left out, and its kind, file and offset are noted.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from official_models.common.errors import InputError, first_line
from official_models.nlp.text.corpus import cut_sentences

# text: a file is a document, as `corpus.read_documents` reads it.
# sentences: a line is a sentence, a blank line ends a document; the input of
#     google-research/bert's `create_pretraining_data.py`.
# jsonl: a line is a JSON object, a document is the string in one of its fields.
# wikiextractor: a document stands between <doc ...> and </doc>, a paragraph a
#     line, the first one its title; the output of WikiExtractor.
FORMATS = ("text", "sentences", "jsonl", "wikiextractor")
BAD_KINDS = ("not UTF-8", "NUL", "too long", "not JSON", "no text field")

WIKI_DOCUMENT = re.compile(rb"<doc\s[^>]*>\s*$")
_PIECES_OF_A_BUCKET = 8
_MOST_PLACES = 1000
_BLOCK = 1 << 20

Opener = Callable[[str], BinaryIO]


class Piece(NamedTuple):
    """A part of a file: what begins at bytes `begin` to `end` - 1.

    Attributes:
        path: of the file.
        begin: byte offset, from 0.
        end: byte offset; None for the end of the file.
        size: bytes that are stored.
    """

    path: str
    begin: int
    end: int | None
    size: int


class Format(NamedTuple):
    """How documents lie in files.

    Attributes:
        name: one of `FORMATS`.
        text_field: the field of a JSON object that has the text.
        max_line_bytes: longer lines are bad ones.
        max_document_bytes: a longer document is cut into several, at a line.
    """

    name: str = "text"
    text_field: str = "text"
    max_line_bytes: int = 16 << 20
    max_document_bytes: int = 16 << 20


class BadLines:
    """Counts lines that are no text.

    Attributes:
        counts: {kind: lines}.
        places: (kind, file, byte offset of the line's beginning in what is
            stored or, if the file is gzipped, in what was packed), of the
            first 1,000.
    """

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.places: list[tuple[str, str, int]] = []

    def note(self, kind: str, path: str, offset: int) -> None:
        """Counts a line."""
        self.counts[kind] += 1
        if len(self.places) < _MOST_PLACES:
            self.places.append((kind, path, offset))


def buckets(
    files: Iterable[tuple[str, int]],
    form: Format,
    bucket_bytes: int,
    seed: int,
) -> list[list[Piece]]:
    """Deals files out to buckets, a function of the arguments.

    A file that is gzipped, or is one document, stays whole; others are cut
    into eighths of a bucket. Pieces are taken in random order.

    Args:
        files: (path, bytes), sorted.
        form: of the files.
        bucket_bytes: what is stored of a bucket, at most; a larger piece is a
            bucket of its own.
        seed: Non-negative.

    Returns:
        The pieces of each bucket, in the order of the files.
    """
    pieces = []
    step = max(bucket_bytes // _PIECES_OF_A_BUCKET, 1)
    for path, size in files:
        if form.name == "text" or is_gzipped(path):
            pieces.append(Piece(path, 0, None, size))
            continue
        for begin in range(0, size, step):
            end = min(begin + step, size)
            pieces.append(Piece(path, begin, end, end - begin))
    dealt: list[list[int]] = []
    room = 0
    for number in np.random.default_rng(seed).permutation(len(pieces)).tolist():
        room -= pieces[number].size
        if room < 0 or not dealt:
            dealt.append([])
            room = bucket_bytes - pieces[number].size
        dealt[-1].append(number)
    return [[pieces[number] for number in sorted(bucket)] for bucket in dealt]


def is_gzipped(path: str) -> bool:
    """Whether a file is gzipped, by its name."""
    return path.endswith(".gz")


def read_groups(
    bucket: Iterable[Piece],
    form: Format,
    group_bytes: int,
    bad: BadLines,
    open_file: Opener,
) -> Iterator[list[list[str]]]:
    """The documents of a bucket, some at a time, each a list of sentences.

    Args:
        bucket: of `buckets`.
        form: of its files.
        group_bytes: a group ends where it has as much text. Only a gzipped
            file may hold more than one group.
        bad: receives the lines that are left out.
        open_file: opens a file for reading bytes.

    Raises:
        InputError: a file cannot be read, or its gzip stream is damaged.
    """
    group, size = [], 0
    for piece in bucket:
        for sentences, length in _read_piece(piece, form, bad, open_file):
            size += length
            if sentences:
                group.append(sentences)
            if size >= group_bytes:
                yield group
                group, size = [], 0
    if group:
        yield group


def _read_piece(piece, form, bad, open_file):
    """(sentences, bytes) of the documents that begin in a piece."""
    read = {
        "text": _read_text,
        "sentences": _read_sentences,
        "jsonl": _read_json_lines,
        "wikiextractor": _read_wikiextractor,
    }[form.name]
    lines = _Lines(piece, form.max_line_bytes)
    try:
        with open_file(piece.path) as file:
            if is_gzipped(piece.path):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield from read(lines.read(unpacked), piece, form, bad)
            else:
                yield from read(lines.read(file), piece, form, bad)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{piece.path}: the gzip stream is damaged after {lines.offset} "
            f"unpacked bytes: {first_line(error)}; replace the file or leave "
            "it out"
        ) from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise InputError(f"{piece.path}: {reason}") from error


class _Lines:
    """The lines of a file from a piece's first one on, with their offsets."""

    def __init__(self, piece: Piece, longest: int):
        self._piece = piece
        self._longest = longest
        self.offset = piece.begin

    def read(self, file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
        """(offset, line); None for a line that is too long."""
        if self._piece.begin:
            # A line that begins before the piece belongs to another one.
            file.seek(self._piece.begin - 1)
            self.offset -= 1
            self._pass_over(file)
        while line := file.readline(self._longest + 1):
            offset = self.offset
            self.offset += len(line)
            if len(line) > self._longest and not line.endswith(b"\n"):
                self._pass_over(file)
                line = None
            yield offset, line

    def _pass_over(self, file: BinaryIO) -> None:
        """Skips what is left of a line."""
        while part := file.readline(_BLOCK):
            self.offset += len(part)
            if part.endswith(b"\n"):
                return


def _read_text(lines, piece, form, bad):
    text, size = [], 0
    for offset, line in lines:
        decoded = _decode(line, offset, piece.path, bad)
        if decoded is not None:
            text.append(decoded)
            size += len(line)
        if size >= form.max_document_bytes:
            yield cut_sentences("".join(text)), size
            text, size = [], 0
    if text:
        yield cut_sentences("".join(text)), size


def _read_sentences(lines, piece, form, bad):
    """Documents whose blank line before them begins in the piece."""
    end = float("inf") if piece.end is None else piece.end
    sentences, size = [], 0
    ours = piece.begin == 0
    for offset, line in lines:
        is_blank = line is not None and not line.strip()
        if sentences and (is_blank or size >= form.max_document_bytes):
            yield sentences, size
            sentences, size = [], 0
        if offset >= end and (is_blank or not ours):
            return
        ours = ours or is_blank
        if ours and not is_blank:
            text = (_decode(line, offset, piece.path, bad) or "").strip()
            if any(map(str.isalnum, text)):
                sentences.append(text)
                size += len(line)
    if sentences:
        yield sentences, size


def _read_json_lines(lines, piece, form, bad):
    for offset, line in lines:
        if piece.end is not None and offset >= piece.end:
            return
        if line is not None and not line.strip():
            continue
        decoded = _decode(line, offset, piece.path, bad)
        if decoded is None:
            continue
        text, kind = field(decoded, form.text_field)
        if kind:
            bad.note(kind, piece.path, offset)
        else:
            yield cut_sentences(text), len(line)


def _read_wikiextractor(lines, piece, form, bad):
    """Documents whose first line begins in the piece."""
    end = float("inf") if piece.end is None else piece.end
    paragraphs: list[str] | None = None
    size = 0
    for offset, line in lines:
        if line is not None and WIKI_DOCUMENT.match(line):
            if offset >= end:
                return
            paragraphs, size = [], 0
        elif paragraphs is not None:
            closed = line is not None and line.strip() == b"</doc>"
            if closed or size >= form.max_document_bytes:
                yield cut_sentences("\n\n".join(paragraphs)), size
                paragraphs, size = None if closed else [], 0
            if not closed:
                decoded = _decode(line, offset, piece.path, bad)
                paragraphs += [] if decoded is None else [decoded]
                size += len(line or b"")
    if paragraphs:
        yield cut_sentences("\n\n".join(paragraphs)), size


def _decode(line, offset, path, bad) -> str | None:
    """A line's text; None, and a note, for one that is none."""
    kind, text = "too long", None
    if line is not None:
        try:
            text = line.decode("utf-8")
            kind = "NUL" if "\0" in text else ""
        except UnicodeDecodeError:
            kind = "not UTF-8"
    if kind:
        bad.note(kind, path, offset)
        return None
    return text.removeprefix("\ufeff") if not offset else text


def field(line: str, name: str) -> tuple[str, str]:
    """(text, kind): the text of a JSON line, or how it is bad."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "", "not JSON"
    text = value.get(name) if isinstance(value, dict) else None
    if not isinstance(text, str):
        return "", "no text field"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair of \ud800 and \udc00
        return "", "not UTF-8"
    return text, "NUL" if "\0" in text else ""
