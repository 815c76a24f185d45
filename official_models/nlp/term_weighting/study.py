"""A category of a corpus by a weighting: from counts to decisions."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import keras
import numpy as np
from scipy import sparse, stats
from sklearn.feature_extraction.text import CountVectorizer

from official_models.common.errors import InputError
from official_models.common.layer import seed_of
from official_models.common.store import Store
from official_models.nlp.term_weighting import (
    classifiers,
    learning,
    metrics,
    statistics,
    weighting,
)
from official_models.nlp.term_weighting.corpora import Corpus
from official_models.nlp.term_weighting.transformer import (
    LearnedTermWeighting,
    split,
)

# {weighting: arguments of `LearnedTermWeighting`}.
LEARNED: dict[str, dict[str, Any]] = {
    "local_identity": {"kind": "local", "output": "identity"},
    "local_sigmoid": {"kind": "local", "output": "sigmoid"},
    "global_identity": {"kind": "global", "output": "identity"},
    "global_sigmoid": {"kind": "global", "output": "sigmoid"},
}
WEIGHTINGS = (*weighting.BASELINES, *LEARNED)


@dataclasses.dataclass(frozen=True)
class Counts:
    """A corpus as counts of its terms.

    Attributes:
        corpus: Read.
        train: [D, V], sparse.
        test: [D', V].
    """

    corpus: Corpus
    train: sparse.csr_matrix
    test: sparse.csr_matrix

    @classmethod
    def of(cls, corpus: Corpus) -> Counts:
        """Counts words, of the training documents' vocabulary, without
        scikit-learn's English stop words; other words are left out.

        Raises:
            InputError: No training document has a word.
        """
        counter = CountVectorizer(stop_words="english")
        try:
            train = counter.fit_transform(corpus.train)
        except ValueError as error:  # an empty vocabulary
            raise InputError(f"{corpus.name}: {error}") from error
        return cls(corpus, train, counter.transform(corpus.test))


@dataclasses.dataclass(frozen=True)
class Cell:
    """The settings of a category's training and judgement.

    Attributes:
        category: Its name.
        weighting: One of `WEIGHTINGS`.
        share: Of the terms, those with the highest chi^2 in the category.
        classifiers: Names of `classifiers.NAMES`.
        seed: Of splits, weights and classifiers.
        learner: Arguments of `LearnedTermWeighting`; not read by baselines.
    """

    category: str
    weighting: str
    share: float
    classifiers: tuple[str, ...]
    seed: int
    learner: dict[str, Any]


def run(counts: Counts, cell: Cell) -> dict[str, Any]:
    """Weights the documents and judges the vectors.

    Terms are chosen, and their statistics taken, on the training documents
    without those that settings are tuned on.

    Returns:
        JSON values: decisions [tp, fp, fn] of each classifier, what the
        learner came to, seconds of the clock.

    Raises:
        InputError: The category has no training document, or has all.
    """
    began = time.monotonic()
    corpus = counts.corpus
    if cell.category not in corpus.categories:
        raise InputError(
            f"category {cell.category!r}: no training document of "
            f"{corpus.name} has it"
        )
    place = corpus.categories.index(cell.category)
    labels = corpus.train_labels[:, place]
    if labels.all():
        raise InputError(
            f"category {cell.category!r}: every training document of "
            f"{corpus.name} has it; there is nothing to tell apart"
        )
    parts = split(labels, 0.2, cell.seed)
    fitted = parts[0]
    table = statistics.table(counts.train[fitted], labels[fitted])
    terms = statistics.select(table, cell.share)
    train, test = counts.train[:, terms], counts.test[:, terms]
    vectors, learned = _vectors(cell, train, test, labels, parts)
    truth = corpus.test_labels[:, place]
    found = {
        name: classifiers.judge(
            name, (vectors[0], labels), (vectors[1], truth), parts, cell.seed
        )
        for name in cell.classifiers
    }
    return {
        "category": cell.category,
        "positives": int(labels.sum()),
        "terms": len(terms),
        "decisions": {name: list(one) for name, one in found.items()},
        "learned": learned,
        "seconds": round(time.monotonic() - began, 2),
    }


def _vectors(cell, train, test, labels, parts):
    fitted = parts[0]
    if cell.weighting not in LEARNED:
        _, *found = weighting.weighted(
            cell.weighting, train[fitted], labels[fitted], [train, test]
        )
        return found, None
    learner = LearnedTermWeighting(
        **{**LEARNED[cell.weighting], **cell.learner},
        validation_fraction=0.2,
        random_state=cell.seed,
    )
    learner.fit(train, labels)
    return [learner.transform(x) for x in (train, test)], {
        "validation_f1": learner.validation_f1_,
        "steps": learner.n_steps_,
        "restarts": learner.n_restarts_,
        "optimizer": learner.optimizer,
        "learning_rate": learner.learning_rate
        or learning.OPTIMIZERS[learner.optimizer],
    }


@dataclasses.dataclass(frozen=True)
class Work:
    """What a process needs for its cells.

    Attributes:
        counts: Of the corpus.
        store: Of the cells' files.
    """

    counts: Counts
    store: Store


_WORK: list[Work] = []  # of this process


def begin(work: Work) -> None:
    """Keeps what `compute` needs."""
    _WORK[:] = [work]


def compute(row: str, cell: Cell) -> dict[str, Any]:
    """What `run` gives of a cell, kept in its file.

    Args:
        row: Of the table.
        cell: Settings.
    """
    (work,) = _WORK

    def make():
        keras.backend.clear_session()  # or memory grows with each network
        return run(work.counts, cell)

    return work.store.get(file_name(row, cell), make)


def file_name(row: str, cell: Cell) -> str:
    """Of a cell; without .json."""
    # Names of categories may hold anything: a checksum keeps them apart.
    plain = "".join(c if c.isalnum() else "_" for c in cell.category)[:40]
    return f"{row}-{plain}-{seed_of(cell.category):08x}-s{cell.seed}"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Macro and micro F1 over categories, and how many have F1 = 0.

    Args:
        rows: What `run` gives, one a category, with the same classifiers.
    """
    found = {}
    for name in rows[0]["decisions"]:
        each = [metrics.Decisions(*row["decisions"][name]) for row in rows]
        found[name] = {
            "macro_f1": metrics.macro_f1(each),
            "micro_f1": metrics.micro_f1(each),
            "zeros": metrics.count_zeros(each),
            "f1": [float(np.round(one.f1, 6)) for one in each],
        }
    return found


def comparisons(
    rows: dict[str, dict[str, Any]], learned: list[str], judge: str
) -> list[dict[str, Any]]:
    """Each learned weighting against every other row, over categories.

    A category's F1 is the mean of its seeds. p is of Wilcoxon's signed-rank
    test, two-sided, whose pairs are the categories with another F1; None
    where there are none.

    Args:
        rows: {row: {seed: `summary`}}, of the same categories.
        learned: Those rows that are compared.
        judge: The classifier.

    Returns:
        row, against, macro_f1 (the difference), better, equal, worse (counts
        of categories), p.
    """
    means = {
        row: np.mean([one[judge]["f1"] for one in seeds.values()], axis=0)
        for row, seeds in rows.items()
    }
    found = []
    for row in learned:
        for other in means:
            if other == row or (other in learned[: learned.index(row)]):
                continue
            less = means[row] - means[other]
            others = less[less != 0]
            p = stats.wilcoxon(others).pvalue if len(others) else None
            found.append(
                {
                    "row": row,
                    "against": other,
                    "macro_f1": float(less.mean()),
                    "better": int((less > 0).sum()),
                    "equal": int((less == 0).sum()),
                    "worse": int((less < 0).sum()),
                    "p": None if p is None else float(p),
                }
            )
    return found
