"""`model.fit` as a run: progress, tables, TensorBoard, checkpoints, resume."""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from official_models.common.errors import InputError
from official_models.common.run_dir import Checkpoints
from tf_lamb.callbacks import StepTable, TrustRatioLogger, read_table


class _RunLog(keras.callbacks.Callback):
    """A progress bar, a row in metrics.csv and TensorBoard, checkpoints."""

    def __init__(self, run: "Run", first_step: int, steps_per_row: int):
        super().__init__()
        self.run, self.step, self.steps_per_row = run, first_step, steps_per_row
        columns = ["loss", "learning_rate", f"{run.unit}_per_second"]
        names = [*run.metric_names, *(f"val_{n}" for n in run.metric_names)]
        self.table = StepTable(
            run.folder / "metrics.csv",
            [*columns, *(n for n in names if n not in columns)],
            first_step,
        )
        self.writer = tf.summary.create_file_writer(
            str(run.folder / "tensorboard")
        )

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
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % self.run.batches_per_step:
            return
        self.step += 1
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()
        if batch + 1 == self.steps_per_row * self.run.batches_per_step:
            # Before on_epoch_end, so that validation is not counted.
            self.seconds = time.perf_counter() - self.began

    def on_epoch_end(self, epoch, logs=None):
        run, step = self.run, self.step
        rate = self.model.optimizer.learning_rate
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
        before = step - self.steps_per_row
        if step // run.save_every > before // run.save_every or (
            step == run.total_steps
        ):
            run.checkpoints.save(step)

    def on_train_end(self, logs=None):
        self.bar.close()
        self.writer.close()


class Run:
    """A training run in a folder; interrupted, it goes on where it was.

    Under `folder` come `checkpoints/`, `tensorboard/`, `metrics.csv` and, if
    the optimizer has trust ratios, `trust_ratio.csv`.

    Args:
        model: built and compiled.
        folder: as `run_dir.open_run` gives it.
        total_steps: length of the whole run.
        log_every: steps a row of metrics.csv; brought down to a divisor of
            `total_steps`.
        save_every: steps between checkpoints.
        batches_per_step: micro-batches an update, as the optimizer
            accumulates them.
        units_per_step: what a step works through, for the speed.
        unit: its name, such as "tokens".
        metric_names: those of the model that metrics.csv has, as they are and
            with `val_`.
        restore_from: folder of the checkpoints to go on from; None for this
            run's own.

    Attributes:
        first_step: the step that the run goes on from.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: Path,
        *,
        total_steps: int,
        log_every: int = 10,
        save_every: int = 100,
        batches_per_step: int = 1,
        units_per_step: int = 1,
        unit: str = "examples",
        metric_names: tuple[str, ...] = (),
        restore_from: Path | None = None,
    ):
        self.model, self.folder = model, folder
        self.total_steps, self.save_every = total_steps, save_every
        self.batches_per_step = batches_per_step
        self.units_per_step, self.unit = units_per_step, unit
        self.metric_names = metric_names
        self.steps_per_row = max(
            n
            for n in range(1, min(log_every, total_steps) + 1)
            if total_steps % n == 0
        )
        self.checkpoints = Checkpoints(
            model, folder / "checkpoints", restore_from=restore_from
        )
        self.first_step = self.checkpoints.restore()

    def fit(
        self,
        make_dataset: Callable[[int, int], tf.data.Dataset],
        *,
        validation_data: tf.data.Dataset | None = None,
        validate_every: int = 100,
    ) -> None:
        """Trains what is left of the run; nothing if it is complete.

        Args:
            make_dataset: gives batches `first` to `last` - 1 of the run,
                micro-batches where a step has several.
            validation_data: finite; None for none.
            validate_every: steps between evaluations.
        """
        first, n = self.first_step, self.steps_per_row
        k = self.batches_per_step
        if first >= self.total_steps:
            return
        log = _RunLog(self, first, n)
        callbacks = [log]
        if hasattr(self.model.optimizer, "trust_ratios"):
            callbacks.append(
                TrustRatioLogger(
                    self.folder / "trust_ratio.csv",
                    self.folder / "tensorboard",
                    every=n,
                    first_step=first,
                )
            )
        with warnings.catch_warnings():
            # That of a distributed data set: Keras does not know its length.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            self.model.fit(
                make_dataset(first * k, self.total_steps * k),
                initial_epoch=first // n,
                epochs=self.total_steps // n,
                steps_per_epoch=n * k,
                validation_data=validation_data,
                validation_freq=max(validate_every // n, 1),
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
        if log.step < self.total_steps:
            raise InputError(
                f"the data ended after step {log.step} of {self.total_steps}"
            )

    def speed(self) -> float:
        """Median units a second over the rows of metrics.csv."""
        rows = read_table(self.folder / "metrics.csv")
        values = [v for _, v in rows[f"{self.unit}_per_second"]]
        # The first row holds the compilation.
        return statistics.median(values[1:] or values)
