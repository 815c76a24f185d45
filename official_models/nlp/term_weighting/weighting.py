r"""Documents as vectors: weights that are given, not learned.

    tf        log(1 + x)                      x: counts over the document's sum
    tfidf     log(1 + x) log(D / df)
    bm25      k_1 = 1.2, b = 0.75, on counts
    tfchi2, tfig, tfgr, tfrf, tfcw            log(1 + x) times a `statistics`

All are normalized to a length of 1. idf, lengths and statistics are those of
the training documents.

Axes: D documents, F terms.

References:
    Moreo, Esuli, Sebastiani (arXiv:1903.12090)
    Robertson, Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and
    Beyond"
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from official_models.common.errors import InputError
from official_models.nlp.term_weighting import statistics

SUPERVISED = {
    "tfchi2": statistics.chi_square,
    "tfig": statistics.information_gain,
    "tfgr": statistics.gain_ratio,
    "tfrf": statistics.relevance_frequency,
    "confweight": statistics.conf_weight,
}
BASELINES = ("tf", "tfidf", "bm25", *SUPERVISED)
_K1, _B = 1.2, 0.75


def shares(counts: Any) -> sparse.csr_matrix:
    """Counts over each document's sum, [D, F]; a row of zeros stays one."""
    counts = sparse.csr_matrix(counts, dtype="float64")
    total = np.asarray(counts.sum(axis=1)).ravel()
    return sparse.diags(_inverse(total)) @ counts


def log_frequency(counts: Any) -> sparse.csr_matrix:
    """log(1 + share), [D, F]."""
    return shares(counts).log1p()


def unit_length(vectors: Any) -> sparse.csr_matrix:
    """Rows by their length; a row of zeros stays one."""
    vectors = sparse.csr_matrix(vectors)
    length = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(_inverse(length)) @ vectors)


def _inverse(x):
    return np.divide(1.0, x, out=np.zeros_like(x), where=x != 0)


def weighted(
    name: str, train: Any, labels: np.ndarray, others: list[Any]
) -> list[sparse.csr_matrix]:
    """Vectors of a baseline.

    Args:
        name: One of `BASELINES`.
        train: Counts of the training documents, [D, F].
        labels: bool [D]; not read by tf, tfidf and bm25.
        others: Counts of other documents, with the same terms.

    Returns:
        Those of `train`, then those of `others`.

    Raises:
        InputError: The name is unknown.
    """
    if name not in BASELINES:
        raise InputError(
            f"weighting {name!r}: expected one of {', '.join(BASELINES)}"
        )
    parts = [train, *others]
    if name == "bm25":
        return [unit_length(part) for part in _bm25(train, parts)]
    if name == "tf":
        factor = np.ones(train.shape[1])
    elif name == "tfidf":
        factor = _idf(train)
    else:
        factor = SUPERVISED[name](statistics.table(train, labels))
    scale = sparse.diags(factor)
    return [unit_length(log_frequency(part) @ scale) for part in parts]


def _idf(train: Any) -> np.ndarray:
    """log(D / df) of the training documents; 0 of a term that is in none."""
    frequency = np.asarray((train > 0).sum(axis=0), "float64").ravel()
    ratio = np.divide(
        train.shape[0],
        frequency,
        out=np.ones_like(frequency),
        where=frequency > 0,
    )
    return np.log(ratio)


def _bm25(train: Any, parts: list[Any]) -> list[sparse.csr_matrix]:
    mean = max(float(np.asarray(train.sum(axis=1)).mean()), 1e-12)
    idf = sparse.diags(_idf(train))
    found = []
    for part in parts:
        part = sparse.coo_matrix(part, dtype="float64")
        length = np.asarray(part.sum(axis=1)).ravel() / mean
        saturation = _K1 * (1 - _B + _B * length[part.row])
        value = part.data * (_K1 + 1) / (part.data + saturation)
        made = sparse.csr_matrix((value, (part.row, part.col)), part.shape)
        found.append(sparse.csr_matrix(made @ idf))
    return found
