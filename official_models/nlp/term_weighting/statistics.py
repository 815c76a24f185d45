r"""How a term and a category go together, from *training* documents alone.

Documents with and without the term, in the category and outside of it:

                 in the category   outside
    with term         tp              fp
    without           fn              tn

The published code counts training and validation documents together, so that
its validation sees its own labels; here only what `fit` is given is counted.

Axes: D documents, F terms.

References:
    Moreo, Esuli, Sebastiani, "Learning to Weight for Text Classification"
    (arXiv:1903.12090), and its code, github.com/AlexMoreo/learning-to-weight
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Array = np.ndarray
_NORMAL = 3.84145882069  # squared 97.5% quantile of a standard normal
_ALMOST_ZERO = 1e-20  # of ConfWeight, so that no document loses all its terms


class Table(NamedTuple):
    """Counts of documents, float64 [F] each (see above)."""

    tp: Array
    fp: Array
    fn: Array
    tn: Array

    @property
    def documents(self) -> Array:
        """D, [F]."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def rates(self) -> Array:
        """(tpr, fpr) of each term, [F, 2]: shares of documents with the term,
        in the category and outside; 0 where there are no documents."""
        positives = np.maximum(self.tp + self.fn, 1)
        negatives = np.maximum(self.fp + self.tn, 1)
        return np.stack([self.tp / positives, self.fp / negatives], axis=-1)


def table(counts: Any, labels: Array) -> Table:
    """Counts documents.

    Args:
        counts: [D, F], sparse or not; a term is in a document if above 0.
        labels: bool [D]: in the category.
    """
    labels = np.asarray(labels, bool)
    present = counts > 0
    with_term = np.asarray(present.sum(axis=0), "float64").ravel()
    tp = np.asarray(present[labels].sum(axis=0), "float64").ravel()
    positives, documents = float(labels.sum()), float(len(labels))
    fp = with_term - tp
    return Table(tp, fp, positives - tp, documents - positives - fp)


def _ratio(above: Array, below: Array) -> Array:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def information_gain(t: Table) -> Array:
    r"""Mutual information of term and category, in bits, [F].

    $$\sum p(t, c) \log_2 \frac{p(t, c)}{p(t)\, p(c)}$$
    """
    n = t.documents
    found = np.zeros_like(t.tp)
    for cell, of_term, of_category in (
        (t.tp, t.tp + t.fp, t.tp + t.fn),
        (t.fp, t.tp + t.fp, t.fp + t.tn),
        (t.fn, t.fn + t.tn, t.tp + t.fn),
        (t.tn, t.fn + t.tn, t.fp + t.tn),
    ):
        ratio = _ratio(cell * n, of_term * of_category)
        log = np.log2(ratio, out=np.zeros_like(ratio), where=ratio > 0)
        found += cell / n * log
    return np.maximum(found, 0)


def gain_ratio(t: Table) -> Array:
    """`information_gain` by the category's entropy, [F].

    In one binary category that is a constant factor: after normalization the
    vectors are those of `information_gain`.
    """
    share = (t.tp + t.fn) / t.documents
    both = np.stack([share, 1 - share])
    logs = np.log2(both, out=np.zeros_like(both), where=both > 0)
    return _ratio(information_gain(t), -(both * logs).sum(axis=0))


def chi_square(t: Table) -> Array:
    r"""$\chi^2 / D$ of the table of four cells, [F], in [0, 1].

    $$\frac{(tp\, tn - fp\, fn)^2}
      {(tp + fp)(fn + tn)(tp + fn)(fp + tn)}$$

    `sklearn.feature_selection.chi2` is another statistic: of sums of counts,
    with no cell for documents without the term.
    """
    below = (t.tp + t.fp) * (t.fn + t.tn) * (t.tp + t.fn) * (t.fp + t.tn)
    return _ratio((t.tp * t.tn - t.fp * t.fn) ** 2, below)


def gss(t: Table) -> Array:
    """Galavotti, Sebastiani, Simi: p(tp) p(tn) - p(fp) p(fn), [F]."""
    return (t.tp * t.tn - t.fp * t.fn) / t.documents**2


def relevance_frequency(t: Table) -> Array:
    """log2(2 + tp / max(fp, 1)), [F]."""
    return np.log2(2 + t.tp / np.maximum(t.fp, 1))


def conf_weight(t: Table) -> Array:
    """ConfWeight, in the form of the authors' code, [F].

    log2(2 r) with r = lower / (lower + upper), where `lower` bounds the share
    of the category's documents with the term from below and `upper` that of the
    others from above, if lower > upper; else 1e-20.
    """
    lower, width = _interval(t.tp, t.tp + t.fn)
    lower = lower - width
    upper, width = _interval(t.fp, t.fp + t.tn)
    upper = upper + width
    ratio = np.where(lower > upper, _ratio(2 * lower, lower + upper), 1.0)
    found = np.log2(np.maximum(ratio, 1.0))
    return np.where(found > 0, found, _ALMOST_ZERO)


def _interval(count: Array, total: Array) -> tuple[Array, Array]:
    """Middle and half width."""
    freedom = np.maximum(total - 1, 1)
    z2 = np.where(total > 30, _NORMAL, stats.t.ppf(0.975, freedom) ** 2)
    p = (count + z2 / 2) / (total + z2)
    return p, z2 / 2 * np.sqrt(p * (1 - p) / (total + z2))


# What a network can be pretrained to.
TARGETS = {"ig": information_gain, "chi2": chi_square, "gss": gss}


def select(t: Table, share: float) -> Array:
    """The terms with the highest chi^2, as sorted places.

    Args:
        t: Of F terms.
        share: Of them, in (0, 1]; at least one is taken. Of equals the first.
    """
    count = max(1, round(share * len(t.tp)))
    order = np.argsort(-chi_square(t), kind="stable")
    return np.sort(order[:count])
