"""The flags of a DQN(lambda) run: what fits together, and what they make."""

from __future__ import annotations

from absl import flags

from official_models.common import flags as run_flags
from official_models.common import optimizers
from official_models.common.errors import InputError
from official_models.rl.dqn_lambda import (
    environments,
    learning,
    networks,
    returns,
)
from official_models.rl.dqn_lambda.agent import Agent
from official_models.rl.dqn_lambda.replay import Replay

FLAGS = flags.FLAGS
_HISTORY = {"minatar": 1, "atari": 4}


def define_flags() -> None:
    """Defines the flags of `train`."""
    run_flags.define_flags(output_dir="runs/dqn-lambda")
    optimizers.define_flags(
        learning_rate=0.01,
        warmup_ratio=0.1,
        weight_decay=0.0,
        exclusions=("biases_and_norms",),
        global_clipnorm=0.0,
    )
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
        "component_clip",
        40.0,
        "Largest component of the gradient (of each part's, where it is "
        "accumulated); 0 for no clipping.",
        0,
    )


def _define_evaluation() -> None:
    whole = flags.DEFINE_integer
    whole("eval_episodes", 30, "Episodes of the evaluation.", 2)
    flags.DEFINE_float(
        "eval_epsilon", 0.05, "Random actions in the evaluation.", 0, 1
    )
    whole("save_every", 5, "Refreshes between two checkpoints.", 1)
    run_flags.without_effect("eval_episodes", "eval_epsilon", "save_every")


def check() -> None:
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
    played, needed = FLAGS.prepopulate // FLAGS.environments, FLAGS.block_size
    if played <= needed:
        raise InputError(
            f"--prepopulate {FLAGS.prepopulate}: {played} transitions of each "
            f"of --environments {FLAGS.environments}, expected at least "
            f"{(needed + 1) * FLAGS.environments}, as a block is --block_size "
            f"{needed} and the state after it"
        )
    played = FLAGS.steps - FLAGS.prepopulate
    if played <= 0 or played % FLAGS.refresh_every:
        raise InputError(
            f"--steps {FLAGS.steps}: expected --prepopulate "
            f"{FLAGS.prepopulate} and a multiple of --refresh_every "
            f"{FLAGS.refresh_every}"
        )


def make_learner() -> learning.Learner:
    """Everything of the flags' run, before its first action.

    Raises:
        InputError: A flag is out of range.
    """
    parts = FLAGS.gradient_accumulation_steps
    names = set(learning.Settings._fields) - {"parts"}
    settings = learning.Settings(
        **{name: FLAGS[name].value for name in names}, parts=parts
    )
    games = environments.make(
        FLAGS.game, environments.seeds_of(FLAGS.seed, FLAGS.environments, 0)
    )
    history = FLAGS.history or _HISTORY[games.suite]
    if FLAGS.network == "drqn" and history == 1:
        raise InputError(
            "--network drqn: its LSTM reads --history 1 frame and has nothing "
            "to remember; give --history 2 or more"
        )
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
        optimizer = optimizers.from_flags(settings.periods * settings.updates)
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
