"""What the large-margin term adds to a cross-entropy that is tuned alike.

    python -m benchmarks.few_shot_study --optimizers lamb adamw \\
        --runs runs/few-shot-study --output few_shot.json -- \\
        --ways 20 --filters 32 --episodes 1

Behind `--` stand flags of `official_models.vision.few_shot.train`. Each
optimizer has two arms, the cross-entropy alone and with the margin, and each
arm as many trials, with a seed that is not reported: the same learning rates
and temperatures in both, and with the margin its weight and size besides (a
Sobol sequence over the logarithms). The trial with the best validation accuracy
is trained with the other seeds, and their accuracies on test episodes of other
classes are compared by Student's paired test.

Each training is a folder of --runs, so the same command goes on where it was
interrupted; --hours ends a start. --runs belongs to the flags behind `--`: with
others it is refused. --output is written after each arm, with a plot beside it.
A training that diverges has the accuracy 0.
"""

import math
import subprocess
import sys
from pathlib import Path

from scipy.stats import qmc

from benchmarks import measure, trainings
from official_models.common import files
from official_models.common.errors import InputError, refuse
from official_models.common.store import OutOfTime, Store
from official_models.vision.batch_norm.experiments import paired, spread
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.few_shot_study"
TRAIN = "official_models.vision.few_shot.train"
ARMS = ("cross-entropy", "margin")
TUNING_SEED = 100
TUNING_EPISODES = 200  # of validation; a trial's test is not looked at
# Least and largest of what is searched, by logarithm.
RATES = {
    "lamb": (1e-3, 1e-1),
    "lars": (1e-2, 1e1),
    "adamw": (1e-4, 1e-2),
    "sgd": (1e-3, 1e0),
}
RANGES = {
    "temperature": (0.3, 30.0),
    "margin_weight": (0.1, 10.0),
    "margin": (0.1, 3.0),
}
SPLITS = ("validation", "test")
# What a training is given here.
OURS = ("optimizer", "learning_rate", *RANGES, "output_dir", "seed", "seeds")
_DIVERGED = "has diverged"


def trials(optimizer, arm, count):
    """The settings that an arm tries.

    Args:
        optimizer: A key of RATES.
        arm: Of ARMS.
        count: How many.

    Returns:
        Flags by name of each; rate and temperature are those of the other arm.
    """
    ranges = {"learning_rate": RATES[optimizer], **RANGES}
    sampler = qmc.Sobol(len(ranges), scramble=True, seed=0)
    points = sampler.random_base2(math.ceil(math.log2(count)))[:count]
    found = []
    for point in points:
        setting = {
            name: float(f"{low * (high / low) ** x:.3g}")
            for x, (name, (low, high)) in zip(point, ranges.items())
        }
        if arm == "cross-entropy":
            setting = {**setting, "margin_weight": 0.0, "margin": 0.5}
        found.append(setting)
    return found


def train(folder, flags, setting, seed):
    """Trains one seed.

    Args:
        folder: Of the training.
        flags: Of the script, in words.
        setting: Of `trials`.
        seed: Of the training.

    Returns:
        Its accuracy on each split; 0 if it diverged.

    Raises:
        InputError: The script failed.
    """
    values = {**setting, "output_dir": str(folder), "seed": seed, "seeds": 1}
    words = [f"--{name}={value}" for name, value in values.items()]
    ended = subprocess.run(
        [sys.executable, "-m", TRAIN, *flags, *words],
        env=measure.environment(),
        capture_output=True,
        text=True,
    )
    if ended.returncode and _DIVERGED in ended.stderr:
        return dict.fromkeys(SPLITS, 0.0)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{folder.name}: {TRAIN} failed: {last}")
    report = files.read_json(folder / "report.json", "remove its folder")
    return {split: report["scores"][split]["mean"] for split in SPLITS}


def arm_of(store, flags, optimizer, arm, counts):
    """Tunes an arm, then trains its seeds.

    Args:
        store: A `Store` in the folder of the runs.
        flags: Behind `--`.
        optimizer: A key of RATES.
        arm: Of ARMS.
        counts: Trials and seeds.

    Returns:
        The arm's row, as JSON values.
    """
    flags = [*flags, f"--optimizer={optimizer}"]

    def one(name, setting, seed, *more):
        words = [*flags, *more]
        found = store.get(
            name, lambda: train(store.folder / name, words, setting, seed)
        )
        command_line.show(f"{name}: validation {found['validation']:.4f}")
        return found

    start = f"{optimizer}-{arm}"
    tried, few = [], f"--eval_episodes={TUNING_EPISODES}"
    for number, setting in enumerate(trials(optimizer, arm, counts[0])):
        found = one(f"{start}-trial_{number}", setting, TUNING_SEED, few)
        tried.append({**setting, "validation": found["validation"]})
    best = max(range(len(tried)), key=lambda i: tried[i]["validation"])
    setting = {k: v for k, v in tried[best].items() if k != "validation"}
    # Of its own name: other counts of trials may choose another.
    each = [
        one(f"{start}-chosen_{best}-seed_{seed}", setting, seed)
        for seed in range(1, counts[1] + 1)
    ]
    row = {"optimizer": optimizer, "arm": arm, "chosen": setting}
    row |= {split: spread([x[split] for x in each]) for split in SPLITS}
    return {**row, "tried": tried}


