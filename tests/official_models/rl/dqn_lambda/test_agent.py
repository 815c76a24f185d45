"""Networks, what the agent computes of blocks, games; a gridworld is solved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.rl.dqn_lambda import (
    environments,
    evaluation,
    learning,
    networks,
    replay,
    returns,
)
from official_models.rl.dqn_lambda.agent import Agent
from official_models.rl.dqn_lambda.networks import Shape
from official_models.rl.dqn_lambda.replay import Replay
from tests.official_models.scripts import refusal


def dense_agent(shape, component_clip=1e9, rate=1.0):
    """Linear in the frames, so that what it computes can be written out."""
    inputs = keras.Input(shape.observation, dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
    keras.utils.set_random_seed(0)
    network = keras.Model(inputs, keras.layers.Dense(shape.actions)(x))
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build(network.trainable_variables)
    return Agent(network, optimizer, shape, component_clip)


def blocks_of(shape, count=3, length=6):
    rng = np.random.default_rng(0)
    memory = Replay(200, 2, shape.frame, shape.history, length)
    for _ in range(40):
        memory.append(
            rng.integers(0, 9, (2, *shape.frame), "uint8"),
            rng.integers(shape.actions, size=2),
            rng.normal(size=2),
            rng.random(2) < 0.2,
        )
    return memory.sample(rng, count)


def stacked(blocks, row, i, history):
    """State i's observation, frame by frame."""
    frames = [
        blocks.frames[row, i + k] * blocks.seen[row, i, k]
        for k in range(history)
    ]
    return np.concatenate(frames, axis=-1)


@pytest.mark.parametrize("history", [1, 3])
def test_the_values_of_a_block_set_in_one_call(history):
    shape = Shape((3, 2, 2), history, 4)
    agent, blocks = dense_agent(shape), blocks_of(shape)
    found = agent.values(blocks)
    assert found.shape == (3, 7, 4) and found.dtype == np.float32
    kernel, bias = (v.numpy() for v in agent.network.trainable_variables)
    for row in range(3):
        for i in range(7):
            x = stacked(blocks, row, i, history).ravel()
            np.testing.assert_allclose(
                found[row, i], x @ kernel + bias, rtol=1e-4, atol=1e-4
            )
    # XLA compiled it, once for all sets of this size.
    agent.values(blocks_of(shape))
    assert agent._values.experimental_get_tracing_count() == 1
    assert agent._values._jit_compile


def test_an_update_is_the_gradient_of_the_mean_squared_error():
    history, limit = 2, 0.4
    shape = Shape((2, 2, 1), history, 3)
    blocks = blocks_of(shape)
    targets = np.random.default_rng(1).normal(size=(3, 6)).astype("float32")
    batch = np.array([0, 7, 17, 17])  # the last ones of blocks, one twice
    for component_clip in (limit, 1e9, 0):
        agent = dense_agent(shape, component_clip, rate=0.5)
        before = [v.numpy() for v in agent.network.trainable_variables]
        q = agent.values(blocks)
        kernel, bias = np.zeros((8, 3)), np.zeros(3)
        errors = []
        for index in batch:
            row, i = divmod(int(index), 6)
            action = blocks.actions[row, i]
            errors.append(q[row, i, action] - targets[row, i])
            slope = 2 * errors[-1] / len(batch)
            kernel[:, action] += slope * stacked(blocks, row, i, 2).ravel()
            bias[action] += slope
        losses = agent.train(blocks, targets, batch[None])
        assert losses[0] == pytest.approx(np.square(errors).mean(), rel=1e-4)
        assert np.abs(kernel).max() > limit
        after = [v.numpy() for v in agent.network.trainable_variables]
        for old, new, gradient in zip(before, after, (kernel, bias)):
            bound = component_clip or np.inf
            step = 0.5 * gradient.clip(-bound, bound)
            np.testing.assert_allclose(old - new, step, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "game", "shape", "expected"),
    [
        (
            "cnn",
            "minatar/breakout",
            Shape((10, 10, 4), 1, 6),
            [(3, 3, 4, 16), (16,), (1024, 128), (128,), (128, 6), (6,)],
        ),
        (
            "cnn",
            "atari/seaquest",
            Shape((84, 84, 1), 4, 18),
            [
                *((8, 8, 4, 32), (32,), (4, 4, 32, 64), (64,)),
                *((3, 3, 64, 64), (64,), (3136, 512), (512,), (512, 18), (18,)),
            ],
        ),
        (
            "drqn",
            "atari/seaquest",
            Shape((84, 84, 1), 2, 18),
            [
                *((8, 8, 1, 32), (32,), (4, 4, 32, 64), (64,)),
                *((3, 3, 64, 64), (64,), (3136, 2048), (512, 2048), (2048,)),
                *((512, 18), (18,)),
            ],
        ),
    ],
)
def test_networks(kind, game, shape, expected):
    network = networks.make(kind, game, shape, seed=1)
    found = [tuple(v.shape) for v in network.trainable_variables]
    assert found == expected
    assert network.output_shape == (None, shape.actions)
    frames = np.full((1, *shape.observation), 255, "uint8")
    scaled = network.get_layer("scale")(frames).numpy()
    assert scaled.max() == (1 if game.startswith("atari") else 255)


