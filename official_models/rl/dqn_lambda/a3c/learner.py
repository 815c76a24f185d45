"""The shared network, and what of a run of A3C(lambda) is saved.

There is one copy of the weights and of the optimizer's state, in the process
that trains. A rollout's gradient is applied when it arrives, and its actor gets
the weights as they are then: while an actor plays, the others' gradients move
them, so that a gradient is of weights some updates old.

What is saved is, of each update, the number of its actor and its actions, one
byte each, in `rollouts.u8`; and checkpoints. Actors play their actions again.
Rollouts that were on their way when the run was killed are played anew.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from official_models.common.checkpoints import Checkpoints
from official_models.common.errors import InputError
from official_models.rl.dqn_lambda.a3c.actor import Job, Rollout
from official_models.rl.dqn_lambda.run_state import Log

ROLLOUTS = "rollouts.u8"


class Shared:
    """The network that all actors train.

    Args:
        network: Of `networks.make_actor_critic`.
        optimizer: Built.
    """

    def __init__(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer
    ):
        self.network, self.optimizer = network, optimizer
        self._shapes = [tuple(v.shape) for v in network.trainable_variables]
        self._apply = tf.function(self._apply_flat)

    def update(self, gradient: np.ndarray) -> np.ndarray:
        """Applies a gradient [P], float32; gives the weights [P] after it."""
        return self._apply(tf.constant(gradient)).numpy()

    def weights(self) -> np.ndarray:
        """All as one vector, [P], float32."""
        variables = self.network.trainable_variables
        return np.concatenate([v.numpy().ravel() for v in variables])

    def _apply_flat(self, gradient):
        variables = self.network.trainable_variables
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        parts = tf.split(gradient, sizes)
        self.optimizer.apply(
            [tf.reshape(x, s) for x, s in zip(parts, self._shapes)], variables
        )
        return tf.concat([tf.reshape(v, (-1,)) for v in variables], 0)


class Learner:
    """Everything of a run that changes, beside the actors' games.

    Args:
        shared: The network.
        jobs: Of the actors.

    Attributes:
        updates: How many there were.
        scores: (transitions of the run, return) of each episode that ended, in
            the game's own reward.
        ages: Of each update since `take`: how many updates were made while its
            rollout was played.
        losses: Of each of them, [3], as in `actor.Rollout`.
    """

    def __init__(self, shared: Shared, jobs: list[Job]):
        self.shared, self.jobs = shared, jobs
        self.updates = 0
        self.scores: list[tuple[int, float]] = []
        self.ages: list[int] = []
        self.losses: list[np.ndarray] = []
        self.records: list[bytes] = []  # not saved yet
        self._sent_at = [0] * len(jobs)

    @property
    def per_update(self) -> int:
        """Transitions of a rollout."""
        return self.jobs[0].rollout * len(self.jobs[0].seeds)

    @property
    def steps(self) -> int:
        """Transitions whose gradients were applied."""
        return self.updates * self.per_update

    def sent(self, number: int) -> None:
        """Notes that an actor has got the weights as they are."""
        self._sent_at[number] = self.updates

    def apply(self, number: int, rollout: Rollout) -> np.ndarray:
        """Applies an actor's gradient; gives the weights after it."""
        weights = self.shared.update(rollout.gradient)
        self.ages.append(self.updates - self._sent_at[number])
        self.losses.append(rollout.losses)
        self.records.append(bytes([number]) + rollout.actions.tobytes())
        self.count(rollout.scores)
        return weights

    def count(self, scores: np.ndarray) -> None:
        """Counts an update and the episodes that ended in its rollout."""
        self.updates += 1
        self.scores += [(self.steps, float(score)) for score in scores]

    def take(self) -> tuple[float, np.ndarray]:
        """The mean age and the mean losses since the last call."""
        found = float(np.mean(self.ages)), np.mean(self.losses, axis=0)
        self.ages, self.losses = [], []
        return found


class RunState:
    """Saves and restores a `Learner`.

    Args:
        folder: Of the run.
        learner: As it is before its first update.
        actions: How many the game has.
    """

    def __init__(self, folder: Path, learner: Learner, actions: int):
        self._log, self._learner = Log(folder / ROLLOUTS), learner
        self._actions = actions
        model = learner.shared.network
        if getattr(model, "optimizer", None) is None:
            model.compile(learner.shared.optimizer)
        self._checkpoints = Checkpoints(model, folder / "checkpoints", keep=2)

    def save(self) -> None:
        """Saves the state after an update."""
        self._log.add(b"".join(self._learner.records))
        self._learner.records.clear()
        self._checkpoints.save(self._learner.updates)

    def restore(self) -> tuple[np.ndarray, list[np.ndarray]] | None:
        """Restores the last checkpoint; `Learner.count` does the rest.

        Returns:
            The actor of each update, [updates], and of each actor the actions
            that it played, [rollouts, T, E]; None if there is no checkpoint.

        Raises:
            InputError: A file is damaged or of another network.
        """
        updates = self._checkpoints.restore(after=-1)
        if updates < 0:
            return None
        jobs = self._learner.jobs
        size = 1 + self._learner.per_update
        total = updates * size
        records = self._log.read(total, "of").reshape(-1, size)
        order, played = records[:, 0], records[:, 1:]
        for name, values, end in (
            ("actor", order, len(jobs)),
            ("action", played, self._actions),
        ):
            if values.max() >= end:
                raise InputError(
                    f"{self._log.path}: {name} {values.max()}, expected less "
                    f"than {end}; name another --output_dir"
                )
        shape = -1, jobs[0].rollout, len(jobs[0].seeds)
        return order, [
            played[order == number].reshape(shape)
            for number in range(len(jobs))
        ]
