"""Reuters-21578 in its SGML files, split as "ModApte".

Training documents have LEWISSPLIT="TRAIN" and TOPICS="YES", test documents
LEWISSPLIT="TEST" and TOPICS="YES": 9,603 and 3,299 in the whole collection
(its README.txt, VIII.B). The files are not valid SGML, so that they are read by
the marks that the README describes.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from official_models.common.errors import InputError
from official_models.nlp.term_weighting.corpora import Corpus, Document
from official_models.nlp.term_weighting.members import members

_WHAT = "Reuters-21578's files reut2-000.sgm to reut2-021.sgm"
_BEGIN, _END = re.compile(r"<REUTERS\b([^>]*)>"), "</REUTERS>"
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_TOPIC = re.compile(r"<D>(.*?)</D>")
_SPLITS = {"TRAIN": "train", "TEST": "test"}


def load(path: str | Path) -> Corpus:
    """Reads the collection.

    Args:
        path: A folder or a tar archive with the .sgm files; other files are
            left alone.

    Returns:
        Documents with their TOPICS. Categories without a training document are
        left out.

    Raises:
        InputError: There are none, one breaks off, or no document has a topic.
    """
    parts: dict[str, list[Document]] = {"train": [], "test": []}
    seen = 0
    for name, content in members(path, _WHAT):
        if not name.lower().endswith(".sgm"):
            continue
        seen += 1
        for split, document in parse(content.decode("latin-1"), name):
            parts[split].append(document)
    if not seen:
        raise InputError(f"{path}: no .sgm file; expected {_WHAT}")
    return Corpus.of("Reuters-21578", parts["train"], parts["test"], str(path))


def parse(text: str, name: str) -> list[tuple[str, Document]]:
    """The split and the document of each story of a file that is used.

    Raises:
        InputError: The file breaks off, or has no story.
    """
    found, at, stories = [], 0, 0
    while match := _BEGIN.search(text, at):
        end = text.find(_END, match.end())
        after = _BEGIN.search(text, match.end())
        if end < 0 or (after and after.start() < end):
            line = text.count("\n", 0, match.start()) + 1
            raise InputError(
                f"{name}, line {line}: the story that begins there has no "
                f"{_END}: the file breaks off; fetch it again"
            )
        stories += 1
        attributes = dict(_ATTRIBUTE.findall(match.group(1)))
        split = _SPLITS.get(attributes.get("LEWISSPLIT", ""))
        if split and attributes.get("TOPICS") == "YES":
            found.append((split, _document(text[match.end() : end])))
        at = end + len(_END)
    rest = text[at:].lstrip()
    if rest:
        line = text.count("\n", 0, len(text) - len(rest)) + 1
        if stories or "<" not in text:
            raise InputError(
                f"{name}, line {line}: expected a story, <REUTERS ...>, or the "
                "end: the file is damaged; fetch it again"
            )
    if not stories:
        raise InputError(f"{name}: no story, <REUTERS ...>; expected {_WHAT}")
    return found


def _document(story: str) -> Document:
    topics = _TOPIC.findall(_between(story, "TOPICS"))
    text = _between(story, "TEXT[^>]*", "TEXT")
    title, body = _between(text, "TITLE"), _between(text, "BODY")
    if not title and not body:  # TYPE="UNPROC" has neither
        body = re.sub(r"<[^>]*>", " ", text)
    return Document(html.unescape(f"{title}\n{body}"), tuple(topics))


def _between(text: str, mark: str, end: str | None = None) -> str:
    match = re.search(f"<{mark}>(.*?)</{end or mark}>", text, re.S)
    return match.group(1) if match else ""