def test_the_recurrent_network_reads_frames_in_their_order():
    """It is its LSTM over what one frame's convolutions give, from zero."""
    shape = Shape((4, 4, 2), 3, 5)
    network = networks.make("drqn", "minatar/breakout", shape, seed=1)
    frames = np.random.default_rng(0).integers(0, 2, (2, 3, 4, 4, 2), "uint8")
    lstm, conv = network.get_layer("lstm"), None
    for layer in network.layers:
        if isinstance(layer, keras.layers.TimeDistributed):
            conv = conv or layer.layer
    features = [
        conv(f.astype("float32")).numpy().reshape(2, -1)
        for f in frames.transpose(1, 0, 2, 3, 4)
    ]
    state = [tf.zeros((2, 128)), tf.zeros((2, 128))]
    for x in features:
        output, state = lstm.cell(tf.constant(x), state)
    expected = network.get_layer("values")(output)
    observations = frames.transpose(0, 2, 3, 1, 4).reshape(2, 4, 4, 6)
    np.testing.assert_allclose(
        network(observations), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("game", ["minatar/asterix", "atari/qbert"])
def test_games_repeat_by_their_seeds(game):
    def play(seeds):
        games = environments.make(game, seeds)
        frames, found = games.reset(), []
        rng = np.random.default_rng(0)
        for _ in range(60):
            actions = rng.integers(games.actions, size=2).astype("uint8")
            found.append((frames, *games.step(actions)[1:]))
            frames = games.step(actions)[0]
        again = games.reset()
        np.testing.assert_array_equal(again, found[0][0])
        assert frames.dtype == np.uint8
        assert frames.shape == (2, *games.frame_shape)
        return [np.stack(x) for x in zip(*found)]

    first, same, other = play([1, 2]), play([1, 2]), play([3, 4])
    for a, b in zip(first, same):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).any()
    if game.startswith("minatar"):
        assert first[2].any()  # an episode ended, and the next began


def test_names_of_games():
    for name, near in (
        ("minatar/brekout", "minatar/breakout"),
        ("Seaquest", "atari/seaquest"),
        ("atari/q_bert", "atari/qbert"),
        ("", "minatar/asterix"),
    ):
        refusal(lambda name=name: environments.make(name, [0]), name, near)
    assert environments.seeds_of(1, 3, 0) != environments.seeds_of(1, 3, 1)
    assert len(set(environments.seeds_of(1, 50, 0))) == 50


class GridWorld:
    """4 x 4 fields, four moves, 1 for the last corner, where it ends.

    An optimal value is gamma ** (moves to the corner - 1).
    """

    suite, frame_shape, actions, clips_rewards = "minatar", (4, 4, 1), 4, False
    MOVES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])

    def __init__(self, count):
        self._rng, self._count = np.random.default_rng(0), count

    def reset(self):
        self._at = np.zeros((self._count, 2), int)
        return self._frames()

    def step(self, actions):
        self._at = (self._at + self.MOVES[actions]).clip(0, 3)
        dones = self._at.sum(axis=1) == 6
        starts = self._rng.integers(15, size=self._count)
        self._at[dones] = np.stack(np.divmod(starts, 4), -1)[dones]
        return self._frames(), dones.astype("float32"), dones

    def _frames(self):
        frames = np.zeros((self._count, 4, 4, 1), "uint8")
        frames[np.arange(self._count), self._at[:, 0], self._at[:, 1]] = 1
        return frames


def test_a_gridworld_is_solved():
    """Values of all 15 fields near the optimal ones, and the moves that have
    them."""
    settings = learning.Settings(
        *(2_200, 200, 100, 500, 10, 50, 1_000, 0.2, 0.3, 1)
    )
    shape = Shape((4, 4, 1), 1, 4)
    network = networks.make("cnn", "minatar/breakout", shape, 1)
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(network.trainable_variables)
    learner = learning.Learner(
        settings,
        learning.Estimator("watkins", 0.8, gamma=0.9),
        GridWorld(5),
        Agent(network, optimizer, shape, 40.0),
        Replay(1_000, 5, (4, 4, 1), 1, 10),
    )
    learner.collect(0)
    for period in range(1, settings.periods + 1):
        learner.train(period)
        learner.collect(period)
    assert learner.steps == settings.steps
    fields = [(y, x) for y in range(4) for x in range(4)][:-1]
    frames = np.zeros((15, 4, 4, 1), "uint8")
    frames[(np.arange(15), *np.array(fields).T)] = 1
    q = network(frames).numpy()
    distances = np.array([6 - y - x for y, x in fields])
    np.testing.assert_allclose(q.max(axis=1), 0.9 ** (distances - 1), atol=0.06)
    moved = np.array(fields) + GridWorld.MOVES[q.argmax(axis=1)]
    assert (6 - moved.clip(0, 3).sum(axis=1) == distances - 1).all()
    # Returns of episodes: one each.
    assert {score for _, score in learner.scores} == {1.0}


