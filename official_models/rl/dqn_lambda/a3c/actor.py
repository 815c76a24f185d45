"""An actor: it plays its games by the weights it is given, and sends gradients.

    python -m official_models.rl.dqn_lambda.a3c.actor JOB   # `actors` starts it

It imports no framework. What it does is decided by its job, the weights of
each rollout, and the rollout's number: randomness is drawn by (seed, actor,
rollout), so that a killed run goes on once the actions were played again.

Standard input brings, in this order, the actions that were played before the
run was killed, then weights, once a rollout; standard output takes the answers
(`Rollout`). Its end is the end of the actor, so that none is left behind by a
run that was killed.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import NamedTuple

import numpy as np

from official_models.rl.dqn_lambda import environments, returns
from official_models.rl.dqn_lambda.a3c import policy
from official_models.rl.dqn_lambda.environments import Games, Histories

LAMBDA_RULES = ("fixed", "median", "bounded")
_PURPOSE = 3  # of random numbers; the games' seeds have 0
_COUNT = struct.Struct("<q")


class Job(NamedTuple):
    """What an actor does.

    Attributes:
        game: Name.
        seeds: Of its games, E of them.
        history: h, frames of an observation.
        rollout: T, transitions of each game between two gradients.
        shapes: Of the weights.
        strides: Of the convolutions.
        scale: Factor of the frames.
        gamma: Discount.
        lambda_: Of the fixed rule.
        lambda_rule: One of `LAMBDA_RULES`.
        max_td_error: Of the bounded rule.
        entropy_cost: beta.
        value_cost: c.
        seed: Of the actions.
        number: Of the actor, from 0.
    """

    game: str
    seeds: list[int]
    history: int
    rollout: int
    shapes: list[list[int]]
    strides: list[int]
    scale: float
    gamma: float
    lambda_: float
    lambda_rule: str
    max_td_error: float
    entropy_cost: float
    value_cost: float
    seed: int
    number: int

    @property
    def weights(self) -> int:
        """P, how many."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


class Rollout(NamedTuple):
    """What an actor sends.

    Attributes:
        gradient: [P], float32, of the weights as one vector.
        actions: [T, E], uint8.
        losses: [3], float32: `policy.Losses`, of a transition on average.
        scores: Returns of the episodes that ended, in the game's own reward.
    """

    gradient: np.ndarray
    actions: np.ndarray
    losses: np.ndarray
    scores: np.ndarray


