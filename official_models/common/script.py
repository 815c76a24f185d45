"""What every train script does around its data, its model and `model.fit`.

    training = script.Training(script.begin())
    folder = training.open_folder(facts)  # refuses the folder of another run
    model = training.build(make_model)
    run = training.start(model, total_steps=..., ...)  # resumes it
    run.fit(make_dataset, ...)
    training.save(model)
    training.finish(report, figures, title)

A script that needs something else leaves a step out and writes its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf
from absl import flags as absl_flags
from absl import logging

from official_models.common import (
    backend,
    flags,
    model_parallel,
    run_folder,
    strategies,
)
from official_models.common.errors import InputError
from official_models.common.hours import Limit
from official_models.common.run import Run

FLAGS = absl_flags.FLAGS


def begin(
    layouts: model_parallel.Layouts | None = None,
) -> strategies.Strategy:
    """The strategy of the flags, with all seeds set.

    Call it before TensorFlow or JAX runs anything.

    Args:
        layouts: as of `strategies.from_flags`.

    Raises:
        InputError: as `strategies.from_flags` and `backend.check_dtype`.
    """
    logging.set_verbosity(logging.WARNING)
    strategy = strategies.from_flags(layouts)
    backend.check_dtype()
    keras.utils.set_random_seed(FLAGS.seed)
    if strategies.is_alone(strategy) and not strategies.compiles_step(
        FLAGS.jit_compile
    ):
        # Keras refuses to compile under this switch; XLA on CPU repeats itself
        # without it.
        tf.config.experimental.enable_op_determinism()
    return strategy


class Training:
    """One start of a train script, from its folder to its report.

    Args:
        strategy: of `begin`, or `tf.distribute.get_strategy()`.

    Attributes:
        strategy: as given.
        is_chief: whether this process writes files.
        folder: of the run, on this machine; after `open_folder`.
    """

    def __init__(self, strategy: strategies.Strategy):
        self.strategy = strategy
        self.is_chief = strategies.is_chief(strategy)
        self.folder: Path | None = None
        self._identity: dict[str, Any] = {}

    def micro_batch_size(self, phase: str = "") -> int:
        """Examples of --global_batch_size that are in memory at once.

        Args:
            phase: what the names of the flags begin with, such as "phase2_".

        Raises:
            InputError: it has not as many equal parts, or the replicas cannot
                share a part evenly.
        """
        name = f"{phase}global_batch_size"
        parts_name = f"{phase}gradient_accumulation_steps"
        batch, parts = FLAGS[name].value, FLAGS[parts_name].value
        if batch % parts:
            raise InputError(
                f"--{parts_name} {parts}: expected a divisor of --{name} "
                f"{batch}"
            )
        size = batch // parts
        strategies.check_batch(self.strategy, name, size)
        return size

    def open_folder(self, facts: Mapping[str, Any]) -> Path:
        """Makes the folder of --output_dir, or finds this same run in it.

        Args:
            facts: what decides the weights beside flags, such as digests of
                data, as JSON values.

        Returns:
            `folder`.

        Raises:
            InputError: as `run_folder.open_run`.
        """
        devices = strategies.facts(self.strategy)
        self._identity = {**flags.identity(), **devices, **facts}
        self.folder = run_folder.open_run(
            FLAGS.output_dir, self._identity, writes=self.is_chief
        )
        return self.folder

    def build(self, make_model: Callable[[], keras.Model]) -> keras.Model:
        """The model, made under the strategy; the same one in all processes."""
        return strategies.build(self.strategy, make_model)

    def start(
        self,
        model: Any,
        *,
        total_steps: int,
        begin_step: int = 0,
        end_step: int | None = None,
        unit: str,
        units_per_step: int,
        metric_names: tuple[str, ...],
        description: str,
        steps_per_epoch: int | None = None,
        batches_per_step: int = 1,
        initialize: Callable[[], None] = lambda: None,
        limit: Limit | None = None,
    ) -> Run:
        """The run of the flags, at the step from which it is resumed.

        From now on the folder is this run's. Prints what is trained.

        Args:
            model: built and compiled.
            total_steps: as for `Run`, like the next five.
            unit: such as "tokens".
            units_per_step: how many a step works through.
            metric_names: columns of metrics.csv.
            description: of the data, in a line.
            steps_per_epoch: the default of --save_every.
            batches_per_step: micro-batches of an update.
            initialize: called on a new run, or on a new phase, before its
                first step.
            limit: as for `Run`.

        Raises:
            InputError: as `Run`, `Checkpoints.restore` and `initialize`.
        """
        run = Run(
            model,
            # Nobody reads the files of the other processes.
            self.folder if self.is_chief else Path(tempfile.mkdtemp()),
            total_steps=total_steps,
            begin_step=begin_step,
            end_step=end_step,
            log_every=FLAGS.log_every,
            save_every=FLAGS.save_every or steps_per_epoch or total_steps,
            batches_per_step=batches_per_step,
            units_per_step=units_per_step,
            unit=unit,
            metric_names=metric_names,
            output_dir=FLAGS.output_dir if self.is_chief else None,
            restore_from=os.path.join(FLAGS.output_dir, "checkpoints"),
            stop_on_sigterm=strategies.can_stop(self.strategy),
            limit=limit,
        )
        if run.first_step == begin_step:
            initialize()
        if self.is_chief:
            run_folder.record_run(self.folder, self._identity)
        print(f"{description}; {model.count_params():,} parameters.")
        if run.first_step > begin_step:
            print(f"{FLAGS.output_dir}: resuming from step {run.first_step}.")
        return run

    def save(self, model: keras.Model) -> None:
        """Writes model.keras into the folder; all processes have to call it."""
        strategies.save(self.strategy, model, self.folder / "model.keras")

    def finish(
        self, report: ModuleType, figures: Mapping[str, Any], title: str
    ) -> None:
        """Writes the report, copies it to a URL and prints it.

        Args:
            report: has `write(folder, figures, title)` and `show(figures)`.
            figures: what was reached, as JSON values.
            title: what was trained, for the pictures; the optimizer and the
                batch are added.
        """
        if not self.is_chief:
            return
        title = (
            f"{title}, {FLAGS.optimizer.upper()}, batch "
            f"{FLAGS.global_batch_size}"
        )
        report.write(self.folder, figures, title)
        run_folder.push(self.folder, FLAGS.output_dir)
        print(report.show(figures))
        names = ["report.json", "checkpoints"]
        for pattern in ("model*", "*.png"):
            names += sorted(path.name for path in self.folder.glob(pattern))
        print(f"\n{FLAGS.output_dir}: {', '.join(names)}.")
