"""What an actor computes, against TensorFlow; a gridworld is solved."""

import threading
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.rl.dqn_lambda import networks, returns
from official_models.rl.dqn_lambda.a3c import actor, policy
from official_models.rl.dqn_lambda.a3c.actor import Actor, Job
from official_models.rl.dqn_lambda.a3c.learner import Learner, Shared
from official_models.rl.dqn_lambda.agent import sampling_policy
from official_models.rl.dqn_lambda.networks import Shape
from tests.official_models.rl.dqn_lambda.test_agent import GridWorld


def job_of(network, **changes):
    suite = network.name.partition(".")[0]
    job = Job(
        game="minatar/breakout",
        seeds=[1, 2],
        history=1,
        rollout=5,
        shapes=[list(v.shape) for v in network.trainable_variables],
        strides=networks.strides(suite),
        scale=networks.scale(suite),
        gamma=0.9,
        lambda_=0.8,
        lambda_rule="fixed",
        max_td_error=0.02,
        entropy_cost=0.03,
        value_cost=0.4,
        seed=1,
        number=0,
    )
    return job._replace(**changes)


def actor_critic(game, shape):
    """One whose policy is not near to uniform."""
    network = networks.make_actor_critic(game, shape, seed=1)
    kernel = network.get_layer("policy").kernel
    kernel.assign(30 * kernel)
    return network


class Seen(NamedTuple):
    """What games gave an actor."""

    frames: np.ndarray  # [T + 1, E, ...]
    rewards: np.ndarray  # [T, E]
    dones: np.ndarray


class Scripted:
    """Games of random frames, rewards and ends, which they remember."""

    clips_rewards = False

    def __init__(self, suite, shape, count):
        self.suite, self.frame_shape = suite, shape.frame
        self.actions, self._count = shape.actions, count
        self._rng = np.random.default_rng(0)
        self.seen = [], [], []

    def reset(self):
        top = 255 if self.suite == "atari" else 2
        size = self._count, *self.frame_shape
        self.seen[0].append(self._rng.integers(0, top, size, "uint8"))
        return self.seen[0][-1]

    def step(self, actions):
        self.seen[1].append(self._rng.normal(size=self._count).astype("f4"))
        self.seen[2].append(self._rng.random(self._count) < 0.3)
        return self.reset(), self.seen[1][-1], self.seen[2][-1]

    def all(self):
        return Seen(*map(np.stack, self.seen))


@pytest.mark.parametrize(
    ("game", "shape", "rule"),
    [
        ("minatar/breakout", Shape((6, 5, 3), 1, 4), "fixed"),
        ("minatar/breakout", Shape((6, 5, 3), 1, 4), "median"),
        ("minatar/breakout", Shape((6, 5, 3), 1, 4), "bounded"),
        ("atari/seaquest", Shape((44, 40, 2), 1, 5), "fixed"),
    ],
)
def test_a_gradient_is_that_of_the_loss(game, shape, rule):
    """By TensorFlow's tape over the Keras network and the written-out loss."""
    network = actor_critic(game, shape)
    shared = Shared(network, keras.optimizers.SGD(1.0))
    job = job_of(network, lambda_rule=rule)
    games = Scripted(game.partition("/")[0], shape, 2)
    rollout = Actor(job, games).rollout(shared.weights())
    seen = games.all()
    assert seen.dones.any()
    variables = network.trainable_variables
    with tf.GradientTape() as tape:
        logits, values = network(seen.frames.reshape(-1, *shape.frame))
        logits = tf.reshape(logits, (6, 2, -1))[:-1]
        values = tf.reshape(values, (6, 2))
        v = values.numpy()
        given = seen.rewards.T, seen.dones.T, v[1:].T, 0.9
        target = {
            "fixed": lambda: returns.lambda_returns(*given, 0.8),
            "median": lambda: returns.median_returns(*given),
            "bounded": lambda: returns.bounded_returns(
                *given[:3], v[:-1].T, 0.9, 0.02
            )[0],
        }[rule]().T
        log_pi = tf.nn.log_softmax(logits)
        taken = tf.gather(log_pi, rollout.actions.astype("int32"), batch_dims=2)
        entropy = -tf.reduce_sum(tf.exp(log_pi) * log_pi, -1)
        terms = (
            -(target - v[:-1]) * taken,
            tf.square(target - values[:-1]),
            entropy,
        )
        loss = sum(
            factor * tf.reduce_sum(x)
            for factor, x in zip((1, 0.4, -0.03), terms)
        )
        loss /= 2  # the mean over two games
    found = np.split(
        rollout.gradient, np.cumsum([np.prod(s) for s in job.shapes])[:-1]
    )
    for variable, a, b in zip(variables, found, tape.gradient(loss, variables)):
        b = np.ravel(b)
        scale = np.abs(b).max()
        assert scale > 0
        np.testing.assert_allclose(
            a, b, rtol=1e-3, atol=1e-4 * scale, err_msg=variable.path
        )
    expected = [np.mean(x) for x in terms]
    np.testing.assert_allclose(rollout.losses, expected, rtol=1e-3, atol=1e-5)


