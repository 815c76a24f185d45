"""The picture of a study: score against batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.batch_scaling.grid import Study
from official_models.common import files

# What a picture spans: points of accuracy, or the best loss' multiple.
SHOWN = 15.0
SHOWN_OF_LOSS = 2.0


def _limit(study: Study, rows) -> float:
    """The worst score that is still drawn in its place."""
    values = [v for row in rows for scores in row.values() for v in scores]
    sound = [v for v in values if v != study.worst]
    if not sound:
        return study.worst
    if study.higher_is_better:
        return max(min(sound), max(sound) - SHOWN)
    return min(max(sound), min(sound) * SHOWN_OF_LOSS)


def _line(axes, study, row, limit, style, label):
    """Means and deviations; what is far behind is a mark at the limit."""
    done = np.array([b for b in study.batches if row[b]])
    if not done.size:
        return
    means = np.array([np.mean(row[b]) for b in done])
    spread = np.array([np.std(row[b], ddof=len(row[b]) > 1) for b in done])
    near = means >= limit if study.higher_is_better else means <= limit
    axes.errorbar(
        done[near],
        means[near],
        spread[near],
        capsize=3,
        marker="o",
        ms=4,
        label=label,
        **style,
    )
    far = np.full(np.sum(~near), limit)
    beyond = "v" if study.higher_is_better else "^"
    axes.plot(done[~near], far, beyond, c=style["c"], ms=8)


def draw(
    study: Study,
    grid: Mapping,
    retuned: Mapping,
    names: Mapping[str, str],
    unit: str,
    path: Path,
) -> None:
    """Draws the score against the batch, a line an optimizer and rule.

    Args:
        study: what was varied.
        grid: {(optimizer, rule): {batch: scores}}.
        retuned: {optimizer: (rate, scores)} at the largest batch.
        names: {optimizer: its name}.
        unit: of the score.
        path: the PNG, written under a temporary name first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    limit = _limit(study, grid.values())
    for (name, rule), row in grid.items():
        style = {"c": colours[name], "ls": "--" if rule == "linear" else "-"}
        _line(axes, study, row, limit, style, f"{names[name]}, {rule}")
    for name, (_, values) in retuned.items():
        if values:
            at, label = study.batches[-1] * 1.15, f"{names[name]}, retuned"
            mark = {"c": colours[name], "label": label, "ms": 8}
            axes.plot([at], [np.mean(values)], "x", **mark)
    axes.set_xscale("log", base=2)
    axes.set_xticks(study.batches, [f"{b:,}" for b in study.batches])
    axes.set_xlabel("batch size")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    epochs = "1 epoch" if study.epochs == 1 else f"{study.epochs:g} epochs"
    axes.set_title(f"{epochs}, rates chosen at the base batch")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    files.save_figure(path, figure)
