"""Tables and picture of the study."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.enough_steps import optimizers
from official_models.common import files

BEHIND = 1.0  # points below LAMB at the base batch: the score to be reached
CHANCE = 10.0  # in percent, of ten classes


def _final(part: dict[str, Any]) -> np.ndarray:
    """Last scores of a part's runs; chance of one that is not finite."""
    last = [CHANCE if s[-1] is None else s[-1] for s in part["scores"]]
    return np.array(last, "float64")


def diverged(part: dict[str, Any]) -> int:
    """How many of a part's runs ended about at chance, or not finite."""
    return int((_final(part) < 1.5 * CHANCE).sum())


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, deviation (n - 1) and half the 95% interval of Student's t."""
    from scipy.stats import t

    values = np.asarray(values, "float64")
    n = len(values)
    if n < 2:
        return {"mean": float(values.mean()), "deviation": None, "half": None}
    deviation = float(values.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * deviation / n**0.5
    return {"mean": float(values.mean()), "deviation": deviation, "half": half}


def examples_to(part: dict[str, Any], target: float, epoch: int) -> list:
    """Examples until the test score first reaches `target`, None if never.

    Args:
        part: Of the grid.
        target: In percent.
        epoch: Examples of an epoch.
    """
    found: list[int | None] = []
    for scores in part["scores"]:
        reached = [i for i, s in enumerate(scores, 1) if (s or 0) >= target]
        found.append(reached[0] * epoch if reached else None)
    return found


def paired(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Our scores less theirs, seed by seed; p of the paired t-test.

    Where every difference is the same number, p is None.
    """
    from scipy.stats import ttest_rel

    a, b = _final(ours), _final(theirs)
    p = None if np.ptp(a - b) == 0 else float(ttest_rel(a, b).pvalue)
    return {**spread(a - b), "p": p, "seeds": len(a)}


def figures(found: dict[str, Any], largest: int) -> dict[str, Any]:
    """What the tables say.

    Args:
        found: {optimizer: what `plan.Study.of` gave}, LAMB among them.
        largest: The batch at which rates were tuned again.

    Returns:
        "target"; "rows", one for each optimizer and rule, whose "score" has
        diverged runs in its mean and whose "diverged" counts them; "pairs",
        LAMB less each other one at `largest`, by rule and retuned.
    """
    lamb = found["lamb"]
    base = next(iter(lamb["grid"]["sqrt"]))
    target = round(_final(lamb["grid"]["sqrt"][base]).mean() - BEHIND, 2)
    rows, pairs = [], []
    for name, one in found.items():
        for rule, parts in one["grid"].items():
            rows.append(
                {
                    "optimizer": name,
                    "rule": rule,
                    "rate_at_base": one["tune"]["chosen"],
                    "score": {b: spread(_final(p)) for b, p in parts.items()},
                    "diverged": {b: diverged(p) for b, p in parts.items()},
                    "updates": {b: p["updates"] for b, p in parts.items()},
                    "examples": {
                        b: examples_to(
                            p, target, p["updates"] * p["batch"] // _epochs(p)
                        )
                        for b, p in parts.items()
                    },
                }
            )
            if name != "lamb":
                pair = paired(
                    lamb["grid"]["sqrt"][str(largest)], parts[str(largest)]
                )
                pairs.append({"other": name, "by": rule, **pair})
        rows[-1]["retuned"] = spread(_final(one["retuned"]))
        rows[-1]["retuned_rate"] = one["retune"]["chosen"]
        rows[-1]["rates_tried"] = {
            stage: {
                str(rate): scores[-1]
                for rate, scores in zip(
                    one[stage]["rates"], one[stage]["scores"]
                )
            }
            for stage in ("tune", "retune")
        }
        if name != "lamb":
            pair = paired(lamb["retuned"], one["retuned"])
            pairs.append({"other": name, "by": "retuned", **pair})
    return {"target": target, "largest": largest, "rows": rows, "pairs": pairs}


def _epochs(part: dict[str, Any]) -> int:
    return len(part["scores"][0])


def _cell(value: dict[str, Any]) -> str:
    text = f"{value['mean']:.2f}"
    return text + ("" if value["half"] is None else f" ± {value['half']:.2f}")


def _lost(row: dict[str, Any], batch: str) -> int:
    """Runs that diverged; 0 in results that did not count them."""
    return row.get("diverged", {}).get(batch, 0)


def _score(row: dict[str, Any], batch: str) -> str:
    """Mean and interval; where runs diverged, how many did."""
    lost, runs = _lost(row, batch), len(row["examples"][batch])
    if lost:
        return "all diverged" if lost == runs else f"{lost} of {runs} diverged"
    return _cell(row["score"][batch])


def _title(row: dict[str, Any]) -> str:
    return f"{optimizers.NAMES[row['optimizer']]}, {row['rule']}"


def tables(said: dict[str, Any]) -> str:
    """Markdown of `figures`."""
    rows, largest = said["rows"], said["largest"]
    batches = list(rows[0]["score"])
    updates = rows[0]["updates"]
    scores = [
        [
            _title(row),
            f"{row['rate_at_base']:g}",
            *(_score(row, b) for b in batches),
            f"{_cell(row['retuned'])} at {row['retuned_rate']:g}"
            if "retuned" in row
            else "",
        ]
        for row in rows
    ]
    needed = [
        [_title(row), *(_needed(row["examples"][b]) for b in batches)]
        for row in rows
    ]
    pairs = [
        [
            f"{optimizers.NAMES[pair['other']]}, {pair['by']}",
            f"{pair['mean']:+.2f} ± {pair['half'] or 0:.2f}",
            "-" if pair["p"] is None else f"{pair['p']:.3f}",
        ]
        for pair in said["pairs"]
    ]
    heads = [f"{int(b):,}" for b in batches]
    return "\n\n".join(
        [
            measure.table(
                [
                    "",
                    "rate at base",
                    *(f"{h} ({updates[b]:,} updates)"
                      for h, b in zip(heads, batches)),
                    f"{largest:,}, retuned",
                ],
                scores,
            ),
            measure.table(
                [f"millions of examples to {said['target']:g}%", *heads],
                needed,
            ),
            measure.table(
                [f"LAMB less ... at {largest:,}", "points, 95%", "p"], pairs
            ),
        ]
    )  # fmt: skip


def _needed(values: list) -> str:
    missing = sum(v is None for v in values)
    if missing:
        return f"{missing} of {len(values)} never"
    return f"{np.mean(values) / 1e6:.2f}"


def draw(said: dict[str, Any], path: Path) -> None:
    """Score against batch, and examples to the target against batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {
        name: f"C{i}" for name, i in zip(optimizers.NAMES, itertools.count())
    }
    for row in said["rows"]:
        batches = [int(b) for b in row["score"]]
        style = {
            "color": colours[row["optimizer"]],
            "ls": "--" if row["rule"] == "linear" else "-",
            "marker": "o",
            "ms": 4,
            "label": _title(row),
        }
        means = [
            np.nan if _lost(row, b) else one["mean"]
            for b, one in row["score"].items()
        ]
        half = [one["half"] or 0 for one in row["score"].values()]
        left.errorbar(batches, means, half, capsize=3, **style)
        need = [
            np.nan if None in v else np.mean(v) / 1e6
            for v in row["examples"].values()
        ]
        right.plot(batches, need, **style)
    best = max(
        one["mean"] for row in said["rows"] for one in row["score"].values()
    )
    left.set(ylim=(best - 6, best + 0.5), ylabel="test accuracy, %")
    right.set(
        yscale="log", ylabel=f"millions of examples to {said['target']:g}%"
    )
    scales = [x for x in said.get("noise", {}).get("noise_scale", []) if x]
    if scales:
        right.axvspan(min(scales), max(scales), color="0.9")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="batch")
        axes.axvline(said["largest"], color="0.7", lw=0.8, ls=":")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False)
    files.save_figure(path, figure)