def test_lambda_1_is_the_published_return():
    """The discounted sum of rewards up to the end of the rollout, then V."""
    network = actor_critic("minatar/breakout", Shape((6, 5, 3), 1, 4))
    job = job_of(network, lambda_=1.0)
    worker = Actor(job, Scripted("minatar", Shape((6, 5, 3), 1, 4), 2))
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(5, 2)).astype("f4")
    dones, values = rng.random((5, 2)) < 0.2, rng.normal(size=(6, 2))
    found = worker._targets(rewards, dones, values)
    following = values[-1]
    for i in reversed(range(5)):
        following = rewards[i] + 0.9 * following * (1 - dones[i])
        np.testing.assert_allclose(found[i], following, rtol=1e-5)


def test_actions_are_drawn_from_the_policy():
    logits = np.log(np.array([[0.1, 0.2, 0.7]])).repeat(30_000, axis=0)
    drawn = policy.sample(logits, np.random.default_rng(0))
    shares = np.bincount(drawn) / len(drawn)
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.01)
    inputs = keras.Input((1, 1, 1), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
    network = keras.Model(inputs, [keras.layers.Dense(3)(x)] * 2)
    network.trainable_variables[1].assign(logits[0])
    acted = sampling_policy(network, 0)(np.zeros((30_000, 1, 1, 1), "uint8"))
    shares = np.bincount(acted) / len(acted)
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.01)


def test_an_actor_repeats_and_replays():
    """By its job, its weights and its rollouts' numbers alone."""
    network = actor_critic("minatar/breakout", Shape((10, 10, 4), 1, 6))
    weights = Shared(network, keras.optimizers.SGD(1.0)).weights()
    job = job_of(network, rollout=30)
    whole = Actor(job)
    first = [whole.rollout(weights) for _ in range(4)]
    assert sum(len(x.scores) for x in first) > 2
    again = Actor(job)
    scores = again.replay(np.stack([x.actions for x in first[:3]]))
    for a, b in zip(scores, first):
        np.testing.assert_array_equal(a, b.scores)
    for a, b in zip(again.rollout(weights), first[3]):
        np.testing.assert_array_equal(a, b)
    for changes in ({"seed": 2}, {"number": 1}):
        other = Actor(job._replace(**changes)).rollout(weights)
        assert (other.actions != first[0].actions).any()


def test_what_is_sent_is_what_arrives():
    """More than a pipe holds, in parts; then the end."""
    reading, writing = actor.os.pipe()
    array = np.random.default_rng(0).normal(size=50_000)
    sender = threading.Thread(target=actor.write_list, args=(writing, array))
    sender.start()
    np.testing.assert_array_equal(actor.read_list(reading, "<f8"), array)
    sender.join()
    actor.write_all(writing, b"123")
    actor.os.close(writing)
    with pytest.raises(EOFError):
        actor.read_exactly(reading, 4)
    actor.os.close(reading)


@pytest.mark.parametrize("lambda_", [0.9])
def test_a_gridworld_is_solved(lambda_):
    """By three actors whose gradients are of weights two updates old: the
    policy takes a shortest way, V is near to the optimal values."""
    shape = Shape((4, 4, 1), 1, 4)
    network = networks.make_actor_critic("minatar/breakout", shape, 1)
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(network.trainable_variables)
    shared = Shared(network, optimizer)
    jobs = [
        job_of(
            network,
            seeds=[0] * 8,
            rollout=10,
            number=number,
            lambda_=lambda_,
            entropy_cost=0.01,
            value_cost=0.5,
        )
        for number in range(3)
    ]
    learner = Learner(shared, jobs)
    workers = [Actor(job, GridWorld(8)) for job in jobs]
    given = [shared.weights()] * 3
    for update in range(600):
        number = update % 3
        rollout = workers[number].rollout(given[number])
        given[number] = learner.apply(number, rollout)
        learner.sent(number)
    assert learner.steps == 600 * 80 and learner.take()[0] > 1.9
    fields = [(y, x) for y in range(4) for x in range(4)][:-1]
    frames = np.zeros((15, 4, 4, 1), "uint8")
    frames[(np.arange(15), *np.array(fields).T)] = 1
    logits, values = (x.numpy() for x in network(frames))
    distances = np.array([6 - y - x for y, x in fields])
    moved = np.array(fields) + GridWorld.MOVES[logits.argmax(axis=1)]
    assert (6 - moved.clip(0, 3).sum(axis=1) == distances - 1).all()
    optimal = 0.9 ** (distances - 1.0)
    np.testing.assert_allclose(values[:, 0], optimal, atol=0.1)
