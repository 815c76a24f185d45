"""Trust ratios over time: to a CSV table, to TensorBoard, to a plot."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, Collection, Mapping, Sequence, Union

import keras

PathLike = Union[str, "os.PathLike[str]"]


class StepTable:
    """A CSV table, one row a step, that a resumed run continues.

    When the table is opened, rows after `first_step` are dropped, and so is a
    last row that was cut off.

    Args:
      path: the file; it is made with its head line if it does not exist.
      columns: names of the values, without `step`.
      first_step: the last step before those of this run.
    """

    def __init__(
        self, path: PathLike, columns: Collection[str], first_step: int = 0
    ) -> None:
        self.path = Path(path)
        self.columns = ["step", *columns]
        rows = []
        if self.path.exists():
            head, *body = _read_rows(self.path)
            if head == self.columns:
                rows = [row for row in body if _step(row, head) <= first_step]
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([self.columns, *rows])
        os.replace(temporary, self.path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row.

        Args:
          step: the step, first column.
          values: {column: value}; columns without a value stay empty.
        """
        row = [step, *(values.get(name, "") for name in self.columns[1:])]
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow(row)


def _read_rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file)) or [[]]


def _step(row: Sequence[str], head: Sequence[str]) -> float:
    whole = len(row) == len(head) and row[0].isdigit()
    return int(row[0]) if whole else float("inf")


def read_table(path: PathLike) -> dict[str, list[tuple[int, float]]]:
    """The columns of a `StepTable` as {name: [(step, value), ...]}.

    Args:
      path: the file; a last row that was cut off is left out.
    """
    head, *body = _read_rows(Path(path))
    return {
        name: [
            (int(row[0]), float(row[i]))
            for row in body
            if len(row) == len(head) and row[i]
        ]
        for i, name in enumerate(head)
        if i
    }


class TrustRatioLogger(keras.callbacks.Callback):
    """Writes `optimizer.trust_ratios` to a CSV table and to TensorBoard.

    A step is an update: with gradient accumulation, several batches.

    Args:
      csv_path: table with one column for each variable and one row every
        `every` steps.
      log_dir: folder for TensorBoard (needs TensorFlow); None for none.
      every: steps between rows, >= 1.
      first_step: the last step before those of this run; later rows of the
        table are dropped.

    Example:
      >>> import keras, numpy as np, os, tempfile, tf_lamb
      >>> from tf_lamb.callbacks import TrustRatioLogger, read_table
      >>> model = keras.Sequential(
      ...     [keras.Input((3,)), keras.layers.Dense(2, name="head")],
      ...     name="net",
      ... )
      >>> model.compile(tf_lamb.LAMB(0.01), "mse")
      >>> path = os.path.join(tempfile.mkdtemp(), "trust_ratios.csv")
      >>> history = model.fit(
      ...     np.ones((8, 3)), np.ones((8, 2)), batch_size=2, verbose=0,
      ...     callbacks=[TrustRatioLogger(path, every=2)],
      ... )
      >>> {name: [step for step, _ in points]
      ...  for name, points in read_table(path).items()}
      {'net/head/kernel': [2, 4], 'net/head/bias': [2, 4]}
    """

    def __init__(
        self,
        csv_path: PathLike,
        log_dir: PathLike | None = None,
        every: int = 10,
        first_step: int = 0,
    ) -> None:
        super().__init__()
        self.csv_path = csv_path
        self.log_dir = log_dir
        self.every = every
        self._first_step = first_step
        self._batches = self._batches_before = 0
        self._table: StepTable | None = None
        self._writer: Any = None

    @property
    def _step(self) -> int:
        k = self.model.optimizer.gradient_accumulation_steps or 1
        return self._first_step + self._batches // k

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Called by Keras: batches are counted from the epoch's start."""
        self._batches_before = self._batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Called by Keras: writes a row when it is time."""
        # `batch` advances by more than one under steps_per_execution.
        before, self._batches = self._step, self._batches_before + batch + 1
        if self._step // self.every > before // self.every:
            self._write()

    def on_train_end(self, logs: Any = None) -> None:
        """Called by Keras: closes the files of TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _write(self) -> None:
        # On JAX, `fit` updates the optimizer's variables after each epoch only.
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        ratios = self.model.optimizer.trust_ratios
        if self._table is None:
            self._table = StepTable(self.csv_path, ratios, self._first_step)
            if self.log_dir is not None:
                import tensorflow as tf

                self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self._table.write(self._step, ratios)
        if self._writer is not None:
            import tensorflow as tf

            with self._writer.as_default(step=self._step):
                for path, ratio in ratios.items():
                    tf.summary.scalar(f"trust_ratio/{path}", ratio)


def plot_trust_ratios(csv_path: PathLike, png_path: PathLike) -> None:
    """Draws a table of `TrustRatioLogger`: one line a variable, log scale.

    Variables that were not adapted (ratio 1 throughout) are left out. Needs
    matplotlib.

    Args:
      csv_path: the table.
      png_path: the picture; it is written under a temporary name first.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    table = {
        path: points
        for path, points in read_table(csv_path).items()
        if any(ratio != 1 for _, ratio in points)
    }
    figure, axes = plt.subplots(figsize=(11, 6), layout="constrained")
    colors = plt.colormaps["viridis"]
    for i, (path, points) in enumerate(table.items()):
        steps, ratios = zip(*points)
        color = colors(i / max(len(table) - 1, 1))
        axes.plot(steps, ratios, color=color, linewidth=1.2, label=path)
    axes.set(
        xlabel="step",
        ylabel="trust ratio",
        yscale="log",
        title="Trust ratio of each adapted variable, |x| / |u|",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=6, frameon=False)
    temporary = Path(png_path).with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    plt.close(figure)
    os.replace(temporary, png_path)
