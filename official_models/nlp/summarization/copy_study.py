r"""The copy task between agents: with messages, and without.

    python -m official_models.nlp.summarization.copy_study \
        --output_dir runs/copy --hours 1

Agent 1 has keys and values, agent 3 the key whose value has to be copied
(`copy_task`). Networks with as many parameters are trained with messages, and
with messages of zero, by each of --optimizers and with each seed. A run is a
file: the same command does those that are missing. copy.json has
those that are done, copy.png their curves.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from absl import flags, logging

from official_models.common import errors, files, report, run_folder
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.common.store import Store, complete
from official_models.nlp.summarization import copy_training
from official_models.nlp.summarization.copy_training import Setting, Trainer

FLAGS = flags.FLAGS
# Adam's was chosen on seed 0, LAMB's was not tried.
_RATES = {"lamb": 0.03, "adam": 0.005}
WITH, WITHOUT = "with messages", "without"


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(output_dir="runs/copy")
    flags.adopt_module_key_flags(run_flags)  # for --help
    integer, floating = flags.DEFINE_integer, flags.DEFINE_float
    flags.DEFINE_list(
        "optimizers",
        ["adam"],
        f"What trains, of {', '.join(copy_training.OPTIMIZERS)}.",
    )
    floating(
        "learning_rate",
        None,
        "Highest rate of all --optimizers. Default: 0.03 of lamb, 0.005 of "
        "adam.",
    )
    integer("updates", 1000, "Updates of a run; hundreds.", 100)
    integer("global_batch_size", 32, "Examples an update.", 1)
    integer("pairs", 3, "Keys and values of agent 1; chance is 1 / pairs.", 2)
    integer("keys", 3, "Different keys, --pairs or more.", 2)
    integer("hidden_size", 32, "Width of the LSTMs and of words.", 1)
    integer("contextual_layers", 2, "Layers in which agents send messages.", 1)
    floating("initializer_range", 0.4, "Deviation of new matrices.")
    integer("test_examples", 3000, "New ones that are measured.", 1)
    integer("seeds", 3, "Runs of each kind, from --seed on.", 1)
    flags.DEFINE_boolean("jit_compile", True, "Compile the updates by XLA.")
    floating(
        "hours",
        None,
        "Hours of this start: no run begins after them. Default: no limit.",
    )
    # What they select is in the names of the files.
    run_flags.without_effect("optimizers", "seed", "seeds", "hours")


def settings() -> list[Setting]:
    """The runs of the flags, those of a kind together.

    Raises:
        InputError: A flag is out of range.
    """
    if FLAGS.updates % 100:
        raise InputError(
            f"--updates {FLAGS.updates}: expected a multiple of 100"
        )
    if FLAGS.keys < FLAGS.pairs:
        raise InputError(
            f"--keys {FLAGS.keys}: expected at least --pairs {FLAGS.pairs}, so "
            "that a part has no key twice"
        )
    for name in ("learning_rate", "initializer_range"):
        value = FLAGS[name].value
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} {value:g}: expected a number above 0")
    for name in FLAGS.optimizers or [""]:
        if name not in copy_training.OPTIMIZERS:
            raise InputError(
                f"--optimizers {name}: expected some of "
                f"{', '.join(copy_training.OPTIMIZERS)}"
            )
    return [
        Setting(
            communicate,
            seed,
            name,
            FLAGS.learning_rate or _RATES[name],
            FLAGS.updates,
            FLAGS.global_batch_size,
            *(FLAGS.pairs, FLAGS.keys, FLAGS.hidden_size),
            *(FLAGS.contextual_layers, FLAGS.initializer_range),
            FLAGS.test_examples,
        )
        for name in FLAGS.optimizers
        for communicate in (True, False)
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    ]


def run_all(
    chosen: list[Setting], store: Store, rows: list[dict[str, Any]]
) -> None:
    """What `Trainer.run` gives of each, and what it was.

    Args:
        chosen: Of `settings`.
        store: Of the results.
        rows: Takes them, one by one.

    Raises:
        OutOfTime: The hours are over.
    """
    trainers: dict[tuple, Trainer] = {}

    def run(setting: Setting) -> dict[str, Any]:
        kind = (setting.optimizer, setting.communicate)
        if kind not in trainers:
            trainers.clear()  # those of a kind are together
            trainers[kind] = Trainer(setting, FLAGS.jit_compile)
        found = trainers[kind].run(setting)
        print(f"{_name(setting)}: {found['accuracy']:.1%} right", flush=True)
        return found

    for setting in chosen:
        found = store.get(_name(setting), lambda setting=setting: run(setting))
        kind = WITH if setting.communicate else WITHOUT
        rows.append(
            {
                "optimizer": setting.optimizer,
                "messages": kind,
                "learning_rate": setting.learning_rate,
                "seed": setting.seed,
                **found,
            }
        )


def _name(setting: Setting) -> str:
    kind = "messages" if setting.communicate else "none"
    return f"{setting.optimizer}-{kind}-{setting.seed}"


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy of each kind of run: mean, least and most over seeds."""
    kinds: dict[tuple, list] = {}
    for row in rows:
        kinds.setdefault((row["optimizer"], row["messages"]), []).append(row)
    return [
        {
            "optimizer": optimizer,
            "messages": messages,
            "parameters": found[0]["parameters"],
            "seeds": [row["seed"] for row in found],
            "mean": statistics.fmean(row["accuracy"] for row in found),
            "least": min(row["accuracy"] for row in found),
            "most": max(row["accuracy"] for row in found),
        }
        for (optimizer, messages), found in kinds.items()
    ]


