"""Optimizers tuned alike on a fine-tuning task: rates at one seed, then seeds.

    python -m benchmarks.finetuning --rates lamb=5e-4,1e-3 adamw=5e-5,1e-4 \\
        --runs runs/mrpc-32 --output mrpc-32.json -- \\
        official_models.nlp.bert.finetune_classifier --task_name mrpc \\
        --data_dir MRPC --init_checkpoint MODEL --global_batch_size 32

Behind `--` stand a fine-tuning script and its flags. It is run once for each
optimizer and rate, with the first seed; each optimizer's best rate, by what the
script compares its seeds by, is run with the other seeds. All optimizers have
the same number of rates. Every run has a folder below --runs, so the same
command goes on where it was interrupted. --output is written after each run:
the rates tried, mean and deviation of the seeds at the chosen one, the speed.

The split that chose the rate is the one that is reported, so every mean is
optimistic, for all optimizers alike; the spread is that of the seeds.

--runs belongs to the command: with another script or other flags, or another
--seed, it is refused (runs.json there has both).
"""

import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import measure, trainings
from official_models.common import files
from official_models.common.errors import InputError, refuse
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.finetuning"
# What `train` gives the script.
OURS = ("optimizer", "learning_rate", "output_dir", "seed", "seeds")


def rates_of(words):
    """{optimizer: rates} of words such as "lamb=1e-3,2e-3".

    Raises:
        InputError: A word has another form, an optimizer is there twice, or the
            optimizers have not the same number of rates.
    """
    found = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            rates = [float(x) for x in values.split(",")]
        except ValueError:
            rates = []
        if not rates or not all(0 < rate < float("inf") for rate in rates):
            raise InputError(
                f"--rates {word}: expected OPTIMIZER=RATE,RATE,..., such as "
                "lamb=5e-4,1e-3"
            )
        if name in found:
            raise InputError(f"--rates: {name} is there twice")
        if len({f"{rate:g}" for rate in rates}) < len(rates):
            raise InputError(
                f"--rates {word}: has a rate twice; expected different ones, "
                "or another optimizer is tuned better"
            )
        found[name] = rates
    if len({len(rates) for rates in found.values()}) > 1:
        counts = ", ".join(f"{k} {len(v)}" for k, v in found.items())
        raise InputError(
            f"--rates: {counts}; expected as many rates for each optimizer, or "
            "one is tuned better than another"
        )
    return found


def check_command(command):
    """Refuses a command without a script, and flags that are given to it here.

    Raises:
        InputError: It names the flag.
    """
    if not command:
        raise InputError(
            "no script: expected -- and a fine-tuning script with its flags at "
            "the end of the command"
        )
    trainings.check_flags(
        command[1:], OURS, "--rates, --runs, --seed and --seeds"
    )


def check_runs(runs, command, seed):
    """Refuses a folder with the runs of another command; makes a new one.

    Args:
        runs: Folder of the runs.
        command: Module and flags of the script.
        seed: The first one.

    Raises:
        InputError: It names what differs.
    """
    now = {"command": command, "seed": seed}
    before = None
    if reports := sorted(runs.glob("*/report.json")):
        # Of an earlier version, which kept no record.
        report = files.read_json(reports[0], "remove it to train again")
        before = {**now, "seed": report["seeds"][0]["seed"]}
    trainings.check_runs(runs, now, before)


def train(command, folder, optimizer, rate, seed, seeds):
    """Runs the script, or finds that it was run; gives its report.

    Args:
        command: Module and flags.
        folder: Of the run.
        optimizer: Name.
        rate: Learning rate.
        seed: The first one.
        seeds: How many.

    Raises:
        InputError: The script failed.
    """
    path = folder / "report.json"
    if path.is_file():
        report = files.read_json(path, "remove it to train again")
        if len(report["seeds"]) >= seeds:
            return report
    values = optimizer, repr(rate), folder, seed, seeds
    words = [f"--{n}={x}" for n, x in zip(OURS, values, strict=True)]
    print(f"{folder.name}: {seeds} seeds", flush=True)
    ended = subprocess.run(
        [sys.executable, "-m", *command, *words], env=measure.environment()
    )
    if ended.returncode:
        raise InputError(
            f"{' '.join(command[:1])} ended with status {ended.returncode}; "
            f"the line above says why. What was trained is in {folder}"
        )
    return files.read_json(path, "remove it to train again")