def comparisons(rows):
    """Test accuracy with the margin less that without, of each optimizer."""
    found = {}
    for row in rows:
        of_one = [x for x in rows if x["optimizer"] == row["optimizer"]]
        if len(of_one) == len(ARMS):
            plain, margin = sorted(of_one, key=lambda x: ARMS.index(x["arm"]))
            found[row["optimizer"]] = paired(
                margin["test"]["each"], plain["test"]["each"]
            )
    return found


def markdown(rows, compared):
    """A table: an arm a row."""
    lines = []
    for row in rows:
        chosen, test = row["chosen"], row["test"]
        margin = f"{chosen['margin_weight']:g}, {chosen['margin']:g}"
        less, p = "", ""
        if row["arm"] == "margin" and row["optimizer"] in compared:
            found = compared[row["optimizer"]]
            less = f"{100 * found['difference']:+.2f}"
            p = "-" if found["p"] is None else f"{found['p']:.2g}"
        deviation = test["deviation"]
        lines.append(
            [
                f"{row['optimizer']}, {row['arm']}",
                f"{chosen['learning_rate']:g}",
                f"{chosen['temperature']:g}",
                "" if row["arm"] == "cross-entropy" else margin,
                f"{100 * test['mean']:.2f}"
                + ("" if deviation is None else f" ± {100 * deviation:.2f}"),
                less,
                p,
            ]
        )
    head = ["", "rate", "temperature", "weight, margin", "test, %"]
    return measure.table([*head, "margin adds", "p"], lines)


def plot(rows, path):
    """Left all trials by rate, right the seeds of what was chosen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    for place, row in enumerate(rows):
        name = f"{row['optimizer']}, {row['arm']}"
        tried = row["tried"]
        mark = "o" if row["arm"] == "margin" else "x"
        left.plot(
            [x["learning_rate"] for x in tried],
            [100 * x["validation"] for x in tried],
            mark,
            label=name,
        )
        each = [100 * x for x in row["test"]["each"]]
        right.plot([place] * len(each), each, mark)
    left.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="validation accuracy, %",
        title="every trial",
    )
    left.legend(frameon=False, fontsize=8)
    right.set(title="seeds of the chosen one", ylabel="test accuracy, %")
    right.set_xticks(
        range(len(rows)), [f"{x['optimizer']}\n{x['arm']}" for x in rows]
    )
    files.save_figure(path, figure)


def study(args, flags):
    """Trains what is missing; writes after each arm; gives the table."""
    trainings.check_flags(flags, OURS, "--optimizers, --runs and --seeds")
    trainings.check_runs(args.runs, {"flags": flags})
    store, rows = Store(args.runs, args.hours), []
    for optimizer in args.optimizers:
        for arm in ARMS:
            counts = args.trials, args.seeds
            rows.append(arm_of(store, flags, optimizer, arm, counts))
            compared = comparisons(rows)
            found = {
                "provenance": measure.provenance(seed=1),
                "flags": flags,
                "rows": rows,
                "margin less cross-entropy": compared,
            }
            measure.write_json(args.output, found)
            plot(rows, args.output.with_suffix(".png"))
    return markdown(rows, compared)


def main(arguments=None):
    """Trains, prints a table, writes JSON and PNG."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument(
        "--optimizers", nargs="+", choices=list(RATES), default=["lamb"]
    )
    count, positive = command_line.count, command_line.positive
    parser.add_argument("--trials", type=count, default=8, help="of each arm")
    parser.add_argument("--seeds", type=count, default=5, help="how many")
    parser.add_argument("--runs", type=Path, required=True, help="folder")
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument(
        "--hours",
        type=positive,
        help="after which no training is begun; the same command goes on",
    )
    parser.usage = "%(prog)s [options] -- [flags of few_shot.train]"
    at = words.index("--") if "--" in words else len(words)
    args, flags = parser.parse_args(words[:at]), words[at + 1 :]
    try:
        print(study(args, flags))
    except InputError as error:
        refuse(str(error))
    except OutOfTime as missing:
        print(f"the time is up before {missing}; the same command goes on")


if __name__ == "__main__":
    main()
