"""What fine-tuning a Hub module came to: accuracies, last trust ratios."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from official_models.common import files, report
from official_models.common import flags as run_flags
from official_models.common.run import Run
from tf_lamb import find_optimizer, find_optimizers

Encoded = dict[str, np.ndarray]


def measure(
    model: keras.Model,
    run: Run,
    splits: Mapping[str, tuple[Encoded, np.ndarray]],
    batch_size: int,
) -> dict[str, Any]:
    """Accuracies of the splits; the saved model's difference from this one.

    Args:
        model: trained.
        run: its training; the model is saved in its folder as a SavedModel.
        splits: {name: (inputs, labels)}.
        batch_size: sentences at once.
    """
    folder = run.folder
    figures = {
        **report.environment(),
        "flags": run_flags.values(),
        "steps": run.total_steps,
        "sentences_per_second": run.speed(),
    }
    logits = {}
    for name, (inputs, labels) in splits.items():
        logits[name] = model.predict(inputs, batch_size, verbose=0)[:, 0]
        hits = (logits[name] > 0) == labels
        figures[f"{name}_accuracy"] = float(np.mean(hits))
        figures[f"{name}_examples"] = len(labels)
    with files.replacing_folder(folder / "model") as temporary:
        model.save(temporary)
    again = keras.models.load_model(folder / "model", compile=False)
    name, (inputs, _) = list(splits.items())[-1]
    same = again.predict(inputs, batch_size, verbose=0)[:, 0]
    figures["reloaded_difference"] = float(np.abs(same - logits[name]).max())
    if find_optimizers(model):
        figures["trust_ratios"] = find_optimizer(model).trust_ratios
    return figures


def show(figures: Mapping[str, Any]) -> str:
    """The accuracies in words."""
    shown = [
        f"{name} {figures[f'{name}_accuracy']:.2%} of "
        f"{figures[f'{name}_examples']:,}"
        for name in ("dev", "test")
        if f"{name}_accuracy" in figures
    ]
    return f"accuracy: {', '.join(shown)}; {figures['steps']} steps."


def write(folder: Path, figures: Mapping[str, Any], title: str) -> None:
    """Writes report.json, curves.png and trust_ratios.png into the run."""
    files.write_json(folder / "report.json", figures)
    panels = {"loss": "cross-entropy (nats)", "accuracy": "accuracy"}
    curves = folder / "curves.png"
    report.plot_curves(folder / "metrics.csv", curves, panels, {}, title)
    if "trust_ratios" in figures:
        _plot(folder / "trust_ratios.png", figures["trust_ratios"])


def _plot(path: Path, ratios: Mapping[str, float]) -> None:
    """One bar an adapted variable."""
    from matplotlib.figure import Figure

    adapted = {n: r for n, r in ratios.items() if r != 1.0}
    size = (8, 1 + 0.16 * len(adapted))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.barh([n.replace("bert/", "") for n in adapted], adapted.values())
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    axes.set(xlabel="trust ratio of the last step", xscale="log")
    files.save_figure(path, figure)
