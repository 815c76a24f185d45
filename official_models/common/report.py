"""What a run came to: report.json with its origin, curves, trust ratios."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from official_models.common import files
from tf_lamb import find_optimizers
from tf_lamb.callbacks import plot_trust_ratios, read_table

_PACKAGES = (
    ("tensorflow", "tensorflow-cpu"),
    ("tensorflow", "tensorflow"),
    ("keras", "keras"),
    ("numpy", "numpy"),
)


def environment() -> dict[str, str]:
    """Date, command, machine and versions: where figures were measured."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{
            name: metadata.version(package)
            for name, package in _PACKAGES
            if _is_installed(package)
        },
    }


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [x.split(":", 1)[1] for x in lines if x.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def skipped_steps(model: Any) -> int:
    """Updates that LAMB or LARS skipped for a gradient that was not finite.

    A loss scaler keeps such gradients from them: its own skips are not counted.

    Args:
        model: compiled.

    Returns:
        Their count; 0 for other optimizers.
    """
    return sum(x.skipped_steps for x in find_optimizers(model))


def write(
    folder: Path,
    figures: Mapping[str, Any],
    *,
    picture: str,
    panels: Mapping[str, str],
    baselines: Mapping[str, tuple[float, str]] | None = None,
    title: str,
) -> None:
    """Writes report.json, curves and trust_ratio.png into a run's folder.

    Args:
        folder: the run's, with its metrics.csv.
        figures: what report.json says, as JSON values.
        picture: file name of the curves.
        panels: as for `plot_curves`, like all that follow; of none, there is
            no picture.
        baselines: {} if None.
        title: above all panels.
    """
    files.write_json(folder / "report.json", figures)
    if panels:
        table = folder / "metrics.csv"
        plot_curves(table, folder / picture, panels, baselines or {}, title)
    ratios = folder / "trust_ratio.csv"
    if ratios.exists():
        plot_trust_ratios(ratios, folder / "trust_ratio.png")


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
    from matplotlib.figure import Figure

    table = read_table(csv_path)
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
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
    files.save_figure(png_path, figure)
