"""A study's table and conclusion, and the files they go to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import measure
from benchmarks.batch_scaling import plots, studies
from benchmarks.batch_scaling.grid import (
    Study,
    grid_cell,
    retuned_rates,
    tuned_rates,
)
from benchmarks.batch_scaling.store import Store
from official_models.common import files

NAMES = {"lamb": "LAMB", "lars": "LARS", "adamw": "AdamW", "sgd": "momentum"}
# Points of accuracy, or share of a loss, that count as kept.
TOLERANCE = {"accuracy": 0.5, "loss": 0.01}


def title(optimizer: str, rule: str) -> str:
    """Name of a line of the plot."""
    return f"{NAMES[optimizer]}, {rule}"


def grid_scores(
    study: Study, scores: dict, seeds: Sequence[int]
) -> dict[tuple[str, str], dict[int, list[float]]]:
    """{(optimizer, rule): {batch: scores of the seeds that are done}}."""
    rates, found = tuned_rates(study, scores), {}
    for name, rule in study.methods:
        row = found[name, rule] = {}
        for batch in study.batches:
            keys = [
                grid_cell(study, name, rule, batch, rates[name], seed).key
                for seed in seeds
                if rates[name]
            ]
            row[batch] = [scores[key] for key in keys if key in scores]
    return found


def retuned_scores(
    study: Study, cells: dict, scores: dict
) -> dict[str, tuple[float, list[float]]]:
    """{optimizer: (rate, scores)} at the largest batch after retuning.

    Where no run was made for it, the test score of the run that won.
    """
    found, largest = {}, study.batches[-1]
    for name, rate in retuned_rates(study, scores).items():
        if rate:
            of = dict(optimizer=name, batch=largest, learning_rate=rate)
            found[name] = (
                rate,
                _select(cells, "score", stage="retuned", **of)
                or _select(cells, "test_score", stage="retune", **of),
            )
    return found


def _select(cells, score, **fields):
    """The scores of the cells that have one and have these fields."""
    return [
        c[score]
        for c in cells.values()
        if score in c and fields.items() <= c.items()
    ]


def _cell(values, worst):
    """Mean and deviation; runs that diverged are counted, not averaged."""
    if not values:
        return ""
    lost = sum(v == worst for v in values)
    if lost:
        values = [v for v in values if v != worst]
        count = f"{lost} of {lost + len(values)} diverged"
        return f"{_cell(values, worst)}, {count}".strip(", ")
    mean = f"{np.mean(values):.2f}"
    if len(values) == 1:
        return mean + " (one seed)"
    return f"{mean} ± {np.std(values, ddof=1):.2f}"


def tables(study: Study, store: Store, seeds: Sequence[int]) -> str:
    """Markdown: the grid, the retuned rates, the variations."""
    cells, scores = store.value["cells"], store.scores
    rates = tuned_rates(study, scores)
    steps = {c["batch"]: c["steps"] for c in cells.values() if "steps" in c}
    batches = [
        f"{b:,} ({steps[b]:,} steps)" if b in steps else f"{b:,}"
        for b in study.batches
    ]
    retuned = retuned_scores(study, cells, scores)
    rows = []
    for (name, rule), row in grid_scores(study, scores, seeds).items():
        rate, values = retuned.get(name, (None, []))
        rows.append(
            [
                title(name, rule),
                f"{rates[name]:g}" if rates[name] else "",
                *(_cell(row[b], study.worst) for b in study.batches),
                f"{_cell(values, study.worst)} at {rate:g}" if values else "",
            ]
        )
    head = ["", "rate at base", *batches, f"{batches[-1]}, retuned"]
    parts = [measure.table(head, rows)]
    changed = [c for c in cells.values() if c["stage"] == "variation"]
    if changed:
        parts.append(_variations(study, changed, scores))
    return "\n\n".join(parts)


def _variations(study, changed, scores):
    """Of each variation its scores, and the gain over the same seeds' runs."""
    largest, rates = study.batches[-1], tuned_rates(study, scores)
    names = dict.fromkeys((c["optimizer"], c["variation"]) for c in changed)
    rows = []
    for name, variation in names:
        values, gains = [], []
        for c in changed:
            if (c["optimizer"], c["variation"]) != (name, variation):
                continue
            values.append(c["score"])
            plain = grid_cell(
                study, name, "sqrt", largest, rates[name], c["seed"]
            )
            if plain.key in scores:
                gains.append(c["score"] - scores[plain.key])
        gain = f"{np.mean(gains):+.2f}" if gains else ""
        rows.append(
            [f"{NAMES[name]}, {variation}", _cell(values, study.worst), gain]
        )
    return measure.table(
        [f"changed, at {largest:,}", "score", "to the untuned rule, same seed"],
        rows,
    )


