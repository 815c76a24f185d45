"""A job as a process: run to its end, or killed; and what it leaves."""

import os
import re
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests import warm

ROOT = Path(__file__).parents[3]


def environment() -> dict[str, str]:
    """Of a job: without TensorFlow's notes."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(command: list[str]) -> str:
    """Runs a job to its end; gives what it printed."""
    done = warm.run(
        command,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kill_once_saved(command: list[str], folder: Path, step: int) -> int:
    """SIGKILL as soon as a job has saved a step; gives its last one's number.

    Args:
        command: of the job.
        folder: of its checkpoints.
        step: of the checkpoint that is waited for.
    """
    with tempfile.TemporaryFile("w+") as log:
        job = warm.popen(
            command, cwd=ROOT, env=environment(), stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + 200
            # The file that says which checkpoint is the last.
            state = folder / "checkpoint"
            while not (state.exists() and f'-{step}"' in state.read_text()):
                if job.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise AssertionError(log.read()[-3000:])
                time.sleep(0.005)
        finally:
            job.kill()
    assert job.wait() == -signal.SIGKILL, "it ended before the kill"
    path = tf.train.latest_checkpoint(str(folder))
    return int(re.search(r"-(\d+)$", path)[1])


def weights(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of the last checkpoint in a folder."""
    path = tf.train.latest_checkpoint(str(folder))
    return {
        name: tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
    }


def assert_same_end(one: Path, other: Path, steps: int) -> None:
    """Two runs ended after `steps` with the same arrays, to the bit."""
    expected, actual = weights(one), weights(other)
    assert expected.keys() == actual.keys()
    assert expected["global_step"] == steps
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def summaries(folder: Path) -> dict[str, dict[int, float]]:
    """{tag: {step: value}} of a run's own event files."""
    found = {}
    for path in sorted(folder.glob("events.out.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.HasField("tensor"):
                    number = float(tf.make_ndarray(value.tensor))
                    found.setdefault(value.tag, {})[event.step] = number
    return found
