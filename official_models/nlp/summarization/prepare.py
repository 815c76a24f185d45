"""Documents cut into sentences and labelled, on all cores, kept on disk.

What is done of a document is a line of a file, under the digest of what was
read: a run that is interrupted begins where it was, and another run with the
same documents reads them. A line that was cut short is computed again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import joblib
from tqdm import tqdm

from official_models.common.errors import InputError
from official_models.nlp.summarization import oracle, sentences
from official_models.nlp.summarization.readers import BadDocuments, Raw

# What a line is made by; another number where that changes.
_FORM = 1
_CHUNK = 64


class Document(NamedTuple):
    """A document that can be summarized.

    Attributes:
        place: Where it was read, for messages.
        sentences: One or more.
        references: Summaries, each of sentences; none without one.
        oracle: Numbers of the sentences that the greedy oracle chose.
    """

    place: str
    sentences: list[str]
    references: list[list[str]] = []
    oracle: list[int] = []


def cut(raw: Raw) -> Document:
    """Its sentences and those of its references, without an oracle.

    Raises:
        ValueError: Nothing is left of one of them, or a reference has more
            words than the document.
    """
    document = _cut(raw.document)
    if not document:
        empty = not "".join(raw.document).strip()
        raise ValueError("empty document" if empty else "no sentence")
    references = []
    for reference in raw.references:
        if raw.is_copied and isinstance(reference, str):
            found = sentences.split_copied(reference, document)
        else:
            found = _cut(reference)
        if not found:
            raise ValueError("empty summary")
        if _words(found) > _words(document):
            raise ValueError(
                f"a summary of {_words(found)} words, longer than its source "
                f"of {_words(document)}"
            )
        references.append(found)
    return Document(raw.place, document, references)


def _cut(text: str | list[str]) -> list[str]:
    if isinstance(text, str):
        return sentences.split(text)
    # Given as sentences: they are not cut again.
    found = [" ".join(s.split()) for s in text]
    return [s for s in found if s]


def _words(found: list[str]) -> int:
    return sum(len(s.split()) for s in found)


def label(raw: Raw, most: int) -> dict[str, Any]:
    """A line: the document's sentences, references and oracle, or "bad"."""
    try:
        document = cut(raw)
    except ValueError as error:
        return {"bad": str(error)}
    chosen = oracle.best_of(document.sentences, document.references, most)
    return {
        "sentences": document.sentences,
        "references": document.references,
        "oracle": chosen,
    }


def _label_all(chunk: list[Raw], most: int) -> list[dict[str, Any]]:
    return [label(raw, most) for raw in chunk]


def digest_of(raw: Raw, most: int) -> str:
    """SHA-256 of what a line is made from."""
    made_from = [_FORM, most, raw.document, raw.references, raw.is_copied]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def prepare(
    raws: Iterable[Raw],
    cache: Path,
    bad: BadDocuments,
    *,
    most: int = 3,
    jobs: int | None = None,
    name: str = "",
) -> list[Document]:
    """The documents with their oracle labels, in their order.

    Args:
        raws: As `readers.read` gives them.
        cache: The file of what was done before; made if it is not there.
        bad: Takes those that have no sentence, no summary, or a summary that
            is longer than they are.
        most: Sentences of the oracle.
        jobs: Processes; None for one a core, 1 for this one.
        name: Of the split, for the progress bar.

    Raises:
        InputError: None is left, or too many are bad.
    """
    everything = list(raws)
    keys = [digest_of(raw, most) for raw in everything]
    known = _read(cache)
    todo = [
        (key, raw)
        for key, raw in dict(zip(keys, everything, strict=True)).items()
        if key not in known
    ]
    if todo:
        known |= _compute(todo, cache, most, jobs or os.cpu_count() or 1, name)
    documents = []
    for key, raw in zip(keys, everything, strict=True):
        found = known[key]
        if "bad" in found:
            bad.note(raw.place, found["bad"])
        else:
            documents.append(Document(raw.place, **found))
    if not documents:
        raise InputError(f"{name}: no document to use; {bad}")
    return documents


def overlaps(found: dict[str, list[Document]]) -> list[str]:
    """A line for each two splits that have documents of the same sentences.

    Args:
        found: Documents by split; of two splits the earlier one is trained
            on, or chosen on.
    """
    lines, known = [], {}
    for split, documents in found.items():
        texts = ["\n".join(document.sentences) for document in documents]
        for other, seen in known.items():
            both = [
                document.place
                for document, text in zip(documents, texts, strict=True)
                if text in seen
            ]
            if both:
                lines.append(
                    f"{len(both)} of {len(documents)} documents of {split} are "
                    f"in {other}, too; the first: {both[0]}"
                )
        known[split] = set(texts)
    return lines


def _read(cache: Path) -> dict[str, dict]:
    known = {}
    if cache.is_file():
        for line in cache.read_bytes().split(b"\n"):
            try:
                key, found = json.loads(line)
            except (ValueError, TypeError):
                continue  # cut short when the process was killed
            is_whole = isinstance(found, dict) and (
                set(found) in ({"bad"}, _FIELDS)
            )
            if is_whole and isinstance(key, str):
                known[key] = found
    return known


_FIELDS = {"sentences", "references", "oracle"}


def _compute(
    todo: list[tuple[str, Raw]], cache: Path, most: int, jobs: int, name: str
) -> dict[str, dict]:
    chunks = [todo[i : i + _CHUNK] for i in range(0, len(todo), _CHUNK)]
    jobs = min(jobs, len(chunks))
    cache.parent.mkdir(parents=True, exist_ok=True)
    known = {}
    with (
        open(cache, "ab") as file,
        tqdm(total=len(todo), desc=f"{name}: oracle", unit="doc") as bar,
    ):
        file.write(b"\n")  # ends a line that was cut short
        for chunk, lines in zip(chunks, _in_parallel(chunks, most, jobs)):
            for (key, _), line in zip(chunk, lines, strict=True):
                known[key] = line
                file.write(json.dumps([key, line]).encode() + b"\n")
            file.flush()
            bar.update(len(chunk))
    return known


def _in_parallel(
    chunks: list[list[tuple[str, Raw]]], most: int, jobs: int
) -> Iterator[list[dict]]:
    raws = [[raw for _, raw in chunk] for chunk in chunks]
    if jobs == 1:
        yield from map(_label_all, raws, itertools.repeat(most))
        return
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator")
    yield from parallel(joblib.delayed(_label_all)(r, most) for r in raws)
