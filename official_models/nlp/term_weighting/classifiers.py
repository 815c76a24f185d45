"""What the vectors are judged by: five classifiers of scikit-learn.

Each has a few settings, of which the one with the best F1 on validation
documents is fitted again to all training documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from official_models.common.errors import InputError
from official_models.nlp.term_weighting import metrics
from official_models.nlp.term_weighting.metrics import Decisions

_STRENGTHS = (0.1, 1.0, 10.0, 100.0)
NAMES = ("svm", "logistic", "naive_bayes", "knn", "forest")


def candidates(name: str, seed: int) -> list[Any]:
    """A classifier with each of its settings, not fitted.

    Args:
        name: One of `NAMES`.
        seed: Of those that draw.

    Raises:
        InputError: The name is unknown.
    """
    if name == "svm":
        return [LinearSVC(C=c, random_state=seed) for c in _STRENGTHS]
    if name == "logistic":
        return [LogisticRegression(C=c, max_iter=1000) for c in _STRENGTHS]
    if name == "naive_bayes":
        return [MultinomialNB(alpha=a) for a in (0.001, 0.01, 0.1, 1.0)]
    if name == "knn":
        return [KNeighborsClassifier(k) for k in (1, 5, 15)]
    if name == "forest":
        return [RandomForestClassifier(n, random_state=seed) for n in (50, 200)]
    raise InputError(f"classifier {name!r}: expected one of {', '.join(NAMES)}")


def judge(
    name: str,
    train: tuple[sparse.csr_matrix, np.ndarray],
    test: tuple[sparse.csr_matrix, np.ndarray],
    parts: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Decisions:
    """Decisions on test documents of a classifier that is tuned.

    Naive Bayes takes no weight below 0: they count as 0 there.

    Args:
        name: One of `NAMES`.
        train: Vectors [D, F] and labels, bool [D].
        test: The same of the test documents.
        parts: Places of the documents to fit and to tune on, as of
            `transformer.split`.
        seed: Of those that draw.
    """
    x, labels = train
    unseen = test[0]
    if name == "naive_bayes":
        x, unseen = x.maximum(0), unseen.maximum(0)
    fitted, tuning = parts
    best, chosen = -1.0, None
    for one in candidates(name, seed):
        if name == "knn":
            one.n_neighbors = min(one.n_neighbors, len(fitted))
        one.fit(x[fitted], labels[fitted])
        f1 = metrics.count(labels[tuning], one.predict(x[tuning])).f1
        if f1 > best:
            best, chosen = f1, one
    chosen.fit(x, labels)
    return metrics.count(test[1], chosen.predict(unseen))
