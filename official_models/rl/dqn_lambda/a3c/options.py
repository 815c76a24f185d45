"""The flags of an A3C(lambda) run: what fits together, and what they make."""

from __future__ import annotations

from absl import flags

from official_models.common import flags as run_flags
from official_models.common import optimizers
from official_models.common.errors import InputError
from official_models.rl.dqn_lambda import environments, networks, returns
from official_models.rl.dqn_lambda.a3c.actor import LAMBDA_RULES, Job
from official_models.rl.dqn_lambda.a3c.learner import Learner, Shared

FLAGS = flags.FLAGS
_HISTORY = {"minatar": 1, "atari": 4}


def define_flags() -> None:
    """Defines the flags of `train`."""
    run_flags.define_flags(output_dir="runs/a3c-lambda")
    optimizers.define_flags(
        learning_rate=0.01,
        warmup_ratio=0.1,
        weight_decay=0.0,
        exclusions=("biases_and_norms",),
        global_clipnorm=40.0,
        more=("rmsprop",),
    )
    flags.DEFINE_string(
        "game", "minatar/breakout", "Such as minatar/breakout, atari/seaquest."
    )
    _define_returns()
    _define_lengths()
    whole = flags.DEFINE_integer
    whole("eval_episodes", 30, "Episodes of the evaluation.", 2)
    whole("log_every", 100, "Updates of a row of metrics.csv.", 1)
    whole("save_every", 1_000, "Updates between two checkpoints.", 1)
    run_flags.without_effect("eval_episodes", "log_every", "save_every")


def _define_returns() -> None:
    real = flags.DEFINE_float
    real("lambda", 0.9, "Lambda of the fixed rule; 1 is the published A3C.")
    flags.DEFINE_enum(
        "lambda_rule",
        "fixed",
        LAMBDA_RULES,
        "How lambda is chosen: --lambda; the median return over 21 of them; "
        "for each rollout of a game the largest with a TD error within "
        "--max_td_error.",
    )
    real(
        "max_td_error", 0.025, "Largest mean squared TD error of a rollout.", 0
    )
    real("gamma", 0.99, "Discount of a step.", 0, 1)
    real("entropy_cost", 0.01, "Factor of the entropy in the loss.", 0)
    real("value_cost", 0.5, "Factor of the values' squared error.", 0)


def _define_lengths() -> None:
    whole = flags.DEFINE_integer
    whole("history", None, "Frames of an observation; 1 on MinAtar, 4 else.", 1)
    whole("actors", 4, "Processes that play and send gradients.", 1, 255)
    whole("environments", 4, "Games that each actor plays.", 1)
    whole("rollout", 20, "Transitions of a game between two gradients.", 1)
    whole("steps", 400_000, "Transitions of the whole run.", 1)


def check() -> None:
    """Refuses what does not fit together, or would have no effect.

    Raises:
        InputError: Names the flag.
    """
    returns.check_lambda(FLAGS["lambda"].value)
    rule = FLAGS.lambda_rule
    for name, of in (("lambda", "fixed"), ("max_td_error", "bounded")):
        if rule != of and FLAGS[name].value != FLAGS[name].default:
            raise InputError(
                f"--{name}: has no effect with --lambda_rule {rule}; leave it "
                "out"
            )
    if FLAGS.gradient_accumulation_steps > 1:
        raise InputError(
            "--gradient_accumulation_steps: each gradient is applied when it "
            "arrives; leave it out, and give more --environments"
        )
    size = FLAGS.rollout * FLAGS.environments
    if FLAGS.steps % size:
        raise InputError(
            f"--steps {FLAGS.steps}: expected a multiple of --rollout "
            f"{FLAGS.rollout} times --environments {FLAGS.environments}, {size}"
        )
    if FLAGS.save_every % FLAGS.log_every:
        raise InputError(
            f"--save_every {FLAGS.save_every}: expected a multiple of "
            f"--log_every {FLAGS.log_every}"
        )


def updates() -> int:
    """Of the flags' run."""
    return FLAGS.steps // (FLAGS.rollout * FLAGS.environments)


def make_learner() -> Learner:
    """Everything of the flags' run, before its first update.

    Raises:
        InputError: A flag is out of range.
    """
    count = FLAGS.environments
    seeds = environments.seeds_of(FLAGS.seed, FLAGS.actors * count, 0)
    games = environments.make(FLAGS.game, seeds[:1])
    history = FLAGS.history or _HISTORY[games.suite]
    shape = networks.Shape(games.frame_shape, history, games.actions)
    network = networks.make_actor_critic(FLAGS.game, shape, FLAGS.seed)
    variables = network.trainable_variables
    with run_flags.naming_the_flag():
        optimizer = optimizers.from_flags(updates())
        optimizers.build(optimizer, variables)
    jobs = [
        Job(
            game=FLAGS.game,
            seeds=seeds[number * count : (number + 1) * count],
            history=history,
            rollout=FLAGS.rollout,
            shapes=[list(v.shape) for v in variables],
            strides=networks.strides(games.suite),
            scale=networks.scale(games.suite),
            gamma=FLAGS.gamma,
            lambda_=FLAGS["lambda"].value,
            lambda_rule=FLAGS.lambda_rule,
            max_td_error=FLAGS.max_td_error,
            entropy_cost=FLAGS.entropy_cost,
            value_cost=FLAGS.value_cost,
            seed=FLAGS.seed,
            number=number,
        )
        for number in range(FLAGS.actors)
    ]
    return Learner(Shared(network, optimizer), jobs)