class Actor:
    """Games, and the rollouts that are played in them.

    Args:
        job: What to do.
        games: Those of the job, where they are made already.
    """

    def __init__(self, job: Job, games: Games | None = None):
        self.job = job
        self._games = games or environments.make(job.game, job.seeds)
        self._histories = Histories(job.history, self._games.reset())
        self._running = np.zeros(len(job.seeds))
        self._scores: list[float] = []
        self.rollouts = 0

    def replay(self, actions: np.ndarray) -> list[np.ndarray]:
        """Plays rollouts [R, T, E] again; gives the scores of each."""
        found = []
        for rollout in actions:
            for row in rollout:
                self._play(row)
            found.append(self._take_scores())
            self.rollouts += 1
        return found

    def rollout(self, weights: np.ndarray) -> Rollout:
        """Plays T transitions of each game, and gives their gradient.

        Args:
            weights: [P], float32, which are the same for all of them.
        """
        job, count = self.job, len(self.job.seeds)
        split = self._split(weights)
        key = [job.seed, _PURPOSE, job.number, self.rollouts]
        rng = np.random.default_rng(key)
        seen, actions, rewards, dones = [], [], [], []
        for _ in range(job.rollout):
            # Of one frame, it is a view of what the next step changes.
            seen.append(self._histories.observations.copy())
            logits = self._forward(split, seen[-1]).logits
            actions.append(policy.sample(logits, rng).astype("uint8"))
            reward, done = self._play(actions[-1])
            rewards.append(reward)
            dones.append(done)
        seen.append(self._histories.observations.copy())
        outputs = self._forward(split, np.concatenate(seen))
        values = outputs.values.reshape(job.rollout + 1, count)
        targets = self._targets(np.stack(rewards), np.stack(dones), values)
        played = job.rollout * count  # the states after them have no loss
        by_logits = np.zeros_like(outputs.logits)
        by_values = np.zeros_like(outputs.values)
        by_logits[:played], by_values[:played], losses = policy.loss_slopes(
            outputs.logits[:played],
            outputs.values[:played],
            np.concatenate(actions),
            targets.ravel(),
            entropy_cost=job.entropy_cost,
            value_cost=job.value_cost,
            weight=1 / count,
        )
        found = policy.gradient(
            split, outputs, by_logits, by_values, job.strides
        )
        self.rollouts += 1
        return Rollout(
            np.concatenate([x.ravel() for x in found]),
            np.stack(actions),
            np.array(losses, "float32") / job.rollout,
            self._take_scores(),
        )

    def _forward(self, weights, observations) -> policy.Outputs:
        job = self.job
        return policy.forward(weights, observations, job.strides, job.scale)

    def _targets(self, rewards, dones, values) -> np.ndarray:
        """Lambda-returns [T, E] by the values [T + 1, E]."""
        job = self.job
        given = rewards.T, dones.T, values[1:].T
        if job.lambda_rule == "median":
            found = returns.median_returns(*given, job.gamma)
        elif job.lambda_rule == "bounded":
            found, _ = returns.bounded_returns(
                *given, values[:-1].T, job.gamma, job.max_td_error
            )
        else:
            found = returns.lambda_returns(*given, job.gamma, job.lambda_)
        return found.T

    def _play(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frames, rewards, dones = self._games.step(actions)
        self._histories.push(frames, dones)
        self._running += rewards
        self._scores += self._running[dones].tolist()
        self._running[dones] = 0
        given = rewards.clip(-1, 1) if self._games.clips_rewards else rewards
        return given, dones

    def _take_scores(self) -> np.ndarray:
        scores, self._scores = self._scores, []
        return np.array(scores, "float64")

    def _split(self, weights: np.ndarray) -> list[np.ndarray]:
        sizes = [int(np.prod(shape)) for shape in self.job.shapes]
        parts = np.split(weights, np.cumsum(sizes)[:-1])
        return [x.reshape(s) for x, s in zip(parts, self.job.shapes)]


def read_exactly(file: int, size: int) -> bytearray:
    """`size` bytes of a file descriptor.

    Raises:
        EOFError: There are fewer.
    """
    content = bytearray(size)
    view = memoryview(content)
    while view:
        count = os.readv(file, [view])
        if not count:
            raise EOFError
        view = view[count:]
    return content


def write_all(file: int, content: bytes | bytearray | memoryview) -> None:
    """Writes all of it to a file descriptor."""
    view = memoryview(content).cast("B")
    while view:
        view = view[os.write(file, view) :]


def read_array(file: int, dtype: str, *shape: int) -> np.ndarray:
    """An array of a known shape."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(read_exactly(file, size), dtype).reshape(shape)


def read_list(file: int, dtype: str) -> np.ndarray:
    """An array of one axis, whose length comes first."""
    (count,) = _COUNT.unpack(read_exactly(file, _COUNT.size))
    return read_array(file, dtype, count)


def write_list(file: int, array: np.ndarray) -> None:
    """What `read_list` reads."""
    write_all(file, _COUNT.pack(len(array)) + array.tobytes())


def read_rollout(file: int, job: Job) -> Rollout:
    """What an actor has sent."""
    return Rollout(
        read_array(file, "<f4", job.weights),
        read_array(file, "u1", job.rollout, len(job.seeds)),
        read_array(file, "<f4", 3),
        read_list(file, "<f8"),
    )


def serve(job: Job, source: int, target: int) -> None:
    """Plays until the source ends.

    Args:
        job: What to do.
        source: File descriptor of what is asked.
        target: Of the answers.
    """
    actor = Actor(job)
    try:
        played = read_list(source, "u1")
        shape = (-1, job.rollout, len(job.seeds))
        for scores in actor.replay(played.reshape(shape)):
            write_list(target, scores)
        while True:
            weights = read_array(source, "<f4", job.weights)
            rollout = actor.rollout(weights)
            for part in rollout[:-1]:
                write_all(target, np.ascontiguousarray(part))
            write_list(target, rollout.scores)
    except (EOFError, BrokenPipeError):
        return  # the run has ended, or was killed


def main() -> None:
    """Serves the job of the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run ends its actors
    np.seterr(all="ignore")  # the run says which loss is not finite
    # What libraries print must not get between the answers.
    target = os.dup(1)
    os.dup2(2, 1)
    serve(Job(**json.loads(sys.argv[1])), 0, target)


if __name__ == "__main__":
    main()