def conclusion(study: Study, store: Store, seeds: Sequence[int]) -> str:
    """What was and was not reproduced, out of the figures."""
    cells, scores = store.value["cells"], store.scores
    grid = grid_scores(study, scores, seeds)
    base, largest = study.batches[0], study.batches[-1]
    sign = 1 if study.higher_is_better else -1
    kind = "accuracy" if study.higher_is_better else "loss"
    lines = []
    for key in [k for k in grid if k[0] in ("lamb", "lars")]:
        first, last = grid[key][base], grid[key][largest]
        if not first or not last:
            continue
        lost = sign * (np.mean(first) - np.mean(last))
        tolerance = TOLERANCE[kind]
        if kind == "loss":
            tolerance *= np.mean(first)
        verdict = "kept" if lost <= tolerance else "not kept"
        lines.append(
            f"{title(*key)}: {np.mean(first):.2f} at {base:,}, "
            f"{np.mean(last):.2f} at {largest:,}, {lost:.2f} lost: {verdict} "
            f"within {tolerance:.2g}."
        )
    for batch in [b for b in study.batches if b >= 16 * base]:
        means = {
            k: np.mean(row[batch]) for k, row in grid.items() if row[batch]
        }
        ours = {k: v for k, v in means.items() if k[0] in ("lamb", "lars")}
        rivals = {k: v for k, v in means.items() if k not in ours}
        if not ours or not rivals:
            continue
        best = max(ours, key=lambda k: sign * ours[k])
        rival = max(rivals, key=lambda k: sign * rivals[k])
        ahead = sign * (ours[best] - rivals[rival])
        lines.append(
            f"Untuned at {batch:,}: {title(*best)} {ours[best]:.2f}, best "
            f"rival {title(*rival)} {rivals[rival]:.2f} ({ahead:+.2f})."
        )
    retuned = {
        name: np.mean(values)
        for name, (_, values) in retuned_scores(study, cells, scores).items()
        if values
    }
    if retuned:
        order = sorted(retuned, key=lambda name: -sign * retuned[name])
        ranks = ", ".join(f"{NAMES[n]} {retuned[n]:.2f}" for n in order)
        lines.append(f"Retuned at {largest:,}: {ranks}.")
    counts = [len(v) for row in grid.values() for v in row.values()]
    lines.append(f"Seeds a cell: {min(counts)} to {max(counts)}.")
    return "\n".join(f"- {line}" for line in lines)


def write(study: Study, store: Store, seeds: Sequence[int]) -> str:
    """Writes the plot and the table beside the results; gives the text."""
    unit = studies.SCORES[store.value["task"]]
    text = f"{tables(study, store, seeds)}\n\n{conclusion(study, store, seeds)}"
    if not store.value["cells"]:
        return "no cell is done yet"
    plots.draw(
        study,
        grid_scores(study, store.scores, seeds),
        retuned_scores(study, store.value["cells"], store.scores),
        NAMES,
        unit,
        store.path.with_suffix(".png"),
    )
    files.write_text(
        store.path.with_suffix(".md"), f"Score: {unit}.\n\n{text}\n"
    )
    return text
