"""A callback that does something every so many updates, in any loop."""

from __future__ import annotations

from typing import Any

from tf_lamb import check, wrapped
from tf_lamb.any_callback import AnyCallback
from tf_lamb.diagnostics import probe


class EveryUpdates(AnyCallback):
    """Counts updates in `fit` or in a loop of one's own.

    Args:
      every: updates between records, >= 1.
      first_step: the last update before those of this run, >= 0.

    Raises:
      ValueError: an argument is out of its range.
    """

    # It reads one number of the logs, when it is time.
    _supports_tf_logs = True

    def __init__(self, every: int, first_step: int = 0) -> None:
        self.every = check.count("every", every)
        self._first_step = check.count("first_step", first_step, minimum=0)
        self._batches = self._batches_before = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Called by Keras: prepares the first update, if it is recorded."""
        if self._due(self._batches + 1):
            self._before()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Called by Keras: batches are counted from the epoch's start."""
        self._batches_before = self._batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Called by Keras: records the update when it is time.

        Args:
          batch: number of the batch in its epoch.
          logs: of Keras; `loss` is read.
        """
        # `batch` advances by more than one under steps_per_execution.
        batches = self._batches_before + batch + 1
        due, advance = self._due(batches), batches - self._batches
        self._batches = batches
        if due:
            loss = (logs or {}).get("loss")
            probe.sync(self.model)
            self._record(None if loss is None else float(loss))
        if self._due(batches + advance):
            probe.sync(self.model)
            self._before()

    def on_train_end(self, logs: Any = None) -> None:
        """Called by Keras: closes files."""
        self.close()

    def record(self, model: Any, loss: Any = None) -> None:
        """Counts one batch of a custom loop; records when it is time.

        Args:
          model: that is trained, of any Keras; call it after each batch.
          loss: of the batch, a number or a scalar, for the alarms; None: none.
        """
        if self.model is not model:
            self.set_model(model)
        batch = self._batches - self._batches_before
        self.on_train_batch_end(batch, {} if loss is None else {"loss": loss})

    def close(self) -> None:
        """Closes files; a custom loop calls it at its end."""

    @property
    def step(self) -> int:
        """The count of updates."""
        return self._updates(self._batches)

    def _updates(self, batches: int) -> int:
        return self._first_step + batches // accumulation(self.model)

    def _due(self, batches: int) -> bool:
        """Whether an update is recorded once as many batches are done."""
        return self._updates(batches) // self.every > self.step // self.every

    def _before(self) -> None:
        """Called before the batches of an update that is recorded."""

    def _record(self, loss: float | None) -> None:
        """Called after an update that is recorded; the weights are current."""
        raise NotImplementedError


def accumulation(model: Any) -> int:
    """Batches of an update: the most of any optimizer in the model."""
    found = wrapped.find_optimizers(model) or [
        wrapped.innermost(getattr(model, "optimizer", None))
    ]
    steps = [getattr(x, "gradient_accumulation_steps", None) for x in found]
    return max(n or 1 for n in steps)


def is_chief(model: Any) -> bool:
    """Whether this process writes: the first of several workers does.

    Args:
      model: of any Keras.
    """
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None or probe.backend_of(model) != "tensorflow":
        return True
    cluster = getattr(strategy, "cluster_resolver", None)
    if cluster is None or not cluster.task_type:
        return True
    from tf_lamb import multi_worker

    return bool(multi_worker.is_chief(strategy))
