"""DQN(lambda): plays, refreshes a cache of returns, trains on it, and so on.

A period has `refresh_every` transitions. At its beginning, blocks are drawn
from the replay memory, the network's values of all their states give their
returns, and minibatches are drawn from these C transitions, whose returns stay
what they are: there is no target network. Then the period is played with the
network as it is.

Whatever is random is drawn from a generator of (seed, purpose, period), so that
no state of one has to be saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from official_models.common.errors import InputError
from official_models.rl.dqn_lambda import replay, returns
from official_models.rl.dqn_lambda.agent import Agent
from official_models.rl.dqn_lambda.environments import Games, Histories
from official_models.rl.dqn_lambda.replay import Blocks, Replay

RETURNS = ("peng", "watkins", "watkins_published", "n_step")
LAMBDA_RULES = ("fixed", "median", "bounded")
# What is said of the lambdas of a refresh's blocks, where the rule is bounded.
OF_LAMBDAS = ("mean_lambda", "share_of_lambda_0")
_PLAY, _BLOCKS, _BATCHES = range(3)  # purposes


class Estimator(NamedTuple):
    """Which returns a block set gets.

    Attributes:
        kind: One of `RETURNS`.
        lambda_: Of the fixed rule.
        rule: One of `LAMBDA_RULES`.
        limit: Of the bounded rule: the largest mean squared TD error.
        n: Steps of n-step returns.
        gamma: Discount.
    """

    kind: str = "peng"
    lambda_: float = 0.75
    rule: str = "fixed"
    limit: float = 0.025
    n: int = 3
    gamma: float = 0.99

    def __call__(self, blocks: Blocks, q: np.ndarray) -> np.ndarray:
        """Returns [N, T] of blocks by Q of their states, [N, T + 1, A]."""
        return self.with_lambdas(blocks, q)[0]

    def with_lambdas(
        self, blocks: Blocks, q: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The same, and the lambdas [N] of blocks if the rule is bounded."""
        best = q.max(axis=-1)
        given = blocks.rewards, blocks.dones, best[:, 1:]
        if self.kind == "n_step":
            return returns.n_step_returns(*given, self.gamma, self.n), None
        taken = taken_values(blocks, q)
        trace: float | np.ndarray = 1.0
        if self.kind != "peng":
            form = (
                "published" if self.kind.endswith("published") else "textbook"
            )
            trace = returns.watkins_trace(taken >= best[:, :-1], form)
        if self.rule == "median":
            return returns.median_returns(*given, self.gamma, trace), None
        if self.rule == "bounded":
            return returns.bounded_returns(
                *given, taken, self.gamma, self.limit, trace
            )
        lambdas = self.lambda_ * trace
        return returns.lambda_returns(*given, self.gamma, lambdas), None


def taken_values(blocks: Blocks, q: np.ndarray) -> np.ndarray:
    """Q(s, a) of the actions that were taken, [N, T]."""
    return np.take_along_axis(q[:, :-1], blocks.actions[..., None], -1)[..., 0]


class Settings(NamedTuple):
    """How long and how much; all counts are of transitions.

    Attributes:
        steps: Of the whole run.
        prepopulate: Played at random first.
        refresh_every: Of a period.
        cache_size: C, of a block set.
        block_size: T.
        batch_size: Of an update; C / batch_size of them a period.
        epsilon_steps: After the prepopulation, until epsilon is at its end.
        epsilon_end: Share of random actions in the end; it begins with 1.
        priority: p0 of direct priority; p falls to 0 over the run.
        seed: Of all that is drawn.
        parts: Minibatches of an update, for accumulated gradients.
    """

    steps: int
    prepopulate: int
    refresh_every: int
    cache_size: int
    block_size: int
    batch_size: int
    epsilon_steps: int
    epsilon_end: float
    priority: float
    seed: int
    parts: int = 1

    @property
    def periods(self) -> int:
        """How many there are."""
        return (self.steps - self.prepopulate) // self.refresh_every

    @property
    def updates(self) -> int:
        """Of a period: all of its minibatches are used up in them."""
        return self.cache_size // self.batch_size

    @property
    def minibatches(self) -> tuple[int, int]:
        """[K, B] of a period: how many, and the transitions of each."""
        return self.updates * self.parts, self.batch_size // self.parts

    def epsilon(self, step: int) -> float:
        """Share of random actions, `step` transitions after the beginning."""
        past = max(step - self.prepopulate, 0) / self.epsilon_steps
        return max(1 - past * (1 - self.epsilon_end), self.epsilon_end)

    def random(self, purpose: int, period: int) -> np.random.Generator:
        """The generator of a purpose in a period."""
        return np.random.default_rng([self.seed, purpose, period])


