"""What fine-tuning with several seeds came to: JSON and a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def summary(
    compared_by: tuple[str, str], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean, deviation and the best of all seeds, on each validation split.

    Args:
        compared_by: Split and metric that decide which seed is best.
        results: Of `Fitting.fit`, one a seed.

    Returns:
        `compared_by`, `best_seed`, and under `scores` {split: {metric:
        {"mean", "deviation", "best"}}}. The deviation is that of a sample (n -
        1), None for one seed; the best is the best seed's, which is the first
        one with the greatest score.
    """
    split, metric = compared_by
    best = max(results, key=lambda result: result["scores"][split][metric])
    scores: dict[str, dict] = {}
    for name, metrics in best["scores"].items():
        scores[name] = {}
        for measure, value in metrics.items():
            values = [result["scores"][name][measure] for result in results]
            scores[name][measure] = {
                "mean": statistics.fmean(values),
                "deviation": (
                    statistics.stdev(values) if len(values) > 1 else None
                ),
                "best": value,
            }
    return {
        "compared_by": f"{split} {metric}",
        "best_seed": best["seed"],
        "scores": scores,
    }


def table(results: Sequence[Mapping[str, Any]], found: Mapping) -> str:
    """The results as lines: a seed each, then mean, deviation, best.

    Args:
        results: As for `summary`.
        found: Of `summary`.
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
