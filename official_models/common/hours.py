r"""`--hours`: a run that ends on time, its rate decayed to the end.

A phase of a run has a schedule over its S steps. Under `--hours` it goes
through this schedule at the pace that the time allows. At step s its rate is
the schedule's at the position

$$p(s) = p_i + (s - s_i)\, (S - p_i) / (n_i - s_i),\qquad s \ge s_i$$

where, at step s_i, the time that was left was enough up to step n_i <= S. The
first estimate is made after the first row of metrics.csv, without the step
that compiles, and again whenever a hundredth of the time has passed; so the
rate has no jumps, and evaluations and checkpoints count. A run of which all
steps fit has the rates of one without `--hours`.

Time is that of the clock, from the opening of the folder on, over all starts of
the run. It is in hours.json after each row. Which steps fit is not
repeatable, so neither are the weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
from absl import flags

from official_models.common import files, strategies
from official_models.common.checkpoints import sync_state
from official_models.common.errors import InputError
from tf_lamb.any_callback import AnyCallback

FLAGS = flags.FLAGS
RECORD = "hours.json"
_REVISED_EVERY = 0.01  # of the hours
_now = time.monotonic


def define_flags() -> None:
    """Defines the flag."""
    flags.DEFINE_float(
        "hours",
        None,
        "Hours of training, evaluations and set-up included, over all starts "
        "of the run: it does as many of --steps as fit, at a rate that has "
        "decayed when they are over. Default: no limit.",
    )


def check_flags(strategy: strategies.Strategy) -> None:
    """Refuses a time that is none, and several processes.

    Args:
        strategy: of the run.

    Raises:
        InputError: names the flag.
    """
    hours = FLAGS.hours
    if hours is None:
        return
    if not (math.isfinite(hours) and hours > 0):
        raise InputError(f"--hours {hours:g}: expected a number above 0")
    if not strategies.can_stop(strategy):
        raise InputError(
            f"--hours {hours:g}: for one process; several would each stop at "
            "a step of their own. Give --steps alone"
        )


class Stretch(NamedTuple):
    """What was estimated at a step of a phase.

    Attributes:
        step: s_i, of the phase.
        position: p_i, there.
        end: n_i, the step at which the time will be over.
    """

    step: int
    position: float
    end: int


class Pace:
    """Where in its schedule a phase is at each step.

    Args:
        steps: S.
        stretches: of earlier starts.
    """

    def __init__(self, steps: int, stretches: Sequence[Stretch] = ()):
        self.steps = steps
        self.stretches = list(stretches) or [Stretch(0, 0.0, steps)]

    @property
    def end(self) -> int:
        """The step at which the phase will end, as far as is known."""
        return self.stretches[-1].end

    def position(self, step: int) -> float:
        """p(step), in [0, S]."""
        s = [s for s in self.stretches if s.step <= step][-1]
        if step >= s.end:
            return float(self.steps)
        pace = (self.steps - s.position) / (s.end - s.step)
        return s.position + (step - s.step) * pace

    def forget_after(self, step: int) -> None:
        """Drops what was estimated in steps that are trained again."""
        self.stretches = [s for s in self.stretches if s.step <= step]

    def revise(self, step: int, more: int) -> None:
        """From `step` on, `more` steps fit; with these, at most S are done."""
        position = self.position(step)
        self.forget_after(step - 1)
        end = min(step + more, self.steps)
        self.stretches.append(Stretch(step, position, end))


class Speed:
    """Seconds of a step over the last quarter of the steps of a start.

    So it follows a machine that changes its pace, and evaluations are in it.
    """

    def __init__(self):
        self._points: list[tuple[int, float]] = []
        self._first = 0

    def add(self, step: int, at: float) -> None:
        """A step has ended at this time; the first one is not measured."""
        if not self._points:
            self._first = step
        self._points.append((step, at))
        oldest = self._first + 0.75 * (step - self._first)
        while len(self._points) > 2 and self._points[1][0] <= oldest:
            del self._points[0]

    def seconds(self) -> float | None:
        """Of a step; None after a single one."""
        (step, at), (last, now) = self._points[0], self._points[-1]
        return (now - at) / (last - step) if last > step else None


class Limit:
    """When a phase has to end, and its rate until then.

    Args:
        schedule: the rate at each step of the phase.
        steps: S, of the phase.
        seconds: of the run's time, at which the phase ends.
        times: of the run.
        phase: its number, from 0.

    Attributes:
        pace: of the phase.
        speed: of the steps; `Speed.add` has to be called after the first one.
        is_over: whether the run has to stop here.
    """

    def __init__(
        self,
        schedule: Callable[[float], Any],
        steps: int,
        seconds: float,
        times: Times,
        phase: int,
    ):
        self.schedule, self.seconds = schedule, seconds
        self.times, self.phase = times, phase
        self.pace = Pace(steps, times.stretches(phase))
        self.speed, self.is_over = Speed(), False
        self._revised_at, self._is_said = -math.inf, False

    def resume(self, step: int, steps_per_row: int) -> bool:
        """Goes back to a step; whether another one is to be trained."""
        self.pace.forget_after(step)
        if 0 < step < self.pace.end and self._left() <= 0:
            self._finish(step, steps_per_row - step % steps_per_row)
        return step < self.pace.end

    def rate(self, step: int) -> float:
        """The learning rate of a step of the phase."""
        rate = self.schedule(self.pace.position(step))
        return float(keras.ops.convert_to_numpy(rate))

    def row(self, step: int, steps_per_row: int) -> None:
        """A row ends: estimates what fits, decides whether it was the last.

        Args:
            step: of the phase.
            steps_per_row: what is trained at least.
        """
        now = self.times.used()
        self.speed.add(step, now)
        seconds = self.speed.seconds()
        due = now - self._revised_at >= _REVISED_EVERY * self.seconds
        if seconds and due and step < self.pace.end:
            self._revised_at = now
            rows = round(self._left() / seconds / steps_per_row)
            if rows > 0:
                self.pace.revise(step, rows * steps_per_row)
                self._say(now + (self.pace.end - step) * seconds)
            else:
                self._finish(step, steps_per_row)
        self.is_over = step >= self.pace.end
        self.times.write(self.phase, self.pace.stretches)

    def ended(self, end: int) -> None:
        """Records that the phase ended after step `end` of the run."""
        if self.times.end(self.phase) is None:
            self.times.write(self.phase, self.pace.stretches, end)

    def _say(self, ends_at: float) -> None:
        """Prints, once, what fits and when the phase will have ended."""
        end, steps = self.pace.end, self.pace.steps
        fits = f"about {end:,} of {steps:,} steps fit"
        if end == steps:
            fits = f"all {steps:,} steps fit"
        if not self._is_said:
            print(
                f"{fits}; on this machine the phase ends after about "
                f"{ends_at / 60:,.1f} minutes of the run, of "
                f"{self.seconds / 60:,.1f} at most.",
                flush=True,
            )
        self._is_said = True

    def _finish(self, step: int, more: int) -> None:
        """In the last row of a phase whose time is up its rate decays."""
        position, steps = self.pace.position(step), self.pace.steps
        self.pace.revise(step, more)
        if position < 0.95 * steps:
            print(
                f"The time was up after step {step:,} of the phase, at "
                f"{position / steps:.0%} of its schedule: the rate decays in "
                f"{more:,} steps more.",
                flush=True,
            )

    def _left(self) -> float:
        return self.seconds - self.times.used()


class Times:
    """The time that a run has used, and where its phases ended.

    Args:
        folder: of the run, with the record of earlier starts if there were
            any.
        hours: of the run.
        now: gives seconds.

    Raises:
        InputError: the record is damaged.
    """

    def __init__(
        self,
        folder: Path,
        hours: float,
        now: Callable[[], float],
    ):
        self.seconds, self._now, self._began = hours * 3600, now, now()
        self._path = folder / RECORD
        self._before, self._phases = self._read()
        self._recorded = self._before

    def _read(self) -> tuple[float, list[dict[str, Any]]]:
        if not self._path.exists():
            return 0.0, []
        remedy = "remove it to begin with all hours again"
        record = files.read_json(self._path, remedy)
        try:
            phases = [
                {
                    "end": phase["end"],
                    "stretches": [Stretch(*s) for s in phase["stretches"]],
                }
                for phase in record["phases"]
            ]
            if any(p["stretches"] and p["stretches"][0].step for p in phases):
                raise ValueError("no stretch from step 0")
            return float(record["seconds"]), phases
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._path}: expected seconds and phases, as a run of "
                f"--hours writes them; {remedy}"
            ) from error

    def used(self) -> float:
        """Seconds, over all starts."""
        return self._before + self._now() - self._began

    def figures(self) -> dict[str, Any]:
        """What a report says of it: hours, and the steps of each phase's end.

        The training's hours: what comes after it is not in them.
        """
        return {
            "hours": round(self._recorded / 3600, 4),
            "phases_ended_after_steps": [x["end"] for x in self._phases],
        }

    def stretches(self, phase: int) -> list[Stretch]:
        """What was estimated of a phase so far."""
        known = self._phases[phase : phase + 1]
        return [s for found in known for s in found["stretches"]]

    def end(self, phase: int) -> int | None:
        """The step of the run after which a phase ended; None if it did not."""
        known = self._phases[phase : phase + 1]
        return known[0]["end"] if known else None

    def write(
        self, phase: int, stretches: Sequence[Stretch], end: int | None = None
    ) -> None:
        """Records the time, and a phase. What is after it begins anew."""
        self._phases[phase:] = [{"end": end, "stretches": list(stretches)}]
        self._recorded = self.used()
        record = {"seconds": self._recorded, "phases": self._phases}
        files.write_json(self._path, record)


def open_times(folder: Path) -> Times | None:
    """The times of the flags; None without --hours.

    Args:
        folder: of the run.

    Raises:
        InputError: as `Times`.
    """
    if FLAGS.hours is None:
        return None
    times = Times(folder, FLAGS.hours, _now)
    print(
        f"{times.used() / 3600:.4f} of {FLAGS.hours:.4f} hours are used; as "
        "many of the steps as fit are done.",
        flush=True,
    )
    return times


class Timing(AnyCallback):
    """Sets the rate before each step, and ends `fit` with its last row.

    Args:
        run: that is trained; has a `limit`.
        first_step: of the run.
        steps_per_row: of an epoch of `fit`.
    """

    def __init__(self, run: Any, first_step: int, steps_per_row: int):
        self.run, self.limit = run, run.limit
        self.step, self.steps_per_row = first_step, steps_per_row
        self.is_first = True

    def on_train_begin(self, logs=None):
        self._set_rate()

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.step

    def on_train_batch_end(self, batch, logs=None):
        # As `_RunLog` counts.
        if (batch + 1) % self.run.batches_per_step:
            return
        self.step = self.before + (batch + 1) // self.run.batches_per_step
        if self.is_first:
            self.limit.speed.add(self._done(), self.limit.times.used())
        self.is_first = False
        self._set_rate()

    def on_epoch_end(self, epoch, logs=None):
        self.limit.row(self._done(), self.steps_per_row)
        self._set_rate()
        if self.limit.is_over:
            # Before the run's own callback, which saves after the last step.
            self.run.end_step = self.step
            self.run.model.stop_training = True

    def _done(self) -> int:
        """Steps of the phase."""
        return self.step - self.run.begin_step

    def _set_rate(self):
        """Sets the rate of the next step."""
        model = self.run.model
        sync_state(model)
        model.optimizer.learning_rate = self.limit.rate(self._done())
