"""What fine-tuning with several seeds came to: JSON and a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from official_models.nlp.bert import classifier_training
from official_models.nlp.bert.finetuning import metrics
from official_models.nlp.datasets import glue


def summary(
    task: glue.Task, results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean, deviation and the best of all seeds, on each validation split.

    Args:
        task: of the runs.
        results: of `Fitting.fit`, one a seed.

    Returns:
        `compared_by`, `best_seed`, and under `scores` {split: {metric:
        {"mean", "deviation", "best"}}}. The deviation is that of a sample (n -
        1), None for one seed; the best is the best seed's, which is the first
        one with the greatest score.
    """
    best = max(
        results,
        key=lambda x: classifier_training.main_score(task, x["scores"]),
    )
    scores: dict[str, dict] = {}
    for split in task.dev_splits:
        scores[split] = {}
        for name in metrics.names_of(task):
            values = [result["scores"][split][name] for result in results]
            scores[split][name] = {
                "mean": statistics.fmean(values),
                "deviation": (
                    statistics.stdev(values) if len(values) > 1 else None
                ),
                "best": best["scores"][split][name],
            }
    compared_by = f"{task.dev_splits[0]} {metrics.names_of(task)[-1]}"
    return {
        "compared_by": compared_by,
        "best_seed": best["seed"],
        "scores": scores,
    }


def table(results: Sequence[Mapping[str, Any]], found: Mapping) -> str:
    """The results as lines: a seed each, then mean, deviation, best.

    Args:
        results: as for `summary`.
        found: of `summary`.
    """
    columns = [(s, n) for s, row in found["scores"].items() for n in row]
    lines = [["seed", "epoch", *(f"{s} {n}" for s, n in columns)]]
    for result in results:
        shown = [_shown(result["scores"][s][n]) for s, n in columns]
        lines.append([str(result["seed"]), str(result["best_epoch"]), *shown])
    for name in ("mean", "deviation", "best"):
        shown = [_shown(found["scores"][s][n][name]) for s, n in columns]
        epoch = f"seed {found['best_seed']}" if name == "best" else ""
        lines.append([name, epoch, *shown])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            x.ljust(n) for x, n in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
