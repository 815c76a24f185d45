r"""DQN(lambda) on MinAtar or Atari, by LAMB or others.

    python -m official_models.rl.dqn_lambda.train
    python -m official_models.rl.dqn_lambda.train --lambda 0 \
        --output_dir runs/dqn-one-step
    python -m official_models.rl.dqn_lambda.train --optimizer adamw \
        --batch_size 32 --learning_rate 5e-4 --epsilon 1e-4 --weight_decay 0 \
        --warmup_ratio 0 --end_learning_rate 5e-4 --output_dir runs/dqn-adam

Without flags: MinAtar Breakout, 60,000 transitions, Peng's returns, LAMB.
README.md beside this file has what was measured. A run that was stopped, by a
kill too, goes on with the same command.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from official_models.common import errors, files, optimizers, report
from official_models.common import flags as run_flags
from official_models.rl.dqn_lambda import (
    evaluation,
    learning,
    options,
    run_state,
    script,
)
from official_models.rl.dqn_lambda.script import METRICS, RECENT
from tf_lamb.callbacks import StepTable, read_table

FLAGS = flags.FLAGS
_COLUMNS = ("return", "episodes", "loss", "epsilon", "steps_per_second")


def define_flags() -> None:
    """Defines this script's flags."""
    options.define_flags()
    for module in (run_flags, optimizers, options):
        flags.adopt_module_key_flags(module)  # for --help


def fit(learner: learning.Learner, folder: Path) -> None:
    """Trains what is left of a run."""
    settings = learner.settings
    with tqdm(
        total=settings.steps,
        unit=" steps",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15,
    ) as bar:
        state = run_state.RunState(folder, learner)
        done = state.restore(bar.update)
        bounded = learner.estimator.rule == "bounded"
        columns = _COLUMNS + learning.OF_LAMBDAS * bounded
        table = StepTable(folder / METRICS, columns, learner.steps)
        if done is None:
            learner.collect(0, bar.update)
        else:
            script.check_replayed(learner, folder / METRICS)
            bar.write(f"{folder}: resuming from step {learner.steps}.")
        for period in range((done or 0) + 1, settings.periods + 1):
            began = time.perf_counter()
            loss = learner.train(period)
            learner.collect(period, bar.update)
            row = {
                "episodes": len(learner.scores),
                "loss": loss,
                "epsilon": settings.epsilon(learner.steps),
                "steps_per_second": round(
                    settings.refresh_every / (time.perf_counter() - began)
                ),
            }
            row |= learner.of_lambdas()
            mean = script.recent_return(learner)
            if mean is not None:
                row["return"] = mean
                bar.set_postfix({"return": f"{mean:.2f}"}, refresh=False)
            table.write(learner.steps, row)
            if period % FLAGS.save_every == 0 or period == settings.periods:
                state.save(period)


def finish(learner: learning.Learner, folder: Path) -> dict[str, Any]:
    """Evaluates, records an episode and writes the report; gives it."""
    agent, settings = learner.agent, learner.settings
    with files.replacing(folder / "model.keras") as temporary:
        agent.network.save(temporary)
    play = FLAGS.game, agent.shape.history
    scores = evaluation.evaluate(
        agent.act,
        *play,
        episodes=FLAGS.eval_episodes,
        epsilon=FLAGS.eval_epsilon,
    ).as_json()
    shown, length = evaluation.record(
        agent.act, *play, folder / "episode.gif", epsilon=FLAGS.eval_epsilon
    )
    trained = [x for step, x in learner.scores if step > settings.prepopulate]
    late = settings.steps - (settings.steps - settings.prepopulate) // 10
    last = [x for step, x in learner.scores if step > late]
    figures = {
        **report.environment(),
        "flags": run_flags.values(),
        "parameters": agent.network.count_params(),
        "bytes_per_transition": learner.memory.bytes_per_transition,
        "training": script.returns(trained, last),
        "evaluation": scores,
        "episode_gif": {"return": shown, "frames": length},
    }
    panels = {
        "return": f"return, mean of {RECENT} episodes",
        "loss": "mean squared error",
    }
    columns = read_table(folder / METRICS)
    if bounded := {
        name: float(np.mean([x for _, x in columns[name]]))
        for name in learning.OF_LAMBDAS
        if columns.get(name)
    }:
        figures["lambda"] = bounded
        _say_if_out_of_scale(bounded["share_of_lambda_0"])
    report.write(
        folder,
        figures,
        picture="learning_curve.png",
        # No episode may have ended.
        panels={k: label for k, label in panels.items() if columns.get(k)},
        title=f"{FLAGS.game}, {FLAGS.returns}, {FLAGS.optimizer.upper()}",
    )
    return figures


def _say_if_out_of_scale(share: float) -> None:
    """Says that a bound is so low that it made most returns one-step's.

    A game's rewards decide how large TD errors are.
    """
    if share > 0.5:
        print(
            f"--max_td_error {FLAGS.max_td_error:g}: lambda was 0 in "
            f"{share:.0%} of the blocks, as their one-step returns were off by "
            "more already; a higher one lets the rule choose"
        )


def main(_) -> None:
    """Trains what is left, evaluates, and reports."""
    script.run(options, fit, finish)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
