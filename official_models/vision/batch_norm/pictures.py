"""Pictures of the study's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from official_models.common import files

_NAMES = {
    "bn": "BN",
    "pn": "PN",
    "pn_decay": "PN + gamma decay",
    "wn": "WN",
    "sgd": "SGD",
}


def draw_gap(rows: list[dict[str, Any]], path: Path) -> None:
    """Gap against zeta gamma^2, both over the batch."""
    axes, save = _figure(path, 1, "What a batch's statistics add to the loss")
    for i, name in enumerate(dict.fromkeys(r["distribution"] for r in rows)):
        mine = [r for r in rows if r["distribution"] == name]
        m = [r["batch_size"] for r in mine]
        axes[0].plot(m, [r["zeta"] for r in mine], f"C{i}-", label=name)
        axes[0].plot(m, [r["gap"] for r in mine], f"C{i}o")
        axes[0].plot(m, [r["gap_of_bn"] for r in mine], f"C{i}x")
    axes[0].set(
        xscale="log",
        yscale="log",
        xlabel="batch M",
        ylabel="line: zeta; o: gap; x: gap with the biased deviation",
    )
    save()


def draw_teacher(rows: list[dict[str, Any]], path: Path) -> None:
    """Generalization error of the students over the load."""
    axes, save = _figure(path, 1, "Linear students of a linear teacher")
    names = {**_NAMES, "wn": "WN + gamma decay"}
    for kind in dict.fromkeys(r["student"] for r in rows):
        mine = [r for r in rows if r["student"] == kind]
        _lines(axes[0], [r["load"] for r in mine], mine, "error", names[kind])
    axes[0].set(xlabel="P / N", ylabel="error on the population")
    save()


def draw_network(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss and gamma of each way to normalize over the batch."""
    axes, save = _figure(path, 2, "A small network by SGD")
    for arm in dict.fromkeys(r["arm"] for r in rows):
        mine = [r for r in rows if r["arm"] == arm]
        m = [r["batch_size"] for r in mine]
        for plot, key in zip(axes, ("loss", "gamma"), strict=True):
            _lines(plot, m, mine, key, _NAMES[arm])
    axes[0].set(xscale="log", xlabel="batch M", ylabel="evaluation loss")
    axes[1].set(
        xscale="log", xlabel="batch M", ylabel="root mean square of gamma"
    )
    save()


def draw_compensation(found: list[dict[str, Any]], path: Path) -> None:
    """Losses of each seed: small batch, large batch, large with the decay."""
    axes, save = _figure(path, len(found), "Gamma-decay compensation")
    names = ("small", "large", "compensated")
    for plot, one in zip(axes, found, strict=True):
        for i in range(len(one["small"]["loss"]["each"])):
            values = [one[name]["loss"]["each"][i] for name in names]
            plot.plot(range(3), values, "o-", alpha=0.6, label=f"seed {i + 1}")
        labels = [f"{n}\nM = {one[n]['batch_size']}" for n in names]
        plot.set_xticks(range(3), labels)
        plot.set(ylabel="evaluation loss", title=one["optimizer"].upper())
    save()


def _lines(axes, x, rows, key, label) -> None:
    mean = [r[key]["mean"] for r in rows]
    deviation = [r[key]["deviation"] or 0 for r in rows]
    axes.errorbar(x, mean, deviation, marker="o", capsize=3, label=label)


def _figure(path: Path, count: int, title: str):
    """Axes side by side, and what puts them into the file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * count, 4), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    figure.suptitle(title)

    def save():
        for each in axes:
            each.grid(alpha=0.3)
            each.legend(frameon=False, fontsize=8)
        files.save_figure(path, figure)

    return axes, save
