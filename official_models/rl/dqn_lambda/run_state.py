"""What of a run is saved, and how it goes on after it was killed.

The replay memory is not saved, nor is an emulator. What is saved is every
action, one byte each, in `actions.u8`: the games, whose seeds are known, are
played again with them, which fills the memory, and brings the games to where
they were, to the bit. The weights and the optimizer's state are checkpoints of
the ends of periods. There, the cache of returns has been used up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from official_models.common.checkpoints import Checkpoints
from official_models.common.errors import InputError
from official_models.rl.dqn_lambda.learning import Learner

ACTIONS = "actions.u8"


class RunState:
    """Saves and restores a `Learner`.

    Args:
        folder: Of the run.
        learner: As it is before its first action.
    """

    def __init__(self, folder: Path, learner: Learner):
        self._path, self._learner = folder / ACTIONS, learner
        model = learner.agent.network
        if getattr(model, "optimizer", None) is None:
            model.compile(learner.agent.optimizer)
        self._checkpoints = Checkpoints(model, folder / "checkpoints", keep=2)
        self._saved = 0  # bytes of the actions

    def save(self, period: int) -> None:
        """Saves the state at the end of a period.

        Actions are appended before the checkpoint that counts on them is
        written, so that a kill between the two leaves some too many, which the
        next save cuts off.
        """
        rows = self._learner.actions
        content = np.stack(rows).tobytes() if rows else b""
        with open(self._path, "ab") as file:
            file.truncate(self._saved)
            file.seek(self._saved)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._saved += len(content)
        rows.clear()
        self._checkpoints.save(period)

    def restore(
        self, progress: Callable[[int], object] = lambda n: None
    ) -> int | None:
        """Restores the last checkpoint and plays the games up to it.

        Args:
            progress: Called with the transitions of each step.

        Returns:
            The period that it is the end of; None if there is none.

        Raises:
            InputError: A file is damaged or of another network.
        """
        period = self._checkpoints.restore(after=-1)
        if period < 0:
            return None
        learner = self._learner
        settings = learner.settings
        total = settings.prepopulate + period * settings.refresh_every
        found = self._path.read_bytes() if self._path.exists() else b""
        if len(found) < total:
            raise InputError(
                f"{self._path}: {len(found)} bytes, expected the {total} "
                "actions of the checkpoint beside it; name another --output_dir"
            )
        played = np.frombuffer(found[:total], "uint8")
        if played.max() >= learner.games.actions:
            raise InputError(
                f"{self._path}: action {played.max()}, expected less than "
                f"{learner.games.actions}; name another --output_dir"
            )
        count = len(learner.memory.actions)
        for actions in played.reshape(-1, count):
            learner.play(actions)
            progress(count)
        self._saved = total
        return period
