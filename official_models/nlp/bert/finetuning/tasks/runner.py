"""What a task asks of whatever trains and runs its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class Runner(Protocol):
    """A model that is trained already, and a folder for what it finds.

    Attributes:
        folder: Of the run; on `gs://` too.
        eval_batch_size: Records of a batch of `evaluate`.
        predict_batch_size: Records of a batch of `predict`.
    """

    folder: str
    eval_batch_size: int
    predict_batch_size: int

    def step(self) -> int:
        """Updates of the weights in use."""

    def evaluate(self, path: str, batches: int) -> dict[str, float]:
        """Metrics over the first `batches` batches of a file of records."""

    def predict(self, path: str) -> Iterator[dict[str, np.ndarray]]:
        """The task's `predictions` for each record of a file, in order."""
