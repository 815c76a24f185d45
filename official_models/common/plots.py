"""Curves of a run."""

import os
from collections.abc import Mapping
from pathlib import Path

from tf_lamb.callbacks import read_table


def plot_curves(
    csv_path: Path,
    png_path: Path,
    panels: Mapping[str, str],
    baselines: Mapping[str, tuple[float, str]],
    title: str,
) -> None:
    """Draws columns of a metrics.csv, training and held-out, side by side.

    Args:
        csv_path: the table.
        png_path: the picture; written under a temporary name first.
        panels: {column: axis label}, one panel each.
        baselines: {column: (value, label)} of horizontal lines.
        title: above all panels.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    table = read_table(csv_path)
    figure, row = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 4), layout="constrained"
    )
    for axes, (column, label) in zip(row, panels.items(), strict=True):
        for name, style, meaning in (
            (column, "-", "training"),
            (f"val_{column}", "o-", "held out"),
        ):
            points = table.get(name)
            if points:
                axes.plot(*zip(*points, strict=True), style, label=meaning)
        if column in baselines:
            value, meaning = baselines[column]
            axes.axhline(value, color="gray", linestyle="--", label=meaning)
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    temporary = png_path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    plt.close(figure)
    os.replace(temporary, png_path)
