r"""Figures of several analyses side by side: one table, one picture.

    python -m official_models.nlp.head_analysis.figures \
        --analysis runs/heads/sst runs/heads/mrpc runs/heads/rte \
        --output_dir official_models/nlp/head_analysis/results

reads each folder's `heads.json` and writes `figures.json` and `figures.png`:
which layers change most by fine-tuning, and what the best head and the best
layer, chosen on one half of the data, are worth on the other. It prints the
same as tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from official_models.common import errors, files, interrupts
from official_models.common.errors import InputError
from official_models.nlp.head_analysis import choice, result

NAME = "figures"
_SPLIT = "report"


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What an analysis says in a few numbers.

    Args:
        found: As `result.check` gives it back, with `change` and
            `switching_off`.

    Returns:
        "accuracy" on the half that is reported, with nothing off; "cosine" of
        each layer, and "most_changed": of each model its layers, the most
        changed one first; of "head" and of "layer" the "common" choice,
        what each model's own choice is worth on the reported half ("each", its
        spread over models), for how many that is above 0 ("each_better") and
        below ("each_worse"), and what it was chosen by ("each_choose"); and
        "map", the mean change on the reported half with each place off.
    """
    off, change = found["switching_off"], found["change"]
    plain = np.array(off["accuracy"][_SPLIT])
    by_layer = np.array(change["models"]).mean(-1)
    figures = {
        "task": found["task"],
        "data": found["data"],
        "models": len(found["models"]),
        "measured": found["measured"],
        "accuracy": choice.spread(plain),
        "cosine": change["by_layer"],
        "most_changed": by_layer.argsort(-1).tolist(),
    }
    for kind in ("head", "layer"):
        chosen = off["chosen"][kind]
        worth = np.array([one["report_change"] for one in chosen["each"]])
        best = np.array([one["choose_change"] for one in chosen["each"]])
        places = np.array(off[f"{kind}s"][_SPLIT])
        plain_of = plain.reshape(-1, *[1] * (places.ndim - 1))
        figures[kind] = {
            "common": chosen["common"],
            "each": choice.spread(worth),
            "each_choose": choice.spread(best),
            "each_better": int((worth > 0).sum()),
            "each_worse": int((worth < 0).sum()),
            "each_places": [one["place"] for one in chosen["each"]],
            "map": (places - plain_of).mean(0).round(6).tolist(),
        }
    return figures


def _points(value: dict) -> str:
    """Mean and deviation of a change of the accuracy, in points."""
    text = f"{100 * value['mean']:+.1f}"
    if value["deviation"] is not None:
        text += f" ± {100 * value['deviation']:.1f}"
    return text


def tables(all_figures: list[dict[str, Any]]) -> str:
    """Markdown: what is off, and which layers change, a row for each task."""
    rows = [
        "| | off | place | chosen by | reported | better, worse | p | each "
        "by its own choice: chosen by | reported |",
        "|---|---|---|---:|---:|---|---:|---:|---:|",
    ]
    for one in all_figures:
        for kind in ("head", "layer"):
            part = one[kind]
            both = part["common"]
            place = ".".join(map(str, both["place"]))
            rows.append(
                f"| {one['task']} | {kind} | {place} "
                f"| {_points(both['choose_change'])} "
                f"| {_points(both['report_change'])} "
                f"| {both['better']}, {both['worse']} | {both['p']:.3f} "
                f"| {_points(part['each_choose'])} | {_points(part['each'])} |"
            )
    layers = range(len(all_figures[0]["cosine"]["mean"]))
    rows += [
        "",
        "| cosine | " + " | ".join(f"layer {i}" for i in layers) + " |",
        "|---|" + "---:|" * len(layers),
    ]
    for one in all_figures:
        cells = [
            f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")
            for mean, deviation in zip(
                one["cosine"]["mean"],
                one["cosine"]["deviation"] or [None] * len(layers),
            )
        ]
        rows.append(f"| {one['task']} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw(all_figures: list[dict[str, Any]], path: Path) -> None:
    """A row of panels for each task: cosines by layer; each head off."""
    from matplotlib.figure import Figure

    rows = len(all_figures)
    figure = Figure(figsize=(10, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False, width_ratios=(1, 1.6))
    for (left, right), one in zip(panels, all_figures):
        mean = np.array(one["cosine"]["mean"])
        left.bar(
            range(len(mean)),
            1 - mean,
            yerr=one["cosine"]["deviation"],
            capsize=3,
        )
        left.set(ylabel="1 - cosine", title=f"{one['task']}: change of maps")
        points = 100 * np.array(one["head"]["map"])
        limit = np.abs(points).max() or 1.0
        picture = right.imshow(
            points,
            cmap="RdBu",
            vmin=-limit,
            vmax=limit,
            aspect="auto",
        )
        models = one["models"]
        right.set(ylabel="layer", title=f"head off, mean of {models} seeds")
        figure.colorbar(picture, ax=right, label="points of accuracy")
    panels[-1][0].set_xlabel("layer")
    panels[-1][1].set_xlabel("head")
    files.save_figure(path, figure)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / result.NAME if folder.is_dir() else folder
    found = result.check(files.read_json(path), str(path))
    for part, flag in (
        ("change", "--raw_model"),
        ("switching_off", "models with a classifier"),
    ):
        if found[part] is None:
            raise InputError(
                f"{path}: {part} is null; expected an analysis with {flag}"
            )
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m official_models.nlp.head_analysis.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--analysis",
        type=Path,
        nargs="+",
        required=True,
        help="folders of analyses, or their heads.json",
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    flags = parser.parse_args()
    try:
        print(write(flags.analysis, flags.output_dir))
    except (InputError, OSError) as error:
        errors.refuse(str(error))


def write(paths: Sequence[Path], folder: Path) -> str:
    """Writes both files to a folder; gives the tables.

    Raises:
        InputError: A file is no heads.json, has no part that is needed, or is
            of models of another size.
    """
    found = [_read(path) for path in paths]
    sizes = {(one["layers"], one["heads"]) for one in found}
    if len(sizes) > 1:
        raise InputError(
            "--analysis: models of different sizes (layers, heads): "
            f"{sorted(sizes)}; expected seeds of one architecture"
        )
    all_figures = [summary(one) for one in found]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / f"{NAME}.json", all_figures, indent=1)
    draw(all_figures, folder / f"{NAME}.png")
    return tables(all_figures)


if __name__ == "__main__":
    interrupts.raise_again()
    main()
