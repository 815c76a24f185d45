"""Which lambda, on MinAtar: training runs, interquartile means, intervals.

    python -m benchmarks.dqn_lambda_study --part lambda --hours 8
    nice -n 10 python -m benchmarks.dqn_lambda_study --folder runs/dqn-study \\
        --settings "lambda=0" "lambda=0.75" "lambda_rule=median" --seeds 5 \\
        --games breakout asterix --output study.json

A part is a list of settings: `lambda`, `partial` (one frame or four an
observation, DQN and DRQN), `optimizers` (LAMB and Adam, rates tuned alike on
seeds of their own; `tuning` in the JSON is how each rate trained) and `a3c`,
which is by `a3c.train`.

A setting is flags of `official_models.rl.dqn_lambda.train`, a comma between
two of them. Each run is a process with one thread; a run that is complete in
the folder is not run again, and one that was stopped goes on, so that the same
command goes on with the study. Runs of other `--flags` have folders of their
own. Seeds are the outer loop: what is written after each run compares settings
of about as many seeds.

The score of a run is the mean return of its evaluation (30 episodes, epsilon
0.05), and beside it that of its training episodes. `iqm` is the mean of the
middle half of a setting's runs; its interval is the 95% percentile interval of
2,000 bootstrap samples, seeds drawn within each game. Over several games, a
score is divided by its game's mean over all runs first; a game in which every
run scored 0 says nothing of the settings, and is left out there.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import measure
from official_models.common import files
from official_models.common.errors import InputError, refuse
from official_models.rl.dqn_lambda.environments import MINATAR_GAMES
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.dqn_lambda_study"
TRAIN = "official_models.rl.dqn_lambda.train"
TRAIN_A3C = "official_models.rl.dqn_lambda.a3c.train"
SCORES = ("evaluation", "training")
LAMBDAS = tuple(f"lambda={x}" for x in ("0", "0.25", "0.5", "0.75", "1"))
RULES = ("lambda_rule=median", "lambda_rule=bounded")
PARTS = {
    "lambda": (*LAMBDAS, *RULES),
    "partial": ("history=1", "history=4", "network=drqn,history=4"),
    "a3c": (*LAMBDAS, *RULES),
}
TUNING_SEEDS = (101, 102)
# Adam with LAMB's schedule, batch and weight decay, which is 0.
RATES = {
    "optimizer=lamb": ("0.0025", "0.005", "0.01", "0.02", "0.04"),
    "optimizer=adamw": ("1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2"),
}


class OutOfTime(Exception):
    """The hours are over before the next run."""


def run(folder, setting, game, seed, extra, module=TRAIN, end=None):
    """The report of a run, which is trained first if it is not there.

    Args:
      folder: of the study.
      setting: flags, a comma between two.
      game: of MinAtar.
      seed: of the run.
      extra: flags of every run.
      module: that trains.
      end: by `time.monotonic`; a run that was begun is finished.

    Raises:
      OutOfTime: it would have to be trained, and the time is up.
      InputError: the training failed, or its report is damaged.
    """
    given = *extra, *setting.split(",")
    name = "-".join(given).replace("=", "_").replace("/", "_")
    # The training runs in the project's folder, which need not be this one.
    target = Path.cwd() / folder / game / name / f"seed_{seed}"
    flags = [f"--{flag}" for flag in given]
    path = target / "report.json"
    if not path.exists():
        if end is not None and time.monotonic() >= end:
            raise OutOfTime(str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        ended = subprocess.run(
            [sys.executable, "-m", module, *flags]
            + [f"--game=minatar/{game}", f"--seed={seed}"]
            + [f"--output_dir={target}"],
            cwd=measure.ROOT,
            env=measure.environment(**measure.ONE_THREAD),
        )
        if ended.returncode:
            raise InputError(
                f"{target}: its training ended with status {ended.returncode}; "
                "what it printed is above"
            )
    remedy = "remove it, and the same command evaluates this run again"
    report = files.read_json(path, remedy)
    if not isinstance(report, dict) or not {*SCORES} <= report.keys():
        raise InputError(f"{path}: lacks {' or '.join(SCORES)}; {remedy}")
    return report


def score(report):
    """{which: mean return} of a run.

    Raises:
      InputError: no episode of its training has ended.
    """
    training = report["training"]["mean_return"]
    if training is None:
        raise InputError(
            f"{report['flags']['output_dir']}: no episode of its training has "
            "ended, expected one and more; give --flags steps=... and a higher "
            "number"
        )
    return {"evaluation": report["evaluation"]["mean"], "training": training}


def interquartile_mean(values):
    """The mean of the middle half; of a row, where there are several."""
    from scipy import stats

    return stats.trim_mean(values, 0.25, axis=-1)


def interval(by_game, rng, samples=2000):
    """95% interval of the interquartile mean, by a stratified bootstrap.

    Args:
      by_game: a list of [seeds], the scores of each game.
      rng: draws the samples.
      samples: how many.

    Returns:
      Lower and upper end; None if a game has one seed: it would be certain.
    """
    if min(map(len, by_game)) < 2:
        return None
    drawn = [
        np.asarray(x)[rng.integers(len(x), size=(samples, len(x)))]
        for x in by_game
    ]
    means = interquartile_mean(np.concatenate(drawn, axis=-1))
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def summary(runs):
    """Rows of settings, for each game and for all together.

    Args:
      runs: [{"setting", "game", "seed", "evaluation", "training"}].
    """
    games = list(dict.fromkeys(r["game"] for r in runs))
    settings = list(dict.fromkeys(r["setting"] for r in runs))
    rows = []
    for which in SCORES:
        scale = {
            g: float(np.mean([r[which] for r in runs if r["game"] == g]))
            for g in games
        }
        groups = [(g, [g], {g: 1.0}) for g in games]
        if len(games) > 1:
            told = [g for g in games if scale[g]]
            groups.append(("all, by the game's mean", told, scale))
        for name, members, by in groups:
            for setting in settings:
                scores = [
                    [
                        r[which] / by[g]
                        for r in runs
                        if r["game"] == g and r["setting"] == setting
                    ]
                    for g in members
                ]
                scores = [x for x in scores if x]
                if not scores:
                    continue
                every = np.concatenate(scores)
                rng = np.random.default_rng(0)
                rows.append(
                    {
                        "score": which,
                        "game": name,
                        "setting": setting,
                        "runs": len(every),
                        "iqm": float(interquartile_mean(every)),
                        "interval_95": interval(scores, rng),
                    }
                )
    return rows


def markdown(rows):
    """The table of the rows."""
    body = []
    for row in rows:
        ends = row["interval_95"]
        shown = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "-"
        cells = row["game"], row["setting"], row["runs"], f"{row['iqm']:.2f}"
        body.append((row["score"], *cells, shown))
    head = ("score", "game", "setting", "runs", "IQM", "95% interval")
    return measure.table(head, body)


def plot(rows, path):
    """Interquartile means with their intervals, a panel for each game."""
    from matplotlib.figure import Figure

    rows = [r for r in rows if r["score"] == "evaluation"]
    games = list(dict.fromkeys(r["game"] for r in rows))
    figure = Figure(figsize=(4.5 * len(games), 3.5), layout="constrained")
    panels = figure.subplots(1, len(games), squeeze=False)[0]
    for axes, game in zip(panels, games):
        found = [r for r in rows if r["game"] == game]
        for i, row in enumerate(found):
            low, high = row["interval_95"] or (row["iqm"], row["iqm"])
            axes.plot([low, high], [i, i], color="tab:blue", linewidth=4)
            axes.plot(row["iqm"], i, "ok")
        names = [f"{r['setting']} ({r['runs']})" for r in found]
        axes.set_yticks(range(len(found)), names)
        axes.set(xlabel="return, interquartile mean", title=game)
        axes.grid(alpha=0.3)
    files.save_figure(path, figure)


def main(argv=None):
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument("--folder", default="runs/dqn-study")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--settings", nargs="+")
    what.add_argument("--part", choices=[*PARTS, "optimizers"])
    parser.add_argument("--games", nargs="+", default=["breakout"])
    parser.add_argument("--seeds", type=command_line.count, default=5)
    parser.add_argument(
        "--flags", nargs="*", default=[], help="of every run, without dashes"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON, and a plot beside it"
    )
    parser.add_argument(
        "--hours",
        type=float,
        help="after which no run is begun; the same command does the others",
    )
    args = parser.parse_args(argv)
    _check(parser, args)
    try:
        study(args)
    except InputError as error:
        refuse(str(error))


def _check(parser, args):
    """Refuses, before hours of runs, what would spoil them."""
    if args.hours is not None and not args.hours > 0:
        parser.error(f"--hours {args.hours:g}: expected a number above 0")
    for flag in (*args.flags, *",".join(args.settings or []).split(",")):
        name = flag.partition("=")[0]
        if name in ("game", "seed", "output_dir"):
            parser.error(
                f"{flag}: each run has a {name} of its own; see --games, "
                "--seeds, --folder"
            )
    for name in ("games", "settings"):
        given = getattr(args, name) or []
        for value in given:
            if given.count(value) > 1:
                parser.error(
                    f"--{name}: {value} is there twice, and its runs would be "
                    "counted twice; give it once"
                )
    for game in args.games:
        if game not in MINATAR_GAMES:
            parser.error(
                f"--games {game}: expected some of {', '.join(MINATAR_GAMES)}"
            )
    if args.output and args.output.suffix == ".png":
        parser.error(
            f"--output {args.output}: that is the plot's name; give the JSON's"
        )


def tuning(train, games, tuning_seeds=TUNING_SEEDS):
    """How well each rate of each optimizer trained.

    Args:
      train: (setting, game, seed) -> a report.
      games: a rate counts by its training returns on all of them, each
        divided by its game's mean over all rates of all optimizers. Games
        in which every run returned 0 do not count.
      tuning_seeds: on which nothing else is run.

    Returns:
      {setting: mean over games and seeds}.

    Raises:
      InputError: every run returned 0 in every game.
    """
    found = {
        setting: [
            [
                score(train(setting, game, seed))["training"]
                for seed in tuning_seeds
            ]
            for game in games
        ]
        for optimizer in RATES
        for setting in _of_rates(optimizer)
    }
    means = np.mean(list(found.values()), axis=(0, 2), keepdims=True)[0]
    told = means[:, 0] != 0
    if not told.any():
        raise InputError(
            f"--games {' '.join(games)}: every run of every rate returned 0, "
            "which tells no rate from another; give other games, or more steps "
            "by --flags"
        )
    return {
        setting: float(np.mean((np.array(x)[told] / means[told])))
        for setting, x in found.items()
    }


def _of_rates(optimizer):
    return [f"{optimizer},learning_rate={rate}" for rate in RATES[optimizer]]


def tuned(scores):
    """Of each optimizer, the setting that trained best, by `tuning`.

    One at an end of its rates is said: a better one may lie beyond, and its
    optimizer would then be tuned less well than the other.
    """
    best = []
    for optimizer in RATES:
        settings = _of_rates(optimizer)
        best.append(max(settings, key=scores.get))
        if best[-1] in (settings[0], settings[-1]):
            print(
                f"{best[-1]} trained best and is at the end of the rates tried:"
                " a better one may lie beyond"
            )
    return best


def study(args):
    """Runs what is missing, seed by seed, and writes after each run.

    It ends with the table of what there is, when the time is up as well.
    """
    module = TRAIN_A3C if args.part == "a3c" else TRAIN
    folder = Path(args.folder) / ("a3c" if args.part == "a3c" else "")
    end = args.hours and time.monotonic() + 3600 * args.hours

    def train(setting, game, seed):
        return run(folder, setting, game, seed, args.flags, module, end)

    runs, rows, beside = [], [], {}
    settings = args.settings or PARTS.get(args.part)
    try:
        if settings is None:
            beside["tuning"] = tuning(train, args.games)
            settings = tuned(beside["tuning"])
        for seed in range(1, args.seeds + 1):
            for game in args.games:
                for setting in settings:
                    report = train(setting, game, seed)
                    where = {"setting": setting, "game": game, "seed": seed}
                    runs.append({**where, **score(report)})
                    print(json.dumps(runs[-1]), flush=True)
                    rows = summary(runs)
                    if args.output:
                        write(
                            args.output, {"rows": rows, "runs": runs, **beside}
                        )
    except OutOfTime as missing:
        print(
            f"the time is up before {missing}; the same command does what is "
            "missing"
        )
    if rows:
        print(markdown(rows))


def write(path, found):
    """The JSON of what was found, and its plot beside it."""
    measure.write_json(path, {"provenance": measure.provenance(), **found})
    plot(found["rows"], path.with_suffix(".png"))


if __name__ == "__main__":
    main()
