r"""Records an episode of a trained network, and evaluates it.

    python -m official_models.rl.dqn_lambda.play --checkpoint runs/dqn-lambda
    python -m official_models.rl.dqn_lambda.play --episodes 100 \
        --checkpoint runs/dqn-lambda/model.keras --output breakout.gif

Which game it plays is in the checkpoint. Seeds are those of the evaluation that
ends a training, unless --seed says otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
from absl import flags, logging

from official_models.common import errors, weights
from official_models.common.errors import InputError, first_line
from official_models.rl.dqn_lambda import (
    environments,
    evaluation,
    networks,
    script,
)
from official_models.rl.dqn_lambda.agent import greedy_policy, sampling_policy

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    flags.DEFINE_string(
        "checkpoint", None, "A model.keras, or the folder of a run."
    )
    flags.DEFINE_string("game", None, "The checkpoint's own, or left out.")
    flags.DEFINE_string(
        "output", None, "The GIF; by default episode.gif beside the checkpoint."
    )
    flags.DEFINE_float(
        "epsilon",
        None,
        "Share of random actions. Default: 0.05; 0 of A3C, whose actions are "
        "drawn from its policy.",
        0,
        1,
    )
    flags.DEFINE_integer("seed", 0, "Seed of the games.", 0, 2**32 - 1)
    flags.DEFINE_integer(
        "episodes", 0, "Episodes of an evaluation; 0 for none.", 0
    )
    flags.DEFINE_integer("longest", 1_000, "Actions of the recording.", 1)


def read(path: Path) -> tuple[keras.Model, str, int]:
    """A checkpoint's network, its game, and the frames of its observations.

    Args:
        path: A model.keras that `train` wrote.

    Raises:
        InputError: It cannot be read, or is another network.
    """
    where = f"--checkpoint {path}"
    model = weights.read_keras(path, where)
    suite, _, rest = model.name.partition(".")
    game = f"{suite}/{rest.partition('.')[0]}"
    if suite not in environments.SUITES or len(model.inputs) != 1:
        raise InputError(
            f"{where}: holds the network {model.name!r}, not one of DQN(lambda)"
            "; expected a model.keras of official_models.rl.dqn_lambda.train"
        )
    games = environments.make(game, [0])
    height, width, channels = games.frame_shape
    values = model.output_shape
    values = values[0] if is_actor_critic(model) else values
    found = (*model.input_shape[1:], values[-1])
    history = max(found[-2] // channels, 1)
    expected = height, width, channels * history, games.actions
    if found != expected:
        raise InputError(
            f"{where}: a network of height, width, channels and actions "
            f"{found}, expected {expected} for {game}; train it on this game"
        )
    return model, game, history


def is_actor_critic(model: keras.Model) -> bool:
    """Whether A3C trained it: it has logits and values."""
    kind = model.name.rpartition(".")[2]
    return kind == networks.ACTOR_CRITIC and len(model.outputs) == 2


def _check_output(path: Path) -> None:
    """Refuses, before anything is played, a file that cannot be written."""
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: its folder does not exist")
    if path.is_dir():
        raise InputError(f"--output {path}: a folder, expected a GIF's name")
    if path.suffix.lower() != ".gif":
        raise InputError(
            f"--output {path}: expected a name that ends with .gif"
        )


def main(_) -> None:
    """Records an episode, and evaluates if asked to."""
    logging.set_verbosity(logging.WARNING)
    script.need_tensorflow()
    if not FLAGS.checkpoint:
        raise InputError(
            "--checkpoint is missing: a model.keras, or the folder of a run"
        )
    if FLAGS.episodes == 1:
        raise InputError("--episodes 1: expected 0, or 2 and more")
    path = Path(FLAGS.checkpoint)
    path = path / "model.keras" if path.is_dir() else path
    model, game, history = read(path)
    if FLAGS.game not in (None, game):
        environments.make(FLAGS.game, [0])  # names what is nearest
        raise InputError(
            f"--game {FLAGS.game}: --checkpoint {path} is a network of {game}; "
            "leave --game out"
        )
    output = Path(FLAGS.output or path.with_name("episode.gif"))
    _check_output(output)
    drawn = is_actor_critic(model)
    epsilon = FLAGS.epsilon
    if epsilon is None:
        epsilon = 0.0 if drawn else 0.05
    chosen = {"epsilon": epsilon, "seed": FLAGS.seed}

    def policy():
        return sampling_policy(model, 0) if drawn else greedy_policy(model)

    try:
        total, frames = evaluation.record(
            policy(), game, history, output, longest=FLAGS.longest, **chosen
        )
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be written: {first_line(error)}; name "
            "another file"
        ) from error
    print(f"{output}: {game}, return {total:g}, {frames} frames")
    if FLAGS.episodes:
        scores = evaluation.evaluate(
            policy(), game, history, episodes=FLAGS.episodes, **chosen
        ).as_json()
        print(json.dumps(scores))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
