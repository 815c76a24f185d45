"""Trust ratios over time: to a CSV table, to TensorBoard, to a plot."""

from __future__ import annotations

import csv
import os
import re
import warnings
from pathlib import Path
from typing import Any, Collection, Mapping, Sequence, Union

import keras

from tf_lamb import check, exclusion, figures, wrapped
from tf_lamb.any_callback import AnyCallback

PathLike = Union[str, "os.PathLike[str]"]


class StepTable:
    """A CSV table, one row a step, that a resumed run continues.

    When the table is opened, rows after `first_step` are dropped, and so is a
    last row that was cut off. If the file has rows of other columns, or is
    damaged, it is kept under another name (`table.1.csv`), and a warning says
    so.

    Args:
      path: the file; it is made with its head line if it does not exist, and
        so is its folder.
      columns: names of the values, without `step`.
      first_step: the last step before those of this run.
      renumbered: whether columns whose names differ in the numbers that Keras
        gives to layers (`dense/kernel`, `dense_3/kernel`) are the same ones.

    Raises:
      ValueError: a column is there twice.
    """

    def __init__(
        self,
        path: PathLike,
        columns: Collection[str],
        first_step: int = 0,
        renumbered: bool = False,
    ) -> None:
        self.path = Path(path)
        self.columns = ["step", *columns]
        for i, name in enumerate(self.columns):
            if name in self.columns[:i]:
                raise ValueError(
                    f"columns: {name!r} is there twice; expected {self.path} "
                    "to have different ones; give each a name of its own."
                )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._old_rows(first_step, renumbered)
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([self.columns, *rows])
        os.replace(temporary, self.path)

    def _old_rows(self, first_step: int, renumbered: bool) -> list[list[str]]:
        """The rows to `first_step` that the file has, in the columns' order."""
        if not self.path.exists():
            return []
        try:
            head, *body = _read_rows(self.path)
        except ValueError:
            self._keep_old_table("the table is damaged")
            return []
        rows = [row for row in body if _step(row, head) <= first_step]
        order = _order(head, self.columns, renumbered)
        if rows and order is None:
            theirs = [name for name in head if name not in self.columns]
            self._keep_old_table(
                "the table has other columns than this run, such as "
                f"{(theirs or head)[-1]!r}"
            )
            return []
        return [[row[i] for i in order or ()] for row in rows]

    def _keep_old_table(self, reason: str) -> None:
        names = (
            self.path.with_suffix(f".{i}{self.path.suffix}")
            for i in range(1, 10**6)
        )
        kept = next(name for name in names if not name.exists())
        os.replace(self.path, kept)
        warnings.warn(
            f"{self.path}: {reason}; its rows are kept in {kept}.",
            stacklevel=4,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row.

        Args:
          step: the step, first column.
          values: {column: value}; columns without a value stay empty.
        """
        row = [step, *(values.get(name, "") for name in self.columns[1:])]
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.reader(file)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, "a file that is no CSV text") from error


def _no_table(path: PathLike, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected a CSV table with a head line that begins with "
        f"'step' and numbers below it, got {found}; name another file."
    )


def _order(
    head: Sequence[str], columns: Sequence[str], renumbered: bool
) -> list[int] | None:
    """Where a table with `head` has each column; None if it has others."""
    if sorted(head) == sorted(columns):
        return [head.index(name) for name in columns]
    same = [_without_number(name) for name in columns] == [
        _without_number(name) for name in head
    ]
    return list(range(len(head))) if renumbered and same else None


def _without_number(path: str) -> str:
    """`net_2/dense_13/kernel` as `net/dense/kernel`."""
    return re.sub(r"_\d+(?=[/#]|$)", "", path)


def _step(row: Sequence[str], head: Sequence[str]) -> float:
    whole = len(row) == len(head) and row[0].isdigit()
    return int(row[0]) if whole else float("inf")


def read_table(path: PathLike) -> dict[str, list[tuple[int, float]]]:
    """The columns of a `StepTable` as {name: [(step, value), ...]}.

    Args:
      path: the file; a last row that was cut off is left out.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such table.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"no table {path}; TrustRatioLogger writes a row every `every` "
            "updates."
        )
    head, *body = _read_rows(Path(path))
    if head[:1] != ["step"]:
        first = f"the head line {check.shown(','.join(head))}"
        raise _no_table(path, first if head else "an empty first line")
    rows = [row for row in body if len(row) == len(head)]
    columns: dict[str, list[tuple[int, float]]] = {}
    for i, name in enumerate(head[1:], 1):
        points = [(row[0], row[i]) for row in rows if row[i]]
        try:
            columns[name] = [(int(step), float(x)) for step, x in points]
        except ValueError:
            found = f"other text below 'step' or {check.shown(name)}"
            raise _no_table(path, found) from None
    return columns


