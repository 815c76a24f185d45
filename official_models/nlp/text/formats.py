"""Which format files of text have, and all of their documents in memory."""

from __future__ import annotations

import functools
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from official_models.common.errors import InputError, first_line
from official_models.nlp.text import documents
from official_models.nlp.text.corpus import cut_sentences, read_documents

AUTO = "auto"
FORMATS = (AUTO, *documents.FORMATS)
_BLANK = re.compile(r"\n\s*\n")
# A line that ends as a sentence does, whatever its script.
_END = re.compile(r"[^\w\s,:\-–—(\[{]$")
_HEAD = 1 << 18


def read_all(
    paths: Sequence[str | Path], form: documents.Format
) -> tuple[list[list[str]], str]:
    """All documents of files in memory, each a list of sentences.

    Args:
        paths: Of the files.
        form: Of their documents; "auto" for what each file looks like.

    Returns:
        The documents, and what was found, in words.

    Raises:
        InputError: A file cannot be read or has no document, or a line is no
            text.
    """
    found: list[list[str]] = []
    names: Counter[str] = Counter()
    for path in map(str, paths):
        name = guess(path, form.text_field) if form.name == AUTO else form.name
        if name == "text" and not documents.is_gzipped(path):
            names[name] += 1
            found += read_documents([path])
            continue
        bad = documents.BadLines()
        groups = documents.read_groups(
            [documents.Piece(path, 0, None, 0)],
            form._replace(name=name),
            1 << 62,
            bad,
            functools.partial(open, mode="rb"),
        )
        here = [document for group in groups for document in group]
        if bad.places:
            kind, path, offset = bad.places[0]
            raise InputError(
                f"{path}: {kind} at byte offset {offset} (from 0), read as "
                f"{name}; convert the file to UTF-8, or leave the line out"
            )
        if not here:
            raise InputError(
                f"{path}: no text in this file, read as {name}; leave it out, "
                "or give another --input_format"
            )
        names[name] += 1
        found += here
    forms = " and ".join(f"{n} files of {name}" for name, n in names.items())
    return found, f"{len(found):,} documents in {forms}"


def guess(path: str, text_field: str = "text") -> str:
    """The format that a file looks like, by its first 256 KiB.

    `sentences` where two blocks of two lines and more stand between blank
    lines, and nine lines of ten are one sentence, and end as one does. Verse,
    lines of a fixed width and a paragraph a line are `text`.

    Args:
        path: Of the file.
        text_field: Of a JSON line.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if documents.is_gzipped(path):
                with gzip.GzipFile(fileobj=io.BytesIO(head)) as unpacked:
                    head = unpacked.read1(_HEAD)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path}: {reason}") from error
    whole = head.rpartition(b"\n")[0] if len(head) == _HEAD else head
    lines = whole.decode("utf-8", "replace").removeprefix("\ufeff").splitlines()
    full = [line.strip() for line in lines if line.strip()]
    if not full:
        return "text"
    if documents.WIKI_DOCUMENT.match(full[0].encode()):
        return "wikiextractor"
    if full[0].startswith("{") and not documents.field(full[0], text_field)[1]:
        return "jsonl"
    blocks = [block.split("\n") for block in _BLANK.split("\n".join(lines))]
    blocks = [block for block in blocks if any(map(str.strip, block))]
    ends = sum(bool(_END.search(line)) for line in full)
    one_each = sum(len(cut_sentences(line)) == 1 for line in full)
    if (
        len(blocks) > 1
        and len(full) >= 2 * len(blocks)
        and ends >= 0.9 * len(full)
        and one_each >= 0.9 * len(full)
    ):
        return "sentences"
    return "text"
