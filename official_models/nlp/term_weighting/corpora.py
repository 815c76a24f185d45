"""Documents with categories: 20 Newsgroups, Ohsumed, and what all have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.term_weighting.members import members


class Document(NamedTuple):
    """A text and its categories."""

    text: str
    categories: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Training and test documents.

    Attributes:
        name: Of the corpus.
        train: Texts.
        test: Texts.
        categories: Those with a training document, sorted.
        train_labels: bool [D, C].
        test_labels: bool [D', C]; other categories of the test documents are
            left out.
    """

    name: str
    train: list[str]
    test: list[str]
    categories: tuple[str, ...]
    train_labels: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def of(
        cls,
        name: str,
        train: Sequence[Document],
        test: Sequence[Document],
        where: str,
    ) -> Corpus:
        """Puts documents together.

        Raises:
            InputError: There are no documents on a side, or no labels.
        """
        for side, documents in (("training", train), ("test", test)):
            if not documents:
                raise InputError(
                    f"{where}: no {side} documents; expected {name}, whole"
                )
        categories = tuple(sorted({c for d in train for c in d.categories}))
        if not categories:
            raise InputError(
                f"{where}: no training document has a label; expected {name} "
                "with its categories"
            )
        return cls(
            name,
            [d.text for d in train],
            [d.text for d in test],
            categories,
            _matrix(train, categories),
            _matrix(test, categories),
        )

    def in_both(self) -> tuple[str, ...]:
        """Categories that also have a test document: 90 of Reuters' 115."""
        has = self.test_labels.any(axis=0)
        return tuple(c for c, there in zip(self.categories, has) if there)

    def digest(self) -> str:
        """SHA-256 of the texts, the categories and the labels."""
        return files.digest(
            *(*self.train, "", *self.test, "", *self.categories),
            *(self.train_labels, self.test_labels),
        )

    @property
    def description(self) -> str:
        """In a line."""
        return (
            f"{self.name}: {len(self.train):,} training and "
            f"{len(self.test):,} test documents, {len(self.categories)} "
            "categories with a training document, "
            f"{len(self.in_both())} of them with a test document"
        )


def _matrix(documents, categories) -> np.ndarray:
    places = {c: i for i, c in enumerate(categories)}
    found = np.zeros((len(documents), len(categories)), bool)
    for row, document in enumerate(documents):
        for category in document.categories:
            if category in places:
                found[row, places[category]] = True
    return found


def load_newsgroups(path: str | Path) -> Corpus:
    """20 Newsgroups, "bydate"; headers, footers and quotes are taken off.

    Args:
        path: A folder or a tar archive with 20news-bydate-train/GROUP/NUMBER
            and 20news-bydate-test/GROUP/NUMBER.

    Raises:
        InputError: As `members` and `Corpus.of`.
    """
    parts: dict[str, list[Document]] = {"train": [], "test": []}
    for name, content in members(path, "20 Newsgroups, by date"):
        folders = name.split("/")
        if len(folders) < 3:
            continue
        split = folders[-3].removeprefix("20news-bydate-")
        if split in parts:
            text = strip(content.decode("latin-1"))
            parts[split].append(Document(text, (folders[-2],)))
    return Corpus.of("20 Newsgroups", parts["train"], parts["test"], str(path))


def strip(post: str) -> str:
    """A post without header, signature and quotes, as scikit-learn has it."""
    from sklearn.datasets import _twenty_newsgroups as own

    text = own.strip_newsgroup_header(post)
    return own.strip_newsgroup_quoting(own.strip_newsgroup_footer(text))


def load_ohsumed(path: str | Path) -> Corpus:
    """Ohsumed, in the form of ohsumed-first-20000-docs.tar.gz.

    Args:
        path: A folder or a tar archive with training/CATEGORY/NUMBER and
            test/CATEGORY/NUMBER; a document of several categories is in each
            of their folders under the same number.

    Raises:
        InputError: As `members` and `Corpus.of`.
    """
    texts: dict[str, dict[str, str]] = {"training": {}, "test": {}}
    labels: dict[tuple[str, str], list[str]] = {}
    for name, content in members(path, "Ohsumed's training/ and test/"):
        folders = name.split("/")
        if len(folders) < 3 or folders[-3] not in texts:
            continue
        split, category, number = folders[-3:]
        texts[split].setdefault(number, content.decode("latin-1"))
        labels.setdefault((split, number), []).append(category)
    train, test = (
        [
            Document(text, tuple(labels[split, number]))
            for number, text in texts[split].items()
        ]
        for split in ("training", "test")
    )
    return Corpus.of("Ohsumed", train, test, str(path))
