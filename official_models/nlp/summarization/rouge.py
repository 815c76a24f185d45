"""ROUGE by rouge-score, with intervals over documents.

`rougeLsum` is taken, with a line for each sentence. `rougeL` of sentences that
are joined without line breaks is another, lower number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
from rouge_score import rouge_scorer
from scipy import stats

NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeLsum": "ROUGE-Lsum"}
_CHUNK = 64
_PARALLEL_FROM = 256
_RESAMPLES = 1000


def scores_of(
    summaries: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    jobs: int | None = None,
) -> dict[str, np.ndarray]:
    """F1 of each summary, words stemmed (Porter), in [0, 1].

    Args:
        summaries: Each a list of sentences; an empty one scores 0.
        references: Of each, one or more; the best one counts, of each ROUGE.
        jobs: Processes; None for one a core if there are many summaries.

    Returns:
        {name in `NAMES`: float64 [N]}.
    """
    pairs = list(zip(summaries, references, strict=True))
    chunks = [pairs[i : i + _CHUNK] for i in range(0, len(pairs), _CHUNK)]
    if jobs is None:
        jobs = os.cpu_count() if len(pairs) >= _PARALLEL_FROM else 1
    if jobs == 1:
        parts = [_score(chunk) for chunk in chunks]
    else:
        parallel = joblib.Parallel(n_jobs=jobs)
        parts = parallel(joblib.delayed(_score)(chunk) for chunk in chunks)
    rows = np.array([row for part in parts for row in part])
    return {name: rows[:, i] for i, name in enumerate(NAMES)}


def _score(pairs) -> list[list[float]]:
    scorer = rouge_scorer.RougeScorer([*NAMES], use_stemmer=True)
    found = []
    for summary, references in pairs:
        texts = ["\n".join(reference) for reference in references]
        scores = scorer.score_multi(texts, "\n".join(summary))
        found.append([scores[name].fmeasure for name in NAMES])
    return found


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95% interval of a mean: percentiles of 1,000 resamples of N."""
    if len(values) < 2:
        return float(np.mean(values)), float(np.mean(values))
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        method="percentile",
        batch=100,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def row(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """{name: mean and 95% interval} in percent, as JSON values."""
    found = {}
    for name, values in scores.items():
        values = 100 * values
        found[name] = {
            "mean": float(np.mean(values)),
            "interval_95": list(interval(values)),
        }
    return found


def difference(
    scores: dict[str, np.ndarray], others: dict[str, np.ndarray]
) -> dict[str, Any]:
    """As `row`, of the difference on the same documents."""
    return row({name: scores[name] - others[name] for name in scores})


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows of `row` by name, in lines for people."""
    width = max(len(name) for name in rows) + 2
    columns = "".join(f"{title:>27}" for title in NAMES.values())
    lines = [" " * width + columns]
    for name, found in rows.items():
        line = name.ljust(width)
        for metric in NAMES:
            low, high = found[metric]["interval_95"]
            mean = found[metric]["mean"]
            line += f"{f'{mean:.2f} ({low:.2f} to {high:.2f})':>27}"
        lines.append(line)
    return "\n".join(lines)