def test_which_returns_a_block_set_gets():
    shape = Shape((2, 2, 1), 1, 3)
    blocks = blocks_of(shape)
    q = np.random.default_rng(2).normal(size=(3, 7, 3)).astype("float32")
    best = q.max(axis=-1)
    given = blocks.rewards, blocks.dones, best[:, 1:], 0.9
    taken = np.array(
        [[q[n, i, blocks.actions[n, i]] for i in range(6)] for n in range(3)]
    )
    np.testing.assert_array_equal(learning.taken_values(blocks, q), taken)
    greedy = taken == best[:, :-1]
    assert 0 < greedy.mean() < 1
    textbook = returns.watkins_trace(greedy)
    published = returns.watkins_trace(greedy, "published")
    for options, expected in (
        ({}, returns.lambda_returns(*given, 0.4)),
        ({"kind": "watkins"}, returns.lambda_returns(*given, 0.4 * textbook)),
        (
            {"kind": "watkins_published"},
            returns.lambda_returns(*given, 0.4 * published),
        ),
        ({"kind": "n_step", "n": 2}, returns.n_step_returns(*given, 2)),
        ({"rule": "median"}, returns.median_returns(*given)),
        (
            {"rule": "median", "kind": "watkins"},
            returns.median_returns(*given, textbook),
        ),
        (
            {"rule": "bounded", "limit": 0.9},
            returns.bounded_returns(*given[:3], taken, 0.9, 0.9)[0],
        ),
    ):
        found = learning.Estimator(lambda_=0.4, gamma=0.9, **options)(blocks, q)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_epsilon_falls_after_the_prepopulation():
    settings = learning.Settings(100, 20, 10, 10, 5, 5, 40, 0.1, 0.0, 1)
    steps = (0, 20, 40, 60, 99)
    found = [settings.epsilon(step) for step in steps]
    np.testing.assert_allclose(found, [1, 1, 0.55, 0.1, 0.1])
    assert settings.periods == 8 and settings.minibatches == (2, 5)
    draws = {
        float(settings.random(purpose, period).random())
        for purpose in range(3)
        for period in range(4)
    }
    assert len(draws) == 12


class Countdown:
    """Game i lasts i + 1 steps, a reward of 1 each; then 100 a step."""

    suite, frame_shape, actions, clips_rewards = "minatar", (1, 1, 1), 2, False

    def __init__(self, seeds):
        self._left = np.arange(len(seeds)) + 1

    def reset(self):
        return np.zeros((len(self._left), 1, 1, 1), "uint8")

    def step(self, actions):
        rewards = np.where(self._left > 0, 1.0, 100.0)
        self._left -= 1
        return self.reset(), rewards, self._left == 0


def test_an_evaluation_counts_the_first_episode_of_each_game(monkeypatch):
    monkeypatch.setattr(
        environments, "make", lambda name, seeds: Countdown(seeds)
    )
    policy = lambda x: np.zeros(len(x), int)  # noqa: E731
    found = evaluation.evaluate(policy, "", 1, episodes=4, longest=3)
    assert found.returns == [1, 2, 3, 3] and found.cut == 1
    figures = found.as_json()
    assert figures["mean"] == 2.25 and figures["episodes"] == 4
    deviation = np.std([1, 2, 3, 3], ddof=1)
    assert figures["standard_error"] == pytest.approx(deviation / 2)
    assert evaluation.evaluate(policy, "", 1, episodes=4).cut == 0


def test_priority_reaches_the_minibatches(monkeypatch):
    """It is of the difference of return and value, and falls to 0."""
    drawn = []
    real = replay.draw

    def draw(rng, errors, priority, shape):
        drawn.append((errors, priority))
        return real(rng, errors, priority, shape)

    monkeypatch.setattr(replay, "draw", draw)
    settings = learning.Settings(80, 40, 20, 20, 5, 10, 40, 0.1, 0.6, 1)
    shape = Shape((4, 4, 1), 1, 4)
    learner = learning.Learner(
        settings,
        learning.Estimator(lambda_=0.0, gamma=0.9),
        GridWorld(2),
        dense_agent(shape, rate=0.0),
        Replay(100, 2, (4, 4, 1), 1, 5),
    )
    learner.collect(0)
    for period in (1, 2):
        learner.train(period)
        learner.collect(period)
    assert [priority for _, priority in drawn] == [0.6, 0.3]
    blocks = learner.memory.sample(settings.random(1, 2), 4)
    # The memory has grown since: only the shape is the same.
    assert drawn[1][0].shape == blocks.rewards.shape
    assert (drawn[1][0] >= 0).all()
