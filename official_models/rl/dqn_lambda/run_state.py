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


class Log:
    """A file of bytes that grows with the checkpoints beside it.

    It is written before the checkpoint that counts on it: a kill between the
    two leaves bytes too many, which the next addition cuts off.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path):
        self.path, self._saved = path, 0

    def add(self, content: bytes) -> None:
        """Writes behind what was saved, to the disk."""
        with open(self.path, "ab") as file:
            file.truncate(self._saved)
            file.seek(self._saved)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._saved += len(content)

    def read(self, total: int, what: str) -> np.ndarray:
        """The first `total` bytes, uint8; what is added comes behind them.

        Args:
            total: Those that the checkpoint counts on.
            what: For the message: what they are.

        Raises:
            InputError: There are fewer.
        """
        found = self.path.read_bytes() if self.path.exists() else b""
        if len(found) < total:
            raise InputError(
                f"{self.path}: {len(found)} bytes, expected the {total} {what} "
                "the checkpoint beside it; name another --output_dir"
            )
        self._saved = total
        return np.frombuffer(found[:total], "uint8")


class RunState:
    """Saves and restores a `Learner`.

    Args:
        folder: Of the run.
        learner: As it is before its first action.
    """

    def __init__(self, folder: Path, learner: Learner):
        self._log, self._learner = Log(folder / ACTIONS), learner
        model = learner.agent.network
        if getattr(model, "optimizer", None) is None:
            model.compile(learner.agent.optimizer)
        self._checkpoints = Checkpoints(model, folder / "checkpoints", keep=2)

    def save(self, period: int) -> None:
        """Saves the state at the end of a period."""
        rows = self._learner.actions
        self._log.add(np.stack(rows).tobytes() if rows else b"")
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
        played = self._log.read(total, "actions of")
        if played.max() >= learner.games.actions:
            raise InputError(
                f"{self._log.path}: action {played.max()}, expected less than "
                f"{learner.games.actions}; name another --output_dir"
            )
        count = len(learner.memory.actions)
        for actions in played.reshape(-1, count):
            learner.play(actions)
            progress(count)
        return period