def row_of(optimizer, rate, tried, report):
    """What one optimizer came to, as JSON values."""
    (speed,) = [k for k in report["seeds"][0] if k.endswith("_per_second")]
    return {
        "optimizer": optimizer,
        "tried": tried,
        "learning_rate": rate,
        "seeds": [result["seed"] for result in report["seeds"]],
        "compared_by": report["compared_by"],
        "scores": report["scores"],
        "each": [result["scores"] for result in report["seeds"]],
        speed: statistics.median(r[speed] for r in report["seeds"]),
        "machine": report["machine"],
        "date": report["date"],
    }


def measure_all(command, runs, rates, seed, seeds, save=lambda rows: None):
    """All rates at one seed, then the best of each optimizer at all seeds.

    Args:
        command: Module and flags of the script.
        runs: Folder of the runs.
        rates: Of `rates_of`.
        seed: The first one.
        seeds: How many.
        save: Called with the rows after each run.

    Returns:
        Of each optimizer `row_of`.
    """
    rows = {}

    def run(optimizer, rate, number):
        folder = runs / f"{optimizer}-{rate:g}"
        return train(command, folder, optimizer, rate, seed, number)

    tried = {name: {} for name in rates}
    for name, values in rates.items():
        for rate in values:
            report = run(name, rate, 1)
            tried[name][rate] = _first_score(report)
            best = max(tried[name], key=tried[name].get)
            if best == rate:
                rows[name] = row_of(name, rate, _as_json(tried[name]), report)
            rows[name]["tried"] = _as_json(tried[name])
            save(list(rows.values()))
    for name in rates:
        best = max(tried[name], key=tried[name].get)
        report = run(name, best, seeds)
        rows[name] = row_of(name, best, _as_json(tried[name]), report)
        save(list(rows.values()))
    return list(rows.values())


def _first_score(report):
    """The first seed's, by what the script compares its seeds by."""
    split, metric = report["compared_by"].split(" ", 1)
    return report["seeds"][0]["scores"][split][metric]


def _as_json(tried):
    return {f"{rate:g}": score for rate, score in tried.items()}


def markdown(rows):
    """A table: an optimizer a row."""
    lines = []
    for row in rows:
        split, metric = row["compared_by"].split(" ", 1)
        found = row["scores"][split][metric]
        (speed,) = [k for k in row if k.endswith("_per_second")]
        spread = found["deviation"]
        spread = "-" if spread is None else f"{spread:.4f}"
        tried = "; ".join(f"{k}: {v:.4f}" for k, v in row["tried"].items())
        lines.append(
            [
                row["optimizer"],
                tried,
                f"{row['learning_rate']:g}",
                f"{found['mean']:.4f} ± {spread}",
                len(row["seeds"]),
                f"{row[speed]:.1f}",
            ]
        )
    head = ["", "rates tried", "chosen", metric, "seeds", "a second"]
    return measure.table(head, lines)


def main(arguments=None):
    """Measures, prints a table, writes JSON."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument(
        "--rates", nargs="+", required=True, help="OPTIMIZER=RATE,RATE,... each"
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder")
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument(
        "--seeds", type=command_line.count, default=3, help="how many"
    )
    parser.usage = "%(prog)s [options] -- MODULE [its flags]"
    at = words.index("--") if "--" in words else len(words)
    args, command = parser.parse_args(words[:at]), words[at + 1 :]
    try:
        rows = _run(command, args)
    except InputError as error:
        refuse(str(error))
    print(markdown(rows))


def _run(command, args):
    check_command(command)
    rates = rates_of(args.rates)
    check_runs(args.runs, command, args.seed)

    def save(rows):
        found = {"provenance": measure.provenance(seed=args.seed), "rows": rows}
        measure.write_json(args.output, found)

    return measure_all(command, args.runs, rates, args.seed, args.seeds, save)


if __name__ == "__main__":
    main()