class Learner:
    """Everything of a run that changes.

    Args:
        settings: How long and how much.
        estimator: Which returns.
        games: Reset here.
        agent: What is trained.
        memory: Empty.

    Attributes:
        actions: What was played since the list was emptied last, [E] each.
        scores: (transitions of the run, return) of each episode that ended, in
            the game's own reward.
    """

    def __init__(
        self,
        settings: Settings,
        estimator: Estimator,
        games: Games,
        agent: Agent,
        memory: Replay,
    ):
        self.settings, self.estimator = settings, estimator
        self.games, self.agent, self.memory = games, agent, memory
        self._frames = games.reset()
        self._histories = Histories(memory.history, self._frames)
        self._running = np.zeros(len(self._frames))
        self.actions: list[np.ndarray] = []
        self.scores: list[tuple[int, float]] = []
        self._lambdas: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Transitions that were played."""
        return self.memory.time * len(self._frames)

    def play(self, actions: np.ndarray) -> None:
        """Plays an action [E] in each game and stores what happened."""
        frames, rewards, dones = self.games.step(actions)
        given = rewards.clip(-1, 1) if self.games.clips_rewards else rewards
        self.memory.append(self._frames, actions, given, dones)
        self._frames = frames
        self._histories.push(frames, dones)
        self._running += rewards
        for i in np.flatnonzero(dones):
            self.scores.append((self.steps, float(self._running[i])))
        self._running[dones] = 0

    def collect(
        self, period: int, progress: Callable[[int], object] = lambda n: None
    ) -> None:
        """Plays a period, epsilon-greedily; period 0 is the prepopulation.

        Args:
            period: From 0 to `settings.periods`.
            progress: Called with the transitions of each step.
        """
        settings, count = self.settings, len(self._frames)
        length = settings.refresh_every if period else settings.prepopulate
        rng = settings.random(_PLAY, period)
        for _ in range(length // count):
            epsilon = settings.epsilon(self.steps)
            actions = rng.integers(self.games.actions, size=count)
            greedy = rng.random(count) >= epsilon
            if period and greedy.any():
                best = self.agent.act(self._histories.observations)
                actions = np.where(greedy, best, actions)
            actions = actions.astype("uint8")
            self.actions.append(actions)
            self.play(actions)
            progress(count)

    def train(self, period: int) -> float:
        """Refreshes the cache and trains on it; gives the mean loss.

        Args:
            period: From 1 on.

        Raises:
            InputError: The loss, a value or a weight is not finite.
        """
        settings = self.settings
        blocks = self.memory.sample(
            settings.random(_BLOCKS, period),
            settings.cache_size // settings.block_size,
        )
        q = self.agent.values(blocks)
        self._check_finite("the values of states are not", q)
        targets, self._lambdas = self.estimator.with_lambdas(blocks, q)
        share = (period - 1) / settings.periods
        indices = replay.draw(
            settings.random(_BATCHES, period),
            np.abs(targets - taken_values(blocks, q)),
            settings.priority * (1 - share),
            settings.minibatches,
        )
        losses = self.agent.train(blocks, targets, indices)
        self._check_finite("the loss is not", losses)
        # That of the last update is not in its loss.
        for weight in self.agent.network.trainable_variables:
            self._check_finite(f"{weight.path} is not", weight.numpy())
        return float(losses.mean())

    def of_lambdas(self) -> dict[str, float]:
        """`OF_LAMBDAS` of the last refresh; {} of another rule."""
        if self._lambdas is None:
            return {}
        found = self._lambdas.mean(), (self._lambdas == 0).mean()
        return dict(zip(OF_LAMBDAS, map(float, found)))

    def _check_finite(self, what: str, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise InputError(
                f"{what} finite after step {self.steps}; give a lower "
                "--learning_rate or a longer --warmup_ratio"
            )
