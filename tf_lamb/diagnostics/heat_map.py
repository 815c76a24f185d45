"""A table of variables over steps as a picture: one row a variable."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tf_lamb import figures
from tf_lamb.callbacks import read_table


def plot_heat_map(
    csv_path: str | os.PathLike[str],
    png_path: str | os.PathLike[str],
    title: str | None = None,
) -> None:
    """Draws variables x steps, the colour on a log scale. Needs matplotlib.

    Values that are not above 0, and those that are missing, are grey.

    Args:
      csv_path: a table of `TrainingMonitor` or `TrustRatioLogger`.
      png_path: the picture; its folder is made if it does not exist. It is
        written under a temporary name first.
      title: None: the table's name.

    Raises:
      ValueError: the table has no rows.
      ModuleNotFoundError: matplotlib is not installed.
    """
    table = read_table(csv_path)
    steps = sorted({step for points in table.values() for step, _ in points})
    if not steps:
        raise ValueError(f"{csv_path}: expected a table with rows, got none.")
    columns = {step: i for i, step in enumerate(steps)}
    values = np.full((len(table), len(steps)), np.nan)
    for row, points in enumerate(table.values()):
        for step, value in points:
            values[row, columns[step]] = value
    values[~((values > 0) & np.isfinite(values))] = np.nan
    height = min(max(0.16 * len(table) + 1.5, 3), 40)
    figure = figures.new("heat_map", 10, height)
    axes = figure.subplots()
    axes.set_facecolor("0.8")
    shown = np.ma.masked_invalid(values)
    norm = "log" if shown.count() else None
    image = axes.imshow(
        shown, aspect="auto", interpolation="nearest", norm=norm
    )
    axes.set_yticks(range(len(table)), list(table), fontsize=6)
    ticks = np.unique(np.linspace(0, len(steps) - 1, 8).astype(int))
    axes.set_xticks(ticks, [str(steps[i]) for i in ticks])
    axes.set(xlabel="step", title=title or Path(csv_path).stem)
    figure.colorbar(image)
    figures.save(figure, png_path, dpi=110)
