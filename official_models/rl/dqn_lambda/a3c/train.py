r"""A3C(lambda) on MinAtar or Atari: several actors, one network.

    python -m official_models.rl.dqn_lambda.a3c.train
    python -m official_models.rl.dqn_lambda.a3c.train --lambda 1 \
        --output_dir runs/a3c
    python -m official_models.rl.dqn_lambda.a3c.train --actors 1 \
        --optimizer rmsprop --learning_rate 7e-4 --beta_2 0.99 --epsilon 0.1 \
        --warmup_ratio 0 --output_dir runs/a3c-rmsprop

Without flags: MinAtar Breakout, 400,000 transitions, four actors, LAMB.
README.md in the folder above has what was measured. A run that was stopped, by
a kill too, goes on with the same command: with one actor to the bit; with
several, the order in which gradients arrive is another each time.
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
from official_models.common.errors import InputError
from official_models.rl.dqn_lambda import evaluation, script
from official_models.rl.dqn_lambda.a3c import options
from official_models.rl.dqn_lambda.a3c.actors import Actors
from official_models.rl.dqn_lambda.a3c.learner import Learner, RunState
from official_models.rl.dqn_lambda.agent import sampling_policy
from official_models.rl.dqn_lambda.script import METRICS, RECENT
from tf_lamb.callbacks import StepTable, read_table

FLAGS = flags.FLAGS
_COLUMNS = (
    *("return", "episodes", "policy_loss", "value_loss", "entropy"),
    *("age", "steps_per_second"),
)


def define_flags() -> None:
    """Defines this script's flags."""
    options.define_flags()
    for module in (run_flags, optimizers, options):
        flags.adopt_module_key_flags(module)  # for --help


def fit(learner: Learner, folder: Path) -> None:
    """Trains what is left of a run."""
    shape = learner.shared.network.output_shape
    state = RunState(folder, learner, shape[0][-1])
    restored = state.restore()
    with (
        Actors(learner.jobs) as actors,
        tqdm(
            total=FLAGS.steps,
            unit=" steps",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 15,
        ) as bar,
    ):
        order, played = restored or ([], [np.zeros(0, "u1")] * FLAGS.actors)
        replayed = [iter(scores) for scores in actors.replay(played)]
        for number in order:
            learner.count(next(replayed[number]))
        # Made anew where it is missing or damaged.
        table = StepTable(folder / METRICS, _COLUMNS, learner.steps)
        if restored:
            script.check_replayed(learner, folder / METRICS)
            bar.write(f"{folder}: resuming from step {learner.steps}.")
        bar.update(learner.steps)
        _train(learner, actors, state, table, bar)


def _train(
    learner: Learner, actors: Actors, state: RunState, table: StepTable, bar
) -> None:
    end, began = options.updates(), time.perf_counter()
    logged = learner.updates
    if learner.updates == end:
        return
    weights = learner.shared.weights()
    for number in range(len(learner.jobs)):
        learner.sent(number)
        actors.send(number, weights)
    for number, rollout in actors.arrivals():
        weights = learner.apply(number, rollout)
        bar.update(learner.per_update)
        last = learner.updates == end
        if learner.updates % FLAGS.log_every == 0 or last:
            now = time.perf_counter()
            played = (learner.updates - logged) * learner.per_update
            rate = played / (now - began)
            began, logged = now, learner.updates
            row = metrics(learner, rate)
            if "return" in row:
                bar.set_postfix(
                    {"return": f"{row['return']:.2f}"}, refresh=False
                )
            table.write(learner.steps, row)
        if learner.updates % FLAGS.save_every == 0 or last:
            state.save()
        if last:
            return
        learner.sent(number)
        actors.send(number, weights)


def metrics(learner: Learner, rate: float) -> dict[str, float]:
    """A row of metrics.csv, of the updates since the last one.

    Args:
        learner: After these updates.
        rate: Transitions a second.

    Raises:
        InputError: A loss or a weight is not finite.
    """
    age, losses = learner.take()
    if not np.isfinite(losses).all():
        raise InputError(
            f"the losses are {losses.tolist()} before step {learner.steps}; "
            "give a lower --learning_rate or a longer --warmup_ratio"
        )
    # Those of the last update are in no loss yet.
    if not np.isfinite(learner.shared.weights()).all():
        raise InputError(
            f"the weights are not finite at step {learner.steps}; give a lower "
            "--learning_rate or a longer --warmup_ratio"
        )
    row = dict(zip(_COLUMNS[2:5], map(float, losses)))
    row |= {"age": age, "steps_per_second": round(rate)}
    row["episodes"] = len(learner.scores)
    mean = script.recent_return(learner)
    return row if mean is None else row | {"return": mean}


def finish(learner: Learner, folder: Path) -> dict[str, Any]:
    """Evaluates, records an episode and writes the report; gives it."""
    network = learner.shared.network
    with files.replacing(folder / "model.keras") as temporary:
        network.save(temporary)
    # What the policy gives is drawn from it; nothing is random beside that.
    play = {"game": FLAGS.game, "history": learner.jobs[0].history}
    scores = evaluation.evaluate(
        sampling_policy(network, 0),
        **play,
        episodes=FLAGS.eval_episodes,
        epsilon=0.0,
    ).as_json()
    shown, length = evaluation.record(
        sampling_policy(network, 0),
        **play,
        path=folder / "episode.gif",
        epsilon=0.0,
    )
    trained = [score for _, score in learner.scores]
    late = FLAGS.steps - FLAGS.steps // 10
    last = [score for step, score in learner.scores if step > late]
    columns = read_table(folder / METRICS)
    # None, if the table was lost after the last update.
    ages, rates = (
        [x for _, x in columns.get(name, [])]
        for name in ("age", "steps_per_second")
    )
    figures = {
        **report.environment(),
        "flags": run_flags.values(),
        "parameters": network.count_params(),
        "training": {
            **script.returns(trained, last),
            "mean_age": float(np.mean(ages)) if ages else None,
            "median_steps_per_second": (
                float(np.median(rates)) if rates else None
            ),
        },
        "evaluation": scores,
        "episode_gif": {"return": shown, "frames": length},
    }
    panels = {
        "return": f"return, mean of {RECENT} episodes",
        "value_loss": "mean squared error of V",
        "entropy": "entropy of the policy",
    }
    report.write(
        folder,
        figures,
        picture="learning_curve.png",
        # No episode may have ended.
        panels={k: label for k, label in panels.items() if columns.get(k)},
        title=f"{FLAGS.game}, A3C, {FLAGS.optimizer.upper()}",
    )
    return figures


def main(_) -> None:
    """Trains what is left, evaluates, and reports."""
    script.run(options, fit, finish)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
