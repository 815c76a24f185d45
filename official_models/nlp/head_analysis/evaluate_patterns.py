r"""The classifier of attention maps against labels of real maps.

    python -m official_models.nlp.head_analysis.evaluate_patterns \
        --output_dir official_models/nlp/head_analysis/results

writes `patterns.json` and `patterns.png`: F1 of each class and their mean, on
the half of the maps that no choice was made by and on the other one, and the
share of each class by layer.

K maps, C = 5 classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from official_models.common import errors, files, interrupts, report
from official_models.common.errors import InputError
from official_models.nlp.head_analysis import labelled, patterns
from official_models.nlp.head_analysis.generated import CLASSES
from official_models.nlp.head_analysis.report_style import CLASS_COLOURS

PAPER_F1 = 0.86  # of Kovaleva et al. 2019 on about 400 maps of its own
NAME = "patterns"


def scores(labels: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """F1 = 2 TP / (2 TP + FP + FN) of each class, and their mean.

    Args:
        labels: Numbers of classes, [K].
        found: What the classifier says, [K].

    Returns:
        "f1" {class: F1}, None for one that neither has; "macro_f1", the mean
        over the classes that `labels` has; "macro_f1_of_either", over those
        that `found` has too, where a class that `labels` lacks counts as 0;
        "accuracy"; "confusion", [C, C]
        with labels as rows.
    """
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(confusion, (labels, found), 1)
    both = confusion.sum(0) + confusion.sum(1)
    f1 = [
        2 * float(confusion[c, c]) / float(both[c]) if both[c] else None
        for c in range(len(CLASSES))
    ]
    present = [f1[c] for c in np.unique(labels)]
    return {
        "maps": len(labels),
        "f1": dict(zip(CLASSES, f1)),
        "macro_f1": float(np.mean(present)),
        "macro_f1_of_either": float(np.mean([x for x in f1 if x is not None])),
        "accuracy": float(np.mean(labels == found)),
        "confusion": confusion.tolist(),
    }


def shares_by_layer(layers: np.ndarray, classes: np.ndarray) -> list:
    """Share of each class among a layer's maps, [L][C]."""
    return [
        (np.bincount(classes[layers == i], minlength=len(CLASSES))
         / (layers == i).sum()).tolist()
        for i in np.unique(layers)
    ]  # fmt: skip


def evaluate() -> dict[str, Any]:
    """The figures of the labelled maps and the weights of this repository."""
    maps, index, record = labelled.load()
    found = np.array([patterns.classify(x[None])[0].argmax() for x in maps])
    labels = np.array([x["final"] for x in index])
    held_out = np.array([x["held_out"] for x in index])
    layers = np.array([x["layer"] for x in index])
    both = {"labels": labels, "classifier": found}
    return {
        "measured": report.environment(),
        "paper_f1": PAPER_F1,
        "held_out": scores(labels[held_out], found[held_out]),
        "other_half": scores(labels[~held_out], found[~held_out]),
        "labels": {
            k: record[k] for k in ("labeller", "agreement", "agreement_is")
        },
        "share": {
            name: (np.bincount(x, minlength=len(CLASSES)) / len(x)).tolist()
            for name, x in both.items()
        },
        "share_by_layer": {
            name: shares_by_layer(layers, x) for name, x in both.items()
        },
    }


def draw(figures: dict[str, Any], path: Path) -> None:
    """Bars of the shares by layer, by the labels and by the classifier."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"labels": "by the labels", "classifier": "by the classifier"}
    for axes, (name, title) in zip(panels, titles.items()):
        shares = np.array(figures["share_by_layer"][name])
        below = np.zeros(len(shares))
        for c, label in enumerate(CLASSES):
            axes.bar(
                range(len(shares)),
                shares[:, c],
                bottom=below,
                color=CLASS_COLOURS[c],
                label=label,
            )
            below += shares[:, c]
        axes.set(xlabel="layer", title=title, ylim=(0, 1))
    panels[0].set_ylabel("share of maps")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=5, frameon=False
    )
    files.save_figure(path, figure)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m official_models.nlp.head_analysis.evaluate_patterns",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    folder = parser.parse_args().output_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = evaluate()
    except (InputError, OSError) as error:
        errors.refuse(str(error))
    files.write_json(folder / f"{NAME}.json", figures, indent=1)
    draw(figures, folder / f"{NAME}.png")
    for half in ("held_out", "other_half"):
        one = figures[half]
        print(half, f"macro F1 {one['macro_f1']:.3f}", one["f1"])


if __name__ == "__main__":
    interrupts.raise_again()
    main()
