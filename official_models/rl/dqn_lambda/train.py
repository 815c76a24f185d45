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

import keras
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from official_models.common import errors, files, optimizers, report, run_folder
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.rl.dqn_lambda import (
    environments,
    evaluation,
    learning,
    networks,
    returns,
    run_state,
)
from official_models.rl.dqn_lambda.agent import Agent
from official_models.rl.dqn_lambda.replay import Replay
from tf_lamb.callbacks import StepTable, read_table

FLAGS = flags.FLAGS
REPORT, METRICS = "report.json", "metrics.csv"
_RECENT = 100  # episodes that the screen and metrics.csv tell the mean of
_COLUMNS = ("return", "episodes", "loss", "epsilon", "steps_per_second")
_HISTORY = {"minatar": 1, "atari": 4}


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(output_dir="runs/dqn-lambda")
    optimizers.define_flags(
        learning_rate=0.01,
        warmup_ratio=0.1,
        weight_decay=0.0,
        exclusions=("biases_and_norms",),
        global_clipnorm=0.0,
    )
    for module in (run_flags, optimizers):
        flags.adopt_module_key_flags(module)  # for --help
    flags.DEFINE_string(
        "game", "minatar/breakout", "Such as minatar/breakout, atari/seaquest."
    )
    flags.DEFINE_enum("network", "cnn", networks.NETWORKS, "The network.")
    _define_returns()
    _define_lengths()
    _define_evaluation()


def _define_returns() -> None:
    real = flags.DEFINE_float
    flags.DEFINE_enum(
        "returns",
        "peng",
        learning.RETURNS,
        "The returns; watkins_published cuts one action too early, as the "
        "published code does.",
    )
    real("lambda", 0.75, "Lambda of the fixed rule, from 0 to 1.")
    flags.DEFINE_enum(
        "lambda_rule",
        "fixed",
        learning.LAMBDA_RULES,
        "How lambda is chosen: --lambda; the median return over 21 of them; "
        "for each block the largest with a TD error within --max_td_error.",
    )
    real("max_td_error", 0.025, "Largest mean squared TD error of a block.", 0)
    flags.DEFINE_integer("n", 3, "Steps of --returns n_step.", 1)
    real("gamma", 0.99, "Discount of a step.", 0, 1)
    real(
        "priority", 0.0, "Direct priority in the beginning, from 0 to 1.", 0, 1
    )


def _define_lengths() -> None:
    whole = flags.DEFINE_integer
    whole("history", None, "Frames of an observation; 1 on MinAtar, 4 else.", 1)
    whole("environments", 10, "Games that are played side by side.", 1)
    whole("steps", 60_000, "Transitions of the whole run.", 1)
    whole("prepopulate", 5_000, "Transitions that are played at random.", 1)
    whole("refresh_every", 1_000, "Transitions between two refreshes.", 1)
    whole("cache_size", 8_000, "Transitions of a refreshed cache.", 1)
    whole("block_size", 100, "Transitions of a block.", 1)
    whole(
        "batch_size",
        256,
        "Transitions of a minibatch; --cache_size by it, rounded down, is how "
        "many follow a refresh.",
        1,
    )
    whole("replay_capacity", 100_000, "Transitions that are remembered.", 1)
    whole("epsilon_steps", 6_000, "Transitions in which epsilon falls.", 1)
    flags.DEFINE_float("epsilon_end", 0.1, "Random actions in the end.", 0, 1)
    flags.DEFINE_float(
        "component_clip", 40.0, "Largest component of the gradient.", 0
    )


def _define_evaluation() -> None:
    whole = flags.DEFINE_integer
    whole("eval_episodes", 30, "Episodes of the evaluation.", 2)
    flags.DEFINE_float(
        "eval_epsilon", 0.05, "Random actions in the evaluation.", 0, 1
    )
    whole("save_every", 5, "Refreshes between two checkpoints.", 1)
    run_flags.without_effect("eval_episodes", "eval_epsilon", "save_every")


def check_flags() -> None:
    """Refuses what does not fit together, or would have no effect.

    Raises:
        InputError: Names the flag.
    """
    returns.check_lambda(FLAGS["lambda"].value)
    n_step = FLAGS.returns == "n_step"
    for name, read in (
        ("lambda", not n_step and FLAGS.lambda_rule == "fixed"),
        ("lambda_rule", not n_step),
        ("max_td_error", not n_step and FLAGS.lambda_rule == "bounded"),
        ("n", n_step),
    ):
        if not read and FLAGS[name].value != FLAGS[name].default:
            raise InputError(
                f"--{name}: has no effect with --returns {FLAGS.returns} "
                f"--lambda_rule {FLAGS.lambda_rule}; leave it out"
            )
    parts = FLAGS.gradient_accumulation_steps
    for name, divisor, of in (
        ("batch_size", parts, "--gradient_accumulation_steps"),
        ("cache_size", FLAGS.block_size, "--block_size"),
        ("prepopulate", FLAGS.environments, "--environments"),
        ("refresh_every", FLAGS.environments, "--environments"),
    ):
        if FLAGS[name].value % divisor:
            raise InputError(
                f"--{name} {FLAGS[name].value}: expected a multiple of {of} "
                f"{divisor}"
            )
    if FLAGS.batch_size > FLAGS.cache_size:
        raise InputError(
            f"--batch_size {FLAGS.batch_size}: expected at most the "
            f"--cache_size {FLAGS.cache_size}"
        )
    played = FLAGS.steps - FLAGS.prepopulate
    if played <= 0 or played % FLAGS.refresh_every:
        raise InputError(
            f"--steps {FLAGS.steps}: expected --prepopulate "
            f"{FLAGS.prepopulate} and a multiple of --refresh_every "
            f"{FLAGS.refresh_every}"
        )
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"KERAS_BACKEND {keras.backend.backend()}: this script needs "
            "tensorflow"
        )