class TrustRatioLogger(AnyCallback, keras.callbacks.Callback):
    """Writes the optimizer's `trust_ratios` to a CSV table and to TensorBoard.

    It works in each Keras, and finds the optimizer inside of what wraps it, as
    `find_optimizers` does: under mixed float16 too. Of several ones in a
    `MultiOptimizer`, all variables are logged.

    A step is an update: with gradient accumulation, several batches (of several
    optimizers, as many as the one has that accumulates the most). A second
    `fit` with the same logger counts on.

    Args:
      csv_path: table with one column for each variable and one row every
        `every` steps; a run of fewer steps gets one at its end. Its folder is
        made if it does not exist. A table that is there is continued after
        `first_step`; layers that Keras numbered anew (`dense_3` for `dense`)
        are the same ones. A table of another model is kept under another name
        (`StepTable`).
      log_dir: folder for TensorBoard (needs TensorFlow); None for none.
      every: steps between rows, >= 1.
      first_step: the last step before those of this run, >= 0; later rows of
        the table are dropped.

    Raises:
      ValueError: `every` or `first_step` is out of its range; in `fit`, the
        model has no optimizer of this package.

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
        self._supports_tf_logs = True  # It reads none.
        self.csv_path = csv_path
        self.log_dir = log_dir
        self.every = check.count("every", every)
        self._first_step = check.count("first_step", first_step, minimum=0)
        self._batches = self._batches_before = 0
        self._optimizers: list[Any] = []
        self._table: StepTable | None = None
        self._writer: Any = None

    @property
    def _step(self) -> int:
        steps = [x.gradient_accumulation_steps for x in self._optimizers]
        k = max(n or 1 for n in steps)
        return self._first_step + self._batches // k

    def on_train_begin(self, logs: Any = None) -> None:
        """Called by Keras: the model may have another optimizer."""
        self._optimizers = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Called by Keras: batches are counted from the epoch's start."""
        self._batches_before = self._batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Called by Keras: writes a row when it is time.

        Raises:
          ValueError: the model has no optimizer of this package.
        """
        if not self._optimizers:
            # Not before the first batch: a MultiOptimizer is built in it.
            found = wrapped.find_optimizers(self.model)
            self._optimizers = found or [wrapped.find_optimizer(self.model)]
        # `batch` advances by more than one under steps_per_execution.
        before, self._batches = self._step, self._batches_before + batch + 1
        if self._step // self.every > before // self.every:
            self._write(before)

    def on_train_end(self, logs: Any = None) -> None:
        """Called by Keras: closes the files of TensorBoard.

        A run of fewer steps than `every` gets its last step's row here.
        """
        begun = self._first_step > 0 and os.path.exists(self.csv_path)
        if self._optimizers and self._table is None and not begun:
            if self._step > self._first_step:
                self._write(self._first_step)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _trust_ratios(self) -> dict[str, float]:
        """Those of all optimizers, by different names."""
        # On JAX, `fit` updates the optimizer's variables after each epoch only.
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        tables = [x.trust_ratios for x in self._optimizers]
        keys = exclusion.unique_keys([key for table in tables for key in table])
        values = [value for table in tables for value in table.values()]
        return dict(zip(keys, values))

    def _write(self, before: int) -> None:
        """Writes a row; `before` is a step before it, without a row."""
        ratios = self._trust_ratios()
        if self._table is None:
            before = self._first_step
        if self._table is None or self._table.columns[1:] != list(ratios):
            self._table = StepTable(
                self.csv_path, ratios, before, renumbered=True
            )
        self._table.write(self._step, ratios)
        if self.log_dir is None:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        with self._writer.as_default(step=self._step):
            for path, ratio in ratios.items():
                tf.summary.scalar(f"trust_ratio/{path}", ratio)


def plot_trust_ratios(csv_path: PathLike, png_path: PathLike) -> None:
    """Draws a table of `TrustRatioLogger`: one line a variable, log scale.

    Variables that were not adapted (ratio 1 throughout) are left out. Needs
    matplotlib.

    Args:
      csv_path: the table.
      png_path: the picture; its folder is made if it does not exist. It is
        written under a temporary name first.

    Raises:
      FileNotFoundError, ValueError: as `read_table`.
      ModuleNotFoundError: matplotlib is not installed.
    """
    table = {
        path: points
        for path, points in read_table(csv_path).items()
        if any(ratio != 1 for _, ratio in points)
    }
    figure = figures.new("plot_trust_ratios", 11, 6)
    axes = figure.subplots()
    colors = figures.colors("viridis", len(table))
    for color, (path, points) in zip(colors, table.items()):
        steps, ratios = zip(*points)
        axes.plot(steps, ratios, color=color, linewidth=1.2, label=path)
    axes.set(
        xlabel="step",
        ylabel="trust ratio",
        yscale="log",
        title="Trust ratio of each adapted variable, |x| / |u|",
    )
    axes.grid(alpha=0.3)
    if table:  # Else matplotlib warns.
        figure.legend(loc="outside right upper", fontsize=6, frameon=False)
    figures.save(figure, png_path)
