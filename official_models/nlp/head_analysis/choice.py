"""The best head on one split, and what it is worth on another.

The best of N heads on one split is best partly by chance; only the other split
says what switching it off is worth. Two sign tests, exact and two-sided, say
whether that may be chance: over the examples that a model gets right with the
head off and wrong with it on, or the reverse; and over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SPLITS = ("choose", "report")


def sign_test(better: int, worse: int) -> float:
    """P of so uneven a count if either were as likely; 1 where both are 0.

    Args:
        better: Cases that improved, 0 or more.
        worse: Cases that became worse; what did not change is left out.
    """
    from scipy.stats import binomtest

    number = better + worse
    return float(binomtest(better, number).pvalue) if number else 1.0


def spread(values: Sequence[float] | np.ndarray, axis: int = 0) -> dict:
    """{"mean", "deviation"}: over an axis; no deviation of a single value.

    The deviation is that of a sample, with n - 1.
    """
    values = np.asarray(values, "float64")
    deviation = None
    if values.shape[axis] > 1:
        deviation = values.std(axis=axis, ddof=1).tolist()
    return {"mean": values.mean(axis=axis).tolist(), "deviation": deviation}


def alone(right: np.ndarray, plain: np.ndarray, chosen: np.ndarray) -> dict:
    """What one model would have chosen, and what it is worth.

    Args:
        right: Whether each example is right with a place off, boolean
            [..., M]; the leading axes are those of the place.
        plain: The same with nothing off, [M].
        chosen: Which examples to choose by, boolean [M]; the others are
            reported on.

    Returns:
        `place`, changes of the accuracy on both splits, `fixed` and `broken`
        examples of the second, and `p` of their sign test.
    """
    change = right.mean(-1, where=chosen) - plain[chosen].mean()
    place = np.unravel_index(change.argmax(), change.shape)
    found, before = right[place][~chosen], plain[~chosen]
    fixed, broken = int((found & ~before).sum()), int((before & ~found).sum())
    return {
        "place": [int(i) for i in place],
        "choose_change": float(change[place]),
        "report_change": float(found.mean() - before.mean()),
        "fixed": fixed,
        "broken": broken,
        "p": sign_test(fixed, broken),
    }


def common(
    rights: Sequence[np.ndarray],
    plains: Sequence[np.ndarray],
    chosen: np.ndarray,
) -> dict[str, Any]:
    """What all models together choose, by the mean change of the accuracy.

    Args:
        rights: Of each model, as in `alone`, as are
        plains: of each model, and
        chosen: of all.

    Returns:
        `place`, the changes with their spread over models, on how many of
        these the second split gets `better` and `worse`, and `p` of that.
    """
    changes = {
        split: np.array(
            [
                right.mean(-1, where=rows) - plain[rows].mean()
                for right, plain in zip(rights, plains)
            ]
        )
        for split, rows in zip(SPLITS, (chosen, ~chosen))
    }
    mean = changes["choose"].mean(0)
    place = np.unravel_index(mean.argmax(), mean.shape)
    first, second = (changes[split][(slice(None), *place)] for split in SPLITS)
    better, worse = int((second > 0).sum()), int((second < 0).sum())
    return {
        "place": [int(i) for i in place],
        "choose_change": spread(first),
        "report_change": {**spread(second), "models": second.tolist()},
        "better": better,
        "worse": worse,
        "p": sign_test(better, worse),
    }