def make_learner() -> learning.Learner:
    """Everything of the flags' run, before its first action.

    Raises:
        InputError: A flag is out of range.
    """
    parts = FLAGS.gradient_accumulation_steps
    values = {name: FLAGS[name].value for name in learning.Settings._fields}
    values["batch_size"] //= parts
    settings = learning.Settings(**values)
    games = environments.make(
        FLAGS.game, environments.seeds_of(FLAGS.seed, FLAGS.environments, 0)
    )
    history = FLAGS.history or _HISTORY[games.suite]
    memory = Replay(
        FLAGS.replay_capacity,
        FLAGS.environments,
        games.frame_shape,
        history,
        FLAGS.block_size,
    )
    shape = networks.Shape(games.frame_shape, history, games.actions)
    network = networks.make(FLAGS.network, FLAGS.game, shape, FLAGS.seed)
    with run_flags.naming_the_flag():
        optimizer = optimizers.from_flags(
            settings.periods * settings.batches // parts
        )
        optimizers.build(optimizer, network.trainable_variables)
    agent = Agent(network, optimizer, shape, FLAGS.component_clip)
    estimator = learning.Estimator(
        FLAGS.returns,
        FLAGS["lambda"].value,
        FLAGS.lambda_rule,
        FLAGS.max_td_error,
        FLAGS.n,
        FLAGS.gamma,
    )
    return learning.Learner(settings, estimator, games, agent, memory)


def recent_return(learner: learning.Learner) -> float | None:
    """Mean return of the last episodes that ended; None before the first."""
    last = [score for _, score in learner.scores[-_RECENT:]]
    return float(np.mean(last)) if last else None


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
        table = StepTable(folder / METRICS, _COLUMNS, learner.steps)
        if done is None:
            learner.collect(0, bar.update)
        else:
            check_replayed(learner, folder / METRICS)
            bar.write(f"{folder}: resuming from step {learner.steps}.")
        for period in range((done or 0) + 1, settings.periods + 1):
            began = time.perf_counter()
            loss = learner.train(period)
            learner.collect(period, bar.update)
            if not np.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} after step {learner.steps}; give a "
                    "lower --learning_rate or a longer --warmup_ratio"
                )
            row = {
                "episodes": len(learner.scores),
                "loss": loss,
                "epsilon": settings.epsilon(learner.steps),
                "steps_per_second": round(
                    settings.refresh_every / (time.perf_counter() - began)
                ),
            }
            mean = recent_return(learner)
            if mean is not None:
                row["return"] = mean
                bar.set_postfix({"return": f"{mean:.2f}"}, refresh=False)
            table.write(learner.steps, row)
            if period % FLAGS.save_every == 0 or period == settings.periods:
                state.save(period)


def check_replayed(learner: learning.Learner, path: Path) -> None:
    """Refuses to go on where the games did not repeat what they did.

    Args:
        learner: After `RunState.restore`.
        path: Of metrics.csv.

    Raises:
        InputError: Another number of episodes has ended than then.
    """
    rows = dict(read_table(path).get("episodes", []))
    then, now = rows.get(learner.steps), len(learner.scores)
    if then is not None and then != now:
        raise InputError(
            f"{path}: {then:.0f} episodes had ended at step {learner.steps}, "
            f"played again it is {now}; go on with the versions of the games "
            "that the run began with, or name another --output_dir"
        )


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
        "training": {
            "episodes": len(trained),
            "mean_return": float(np.mean(trained)) if trained else None,
            "mean_return_of_last_tenth": float(np.mean(last)) if last else None,
        },
        "evaluation": scores,
        "episode_gif": {"return": shown, "frames": length},
    }
    panels = {
        "return": f"return, mean of {_RECENT} episodes",
        "loss": "mean squared error",
    }
    columns = read_table(folder / METRICS)
    report.write(
        folder,
        figures,
        picture="learning_curve.png",
        # No episode may have ended.
        panels={k: label for k, label in panels.items() if columns.get(k)},
        title=f"{FLAGS.game}, {FLAGS.returns}, {FLAGS.optimizer.upper()}",
    )
    return figures


def main(_) -> None:
    """Trains what is left, evaluates, and reports."""
    logging.set_verbosity(logging.WARNING)
    if files.is_remote(FLAGS.output_dir):
        raise InputError(
            f"--output_dir {FLAGS.output_dir}: this script writes its files "
            "here; name a local folder"
        )
    check_flags()
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    identity = run_flags.identity()
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    if (folder / REPORT).exists():
        figures = files.read_json(folder / REPORT, "remove it to run again")
    else:
        learner = make_learner()
        run_folder.record_run(folder, identity)
        fit(learner, folder)
        figures = finish(learner, folder)
    scores, training = figures["evaluation"], figures["training"]
    print(
        f"{folder}: mean return {scores['mean']:.2f} ± "
        f"{scores['standard_error']:.2f} over {scores['episodes']} episodes "
        f"({scores['cut']} cut); in training {training['mean_return']}; "
        f"{REPORT}, model.keras, learning_curve.png, episode.gif"
    )


if __name__ == "__main__":
    define_flags()
    errors.run(main)
