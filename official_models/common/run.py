"""`model.fit` as a run that can be resumed: table, TensorBoard, checkpoints."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from official_models.common import run_folder
from official_models.common.checkpoint_list import saved_steps
from official_models.common.checkpoints import Checkpoints, sync_state
from official_models.common.errors import InputError
from official_models.common.hours import Limit, Timing
from tf_lamb import find_optimizers
from tf_lamb.any_callback import AnyCallback
from tf_lamb.callbacks import StepTable, TrustRatioLogger, read_table

# Rows of metrics.csv in turn whose loss is not finite, before a run is ended.
_MOST_LOST_ROWS = 3


class _RunLog(AnyCallback):
    """A progress bar, a row in metrics.csv and TensorBoard, checkpoints."""

    def __init__(self, run: Run, first_step: int, steps_per_row: int):
        self.run, self.step, self.steps_per_row = run, first_step, steps_per_row
        self.lost_rows = 0
        columns = ["loss", "learning_rate", f"{run.unit}_per_second"]
        names = [*run.metric_names, *(f"val_{n}" for n in run.metric_names)]
        self.table = StepTable(
            run.folder / "metrics.csv",
            [*columns, *(n for n in names if n not in columns)],
            first_step,
        )
        self.writer = tf.summary.create_file_writer(run.place("tensorboard"))

    def on_train_begin(self, logs=None):
        self.bar = tqdm(
            total=self.run.total_steps,
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            # A log file wants a line now and then, not ten a second.
            mininterval=0.5 if sys.stderr.isatty() else 15,
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.step
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        # `batch` advances by more than one under steps_per_execution.
        if (batch + 1) % self.run.batches_per_step:
            return
        done = (batch + 1) // self.run.batches_per_step
        self.step = self.before + done
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update(self.step - self.bar.n)
        if done == self.steps_per_row:
            # Before on_epoch_end, so that validation is not counted.
            self.seconds = time.perf_counter() - self.began
        if self.run.terminated:
            self._stop()

    def _stop(self):
        """Saves and ends the process: its machine is wanted back."""
        self.run.save(self.step)
        self.on_train_end()
        print(
            f"{self.run.output_dir}: told to stop; saved after step "
            f"{self.step} of {self.run.total_steps}. The same command resumes "
            "the run.",
            flush=True,
        )
        sys.exit(0)

    def on_epoch_end(self, epoch, logs=None):
        run, step = self.run, self.step
        sync_state(run.model)
        rate = run.model.optimizer.learning_rate
        row = {
            **logs,
            "learning_rate": float(keras.ops.convert_to_numpy(rate)),
            f"{run.unit}_per_second": round(
                run.units_per_step * self.steps_per_row / self.seconds
            ),
        }
        self.table.write(step, row)
        with self.writer.as_default(step=step):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        self.writer.flush()
        self.lost_rows = (
            0 if math.isfinite(logs["loss"]) else self.lost_rows + 1
        )
        if self.lost_rows == _MOST_LOST_ROWS:
            self._refuse_loss(logs["loss"])
        if self.lost_rows and step < run.end_step:
            return  # The checkpoints before are of more use.
        if step // run.save_every > self.before // run.save_every or (
            step == run.end_step
        ):
            run.save(step)
        if run.limit:
            self.bar.total = run.begin_step + run.limit.pace.end

    def _refuse_loss(self, loss):
        self.on_train_end()
        last = [*saved_steps(self.run.place("checkpoints"))][-1:]
        kept = (
            f"the last checkpoint is of step {last[0]}"
            if last
            else "no checkpoint"
        )
        raise InputError(
            f"{self.run.output_dir}: the loss has been {loss} for "
            f"{_MOST_LOST_ROWS} rows, to step {self.step}: the training has "
            f"diverged ({kept}); lower --learning_rate, clip the gradients, or "
            "lengthen the warmup"
        )

    def on_train_end(self, logs=None):
        self.bar.close()
        self.writer.close()


class Run:
    """A training run in a folder; an interrupted one is resumed.

    At SIGTERM, which a cloud sends before it takes a preemptible machine back,
    it saves after the current step (with `steps_per_execution`, the current
    steps) and ends the process with status 0. A run whose loss is not finite
    for three rows of metrics.csv ends with an `InputError`.

    It writes `checkpoints/`, `tensorboard/`, `metrics.csv` and, if the
    optimizer has trust ratios, `trust_ratio.csv` under `folder`.

    Args:
        model: built and compiled; of Keras 3 or tf_keras.
        folder: as `run_folder.open_run` gives it.
        total_steps: length of the whole run.
        begin_step: where the phase begins that is trained here; checkpoints
            up to this step are left to the phases before.
        end_step: where it ends; None for `total_steps`.
        log_every: steps a row of metrics.csv; brought down to a divisor of
            the phase's steps (that the model's `steps_per_execution` divides).
        save_every: steps between checkpoints.
        batches_per_step: micro-batches an update, as the optimizer
            accumulates them.
        units_per_step: what a step works through, for the speed.
        unit: its name, such as "tokens".
        metric_names: those of the model that metrics.csv has, as they are and
            with `val_`.
        output_dir: value of the flag. If it is a URL, checkpoints and
            TensorBoard's files are written there, and the files of `folder`
            are copied to it before each checkpoint. None for `folder`.
        restore_from: folder of the checkpoints to resume from; None for this
            run's own.
        stop_on_sigterm: False where other processes would wait forever for
            one that stops.
        limit: ends the phase when its time is over, and sets the rate, which
            is no schedule then; None: it ends with its last step.

    Attributes:
        end_step: the last step, which a limit brings down.
        first_step: the step from which the run is resumed; `begin_step` for a
            new one.
        terminated: whether SIGTERM came.

    Raises:
        InputError: `steps_per_execution` divides no row.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        *,
        total_steps: int,
        begin_step: int = 0,
        end_step: int | None = None,
        log_every: int = 10,
        save_every: int = 100,
        batches_per_step: int = 1,
        units_per_step: int = 1,
        unit: str = "examples",
        metric_names: tuple[str, ...] = (),
        output_dir: str | None = None,
        restore_from: Path | str | None = None,
        stop_on_sigterm: bool = True,
        limit: Limit | None = None,
    ):
        self.model, self.folder = model, folder
        self.output_dir = output_dir or str(folder)
        self.terminated, self.limit = False, limit
        self._stop_on_sigterm = stop_on_sigterm
        self.total_steps, self.save_every = total_steps, save_every
        self.begin_step, self.end_step = begin_step, end_step or total_steps
        self.batches_per_step = batches_per_step
        self.units_per_step, self.unit = units_per_step, unit
        self.metric_names = metric_names
        self.steps_per_row = _steps_per_row(
            self.end_step - begin_step,
            log_every,
            batches_per_step,
            getattr(model, "steps_per_execution", 1),  # not in tf_keras
        )
        self.checkpoints = Checkpoints(
            model, self.place("checkpoints"), restore_from=restore_from
        )
        self.first_step = self.checkpoints.restore(after=begin_step)
        done = self.first_step - begin_step
        if limit and not limit.resume(done, self.steps_per_row):
            self.end_step = self.first_step

    def place(self, name: str) -> str:
        """Where one of the run's folders is."""
        return os.path.join(self.output_dir, name)

    def save(self, step: int) -> None:
        """Saves a checkpoint, after the tables that belong to it."""
        run_folder.push(self.folder, self.output_dir)
        self.checkpoints.save(step)

    def fit(
        self,
        make_dataset: Callable[[int, int], tf.data.Dataset],
        *,
        validation_data: tf.data.Dataset | None = None,
        validation_steps: int | None = None,
        validate_every: int = 100,
    ) -> None:
        """Trains what is left of the run; nothing if it is complete.

        Args:
            make_dataset: gives batches `first` to `last` - 1 of the run, or of
                its phase, micro-batches where a step has several.
            validation_data: finite; None for none.
            validation_steps: its batches; None for all that come. Where it is
                distributed, Keras otherwise counts an empty last one in the
                mean of each loss.
            validate_every: steps between evaluations.
        """
        n = self.steps_per_row
        validation = {
            "validation_data": validation_data,
            "validation_steps": validation_steps,
            "validation_freq": max(validate_every // n, 1),
        }
        begin, step = self.begin_step, self.first_step
        with self._sigterm(), warnings.catch_warnings():
            # That of a distributed data set: Keras does not know its length.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            # A run that was stopped in the middle of a row ends that row first.
            whole = begin + math.ceil((step - begin) / n) * n
            for end in (min(whole, self.end_step), self.end_step):
                # A limit may have brought the end down.
                if step < min(end, self.end_step):
                    row = min(n, end - step)
                    self._fit(make_dataset, step, end, row, validation)
                    step = end

    def _fit(self, make_dataset, first, end, steps_per_row, validation):
        """Trains steps `first` to `end` - 1, rows of `steps_per_row`."""
        log = _RunLog(self, first, steps_per_row)
        callbacks: list[AnyCallback] = [log]
        if self.limit:
            callbacks.insert(0, Timing(self, first, steps_per_row))
        if find_optimizers(self.model):
            ratios = TrustRatioLogger(
                self.folder / "trust_ratio.csv",
                self.place("tensorboard"),
                every=self.steps_per_row,
                first_step=first,
            )
            callbacks.append(ratios)
        k, begin = self.batches_per_step, self.begin_step
        row = (first - begin) // self.steps_per_row
        dataset = make_dataset((first - begin) * k, (end - begin) * k)
        self._check_length(dataset, first, end)
        _build_metrics(self.model, dataset)
        self.model.fit(
            dataset,
            initial_epoch=row,
            epochs=row + (end - first) // steps_per_row,
            steps_per_epoch=steps_per_row * k,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
            **validation,
        )
        if log.step < min(end, self.end_step):
            self._refuse_data_of(log.step)

    def _check_length(self, dataset, first, end):
        """Refuses what Keras would begin anew when it has ended."""
        if isinstance(dataset, tf.data.Dataset):
            steps = int(dataset.cardinality()) // self.batches_per_step
            if 0 <= steps < end - first:
                self._refuse_data_of(first + steps)

    def _refuse_data_of(self, step):
        raise InputError(
            f"the data ended after step {step} of {self.total_steps}"
        )

    @contextlib.contextmanager
    def _sigterm(self):
        """Takes note of SIGTERM, which otherwise ends the process at once."""
        main = threading.current_thread() is threading.main_thread()
        if not (self._stop_on_sigterm and main):
            yield
            return

        def note(signum, frame):
            self.terminated = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def speed(self) -> float:
        """Median units a second over its rows of metrics.csv; 0 without one."""
        if not (self.folder / "metrics.csv").exists():
            return 0.0  # not the first process, whose table it is
        rows = read_table(self.folder / "metrics.csv")
        values = [
            value
            for step, value in rows[f"{self.unit}_per_second"]
            if self.begin_step < step <= self.end_step
        ]
        # The first row holds the compilation.
        return statistics.median(values[1:] or values or [0.0])


def _steps_per_row(total_steps, log_every, batches_per_step, per_execution):
    """The largest row that divides the run and that executions fill."""
    rows = [
        n
        for n in range(1, max(log_every, per_execution) + 1)
        if total_steps % n == 0 and n * batches_per_step % per_execution == 0
    ]
    fitting = [n for n in rows if n <= log_every] or rows[:1]
    if not fitting:
        raise InputError(
            f"--steps_per_execution {per_execution}: expected a divisor of the "
            f"{total_steps * batches_per_step} batches of the run"
        )
    return max(fitting)


def _build_metrics(model, dataset):
    """Makes the variables of losses and metrics before `fit` does.

    Keras 3 makes them within the step, on TensorFlow without a strategy. Then
    TensorFlow traces the step, of which they were no part, once more.
    """
    build = getattr(model, "_symbolic_build", None)
    alone = getattr(model, "_distribute_strategy", True) is None
    if build and alone and isinstance(dataset, tf.data.Dataset):
        build(data_batch=dataset.element_spec)
