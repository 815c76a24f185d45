"""Times one optimizer step of LAMB, LARS and their peers, in turns.

    python -m benchmarks.update_step                 # BERT-base and ResNet-50
    python -m benchmarks.update_step --quick         # small shapes, a minute

Every environment is a process that holds its optimizers; round by round each of
them makes one step, while the others wait. Medians and quartiles, and ratios to
XLA's AdamW (LARS: SGD with momentum) of the same run, go to
results/update_step.json and .png and, with --readme, into benchmarks/README.md,
which docs/benchmarks.md includes.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import measure, optimizers, shapes, workers
from official_models.common import files

ROOT = measure.ROOT
MODULE = "benchmarks.update_step"
MODELS = {
    "BERT-base": lambda: shapes.bert(),
    "ResNet-50": lambda: shapes.resnet50(),
    "small": lambda: shapes.bert(2, 64, 1000, 256),
}
RESULT = ROOT / "benchmarks" / "results" / "update_step.json"
README = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- update_step: begin -->", "<!-- update_step: end -->"


def serve(environment: str, model: str) -> None:
    """A worker: makes the steps whose names it reads."""
    sizes = tuple(MODELS[model]())
    makers = {c.name: c.make for c in optimizers.OPTIMIZERS[environment]}
    steps = {}

    def step(name: str) -> float:
        if name not in steps:
            steps[name] = makers[name](sizes)
        began = time.perf_counter()
        steps[name]()
        return time.perf_counter() - began

    workers.serve(environment, step)


def race(model: str, rounds: int) -> dict:
    """{optimizer: first step, sample, ratio} on one model's shapes."""
    running, entries = [], []
    try:
        for environment, found in optimizers.OPTIMIZERS.items():
            words = ["--worker", environment, "--model", model]
            worker = workers.start(MODULE, environment, words, "tensorflow")
            if worker is None:
                continue
            running.append(worker)
            entries += [(worker, c) for c in found]
        first = {}
        for worker, c in entries:
            first[c.name] = worker.step(c.name)
            worker.step(c.name)
            print(f"{model}: {c.name}: first step {first[c.name]:.1f} s")
        times = {c.name: [] for _, c in entries}
        for i in range(rounds):
            print(f"\r{model}: round {i + 1} of {rounds}", end="", flush=True)
            for worker, c in entries:
                times[c.name].append(worker.step(c.name))
        print()
    finally:
        for worker in running:
            worker.close()
    return {c.name: _row(c, times, first) for _, c in entries}


def _row(c, times, first):
    base = times[c.baseline]
    ratios = [a / b for a, b in zip(times[c.name], base)]
    return {
        "seconds": measure.summary(times[c.name]),
        "first_step_seconds": first[c.name],
        "baseline": c.baseline,
        "ratio": measure.summary(ratios),
    }


def render(result: dict, models=None) -> str:
    """The table of a result in Markdown, one column of ratios a model."""
    models = models or list(result["models"])
    head = ["optimizer step"]
    for model in models:
        head += [f"{model}: ms (quartiles)", "ratio", "first step, s"]
    rows = []
    for name in result["models"][models[0]]:
        row = [f"**{name}**" if name.startswith("tf_lamb") else name]
        for model in models:
            r = result["models"][model].get(name)
            s = r["seconds"]
            ms = [1e3 * s[k] for k in ("median", "lower_quartile")]
            ms.append(1e3 * s["upper_quartile"])
            row.append("{:.1f} ({:.1f}-{:.1f})".format(*ms))
            row += [f"{r['ratio']['median']:.2f}"]
            row += [f"{r['first_step_seconds']:.1f}"]
        rows.append(row)
    at = result["provenance"]
    n = result["models"][models[0]][name]["seconds"]["n"]
    return (
        measure.table(head, rows)
        + f"\n\nMedians of {n} rounds in turns, {at['date']}, {at['cores']} "
        f"cores of {at['cpu']}, float32, `{at['command']}`. Ratio: to AdamW by "
        "XLA "
        "kernels in place, for LARS and momentum to SGD with momentum by such "
        "kernels; medians of the rounds' own ratios. First steps are those of "
        "one process, in the order of the rows: the two defaults find the "
        "programs that the row above them compiled."
    )


def plot(result: dict, path: Path) -> None:
    """Bars of the medians, whiskers to the quartiles, one panel a model."""
    from matplotlib.figure import Figure

    models = result["models"]
    figure = Figure(figsize=(7 * len(models), 6), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)
    for axes, (model, rows) in zip(panels[0], models.items()):
        names = sorted(rows, key=lambda n: -rows[n]["seconds"]["median"])
        samples = [rows[n]["seconds"] for n in names]
        median = [1e3 * s["median"] for s in samples]
        low = [m - 1e3 * s["lower_quartile"] for m, s in zip(median, samples)]
        high = [1e3 * s["upper_quartile"] - m for m, s in zip(median, samples)]
        colors = ["C1" if n.startswith("tf_lamb") else "C0" for n in names]
        axes.barh(names, median, xerr=[low, high], color=colors)
        axes.set(xlabel="ms a step", title=model)
    files.save_figure(path, figure)


def write_readme(result: dict) -> None:
    """Puts the table between the markers of README."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    table = f"{before}{BEGIN}\n\n{render(result)}\n\n{END}{after}"
    files.write_text(README, table)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small shapes")
    parser.add_argument("--rounds", type=int, default=21, help="at least 15")
    parser.add_argument("--output", type=Path, help="JSON; the PNG beside it")
    parser.add_argument("--readme", action="store_true", help="write the table")
    parser.add_argument(
        "--worker", choices=workers.PYTHONS, help=argparse.SUPPRESS
    )
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if flags.worker:
        serve(flags.worker, flags.model or "small")
        return 0
    if flags.rounds < 1:
        parser.error(f"--rounds {flags.rounds}: expected a number >= 1")
    if flags.readme and flags.quick:
        parser.error("--readme: the tables are of the whole run, not --quick")
    models = ["small"] if flags.quick else ["BERT-base", "ResNet-50"]
    rounds = min(flags.rounds, 5) if flags.quick else flags.rounds
    result = {
        "provenance": measure.provenance(seed=optimizers.SEED),
        "models": {model: race(model, rounds) for model in models},
    }
    output = flags.output
    if output is None:
        folder = ROOT / "runs" / "benchmarks" if flags.quick else RESULT.parent
        output = folder / RESULT.name
    measure.write_json(output, result)
    plot(result, output.with_suffix(".png"))
    print(render(result))
    print(f"-> {output}, {output.with_suffix('.png')}")
    if flags.readme:
        write_readme(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