def show(found: list[dict[str, Any]], pairs: int) -> str:
    """The summary in lines."""
    lines = [f"chance {1 / pairs:.1%}"]
    lines += [
        f"{x['optimizer']:5} {x['messages']:14} {x['mean']:7.1%} "
        f"({x['least']:.1%} to {x['most']:.1%}; {len(x['seeds'])} seeds; "
        f"{x['parameters']:,} parameters)"
        for x in found
    ]
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], pairs: int, path: Path) -> None:
    """Share of right answers by update, a panel an optimizer."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["optimizer"] for row in rows))
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    colors = {WITH: "tab:blue", WITHOUT: "tab:orange"}
    for axes, name in zip(panels, names):
        for messages, color in colors.items():
            found = [
                row["curve"]
                for row in rows
                if (row["optimizer"], row["messages"]) == (name, messages)
            ]
            for i, curve in enumerate(found):
                x, _, y = zip(*curve)
                label = None if i else messages
                axes.plot(x, [100 * v for v in y], color=color, label=label)
        axes.axhline(100 / pairs, color="black", linestyle=":", label="chance")
        axes.set(title=name.upper(), xlabel="updates", ylabel="right (%)")
        axes.grid(alpha=0.3)
    panels[0].legend()
    files.save_figure(path, figure)


def main(_) -> None:
    """Trains what is missing, then writes all."""
    logging.set_verbosity(logging.WARNING)
    run_folder.need_local(FLAGS.output_dir)
    chosen = settings()
    run_folder.check_flags(FLAGS.output_dir, run_flags.identity())
    folder = run_folder.open_run(FLAGS.output_dir, run_flags.identity())
    run_folder.record_run(folder, run_flags.identity())
    store = Store(folder / "runs", FLAGS.hours)
    rows: list[dict[str, Any]] = []
    complete(lambda: run_all(chosen, store, rows), folder)
    if not rows:
        return
    found = summary(rows)
    figures = {
        "runs_missing": len(chosen) - len(rows),
        "summary": found,
        "chance": 1 / FLAGS.pairs,
        "runs": rows,
        "flags": run_flags.values(),
        "measured": report.environment(),
    }
    files.write_json(folder / "copy.json", figures)
    plot(rows, FLAGS.pairs, folder / "copy.png")
    print(show(found, FLAGS.pairs))
    print(f"\n{folder}: copy.json, copy.png.")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
