"""F1 from counts of decisions, where nothing to find is found at 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Decisions(NamedTuple):
    """How often a classifier was right, wrongly said yes, wrongly said no."""

    tp: int
    fp: int
    fn: int

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn); 1 where all three are 0."""
        below = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / below if below else 1.0


def count(labels: np.ndarray, said: np.ndarray) -> Decisions:
    """Counts decisions, bool [D] both."""
    labels, said = np.asarray(labels, bool), np.asarray(said, bool)
    return Decisions(
        int((labels & said).sum()),
        int((~labels & said).sum()),
        int((labels & ~said).sum()),
    )


def macro_f1(each: Sequence[Decisions]) -> float:
    """Mean of the categories' F1."""
    return float(np.mean([one.f1 for one in each]))


def micro_f1(each: Sequence[Decisions]) -> float:
    """F1 of all categories' decisions together."""
    return Decisions(*(int(x) for x in np.sum(each, axis=0))).f1


def count_zeros(each: Sequence[Decisions]) -> int:
    """Categories with F1 = 0."""
    return sum(one.f1 == 0 for one in each)
