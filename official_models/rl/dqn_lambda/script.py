"""What the scripts of DQN(lambda) and of A3C do around their own loops."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from absl import flags, logging

from official_models.common import files, run_folder
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from tf_lamb.callbacks import read_table

FLAGS = flags.FLAGS
REPORT, METRICS = "report.json", "metrics.csv"
RECENT = 100  # episodes that the screen and metrics.csv tell the mean of


class Learner(Protocol):
    """What a training has counted.

    Attributes:
        steps: Transitions.
        scores: (step, return) of each episode that ended.
    """

    steps: int
    scores: list[tuple[int, float]]


class Options(Protocol):
    """A module that makes a learner of the flags."""

    def check(self) -> None:
        """Refuses flags that do not fit together."""

    def make_learner(self) -> Any:
        """The learner before its first step."""


def need_tensorflow() -> None:
    """Refuses another backend of Keras.

    Raises:
        InputError: It is another one.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise InputError(
            f"KERAS_BACKEND {backend}: this script needs tensorflow; unset it"
        )


def recent_return(learner: Learner) -> float | None:
    """Mean return of the last episodes that ended; None before the first."""
    last = [score for _, score in learner.scores[-RECENT:]]
    return float(np.mean(last)) if last else None


def check_replayed(learner: Learner, path: Path) -> None:
    """Refuses to go on where the games did not repeat what they did.

    Args:
        learner: After its games were played again.
        path: Of metrics.csv.

    Raises:
        InputError: In a row up to there, another number of episodes had ended,
            or they had another mean return.
    """
    columns = read_table(path)
    returns_then = dict(columns.get("return", []))
    ends = [step for step, _ in learner.scores]
    for step, count in columns.get("episodes", []):
        if step > learner.steps:
            break
        now = bisect.bisect_right(ends, step)
        last = [score for _, score in learner.scores[:now][-RECENT:]]
        for what, then, found in (
            ("episodes", count, now),
            ("mean return", returns_then.get(step), np.mean(last or [0])),
        ):
            if then is not None and not math.isclose(then, found):
                raise InputError(
                    f"{path}: {what} {then:g} at step {step:.0f}, played again "
                    f"it is {found:g}: the saved actions are damaged, or the "
                    "games are of another version than those that the run "
                    "began with; name another --output_dir"
                )


def returns(trained: Sequence[float], last: Sequence[float]) -> dict[str, Any]:
    """Of report.json: the episodes of a training, and its last tenth's.

    Args:
        trained: Returns.
        last: Those of the last tenth of the transitions.
    """
    return {
        "episodes": len(trained),
        "mean_return": float(np.mean(trained)) if trained else None,
        "mean_return_of_last_tenth": float(np.mean(last)) if last else None,
    }


def run(
    options: Options,
    fit: Callable[[Any, Path], None],
    finish: Callable[[Any, Path], dict[str, Any]],
) -> None:
    """Trains what is left, evaluates, and reports.

    Args:
        options: Of the training.
        fit: Trains a learner, in a folder, to the end.
        finish: Evaluates it, and writes and gives the report.
    """
    logging.set_verbosity(logging.WARNING)
    run_folder.need_local(FLAGS.output_dir)
    need_tensorflow()
    options.check()
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    identity = run_flags.identity()
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    if (folder / REPORT).exists():
        figures = read_report(folder / REPORT)
        _say_what_was_before(folder / REPORT, figures["flags"])
    else:
        learner = options.make_learner()
        run_folder.record_run(folder, identity)
        fit(learner, folder)
        figures = finish(learner, folder)
    scores, mean = figures["evaluation"], figures["training"]["mean_return"]
    print(
        f"{folder}: mean return {scores['mean']:.2f} ± "
        f"{scores['standard_error']:.2f} over {scores['episodes']} episodes "
        f"({scores['cut']} cut); in training "
        f"{'no episode ended' if mean is None else f'{mean:.2f}'}; "
        f"{REPORT}, model.keras, learning_curve.png, episode.gif"
    )


def read_report(path: Path) -> dict[str, Any]:
    """What a run has written of itself.

    Args:
        path: Of its report.json.

    Raises:
        InputError: It is damaged, or of something else.
    """
    remedy = "remove it and give the run's command again"
    figures = files.read_json(path, remedy)
    try:
        for name in ("mean", "standard_error", "episodes", "cut"):
            float(figures["evaluation"][name])
        float(figures["training"]["mean_return"] or 0)
        dict(figures["flags"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: lacks figures of a training or of its evaluation; "
            f"{remedy}"
        ) from error
    return figures


def _say_what_was_before(path: Path, before: Mapping[str, Any]) -> None:
    """Says which flags of this command have no effect on a complete run."""
    other = [
        f"--{name} {before[name]}"
        for name, value in run_flags.values().items()
        if name.startswith("eval_") and before.get(name, value) != value
    ]
    if other:
        print(
            f"{path}: evaluated with {', '.join(other)}; remove it to evaluate "
            "as this command has it"
        )
