"""Training scripts under test: run in this process, and what they leave."""

import contextlib
import csv
import importlib.util
import time

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from official_models.common import run_folder
from official_models.common.errors import InputError


@contextlib.contextmanager
def flags_of(script):
    """Defines the flags of a script, and takes them away at the end.

    One script's at a time: those of several have the same names.
    """
    before = set(flags.FLAGS)
    try:
        script.define_flags()
        with flagsaver.flagsaver():
            yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)


def run(script, *arguments):
    """The script's main, under `flags_of`.

    What it asks of TensorFlow for the whole process ends with it: a later run
    here would not repeat, to the bit, that of a process of its own.
    """
    flags.FLAGS.unparse_flags()
    with _as_deterministic_as_before(), flagsaver.flagsaver():
        flags.FLAGS([script.__name__, *arguments])
        script.main([])


@contextlib.contextmanager
def _as_deterministic_as_before():
    if importlib.util.find_spec("tensorflow") is None:
        yield
        return
    # Only enabling is public.
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    try:
        yield
    finally:
        run_folder.release()
        if not before:
            config.disable_op_determinism()


def refusal(call, *parts):
    """Asserts an InputError of one line that has all of `parts`; gives it."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, message
    return message


def rows(path):
    """A CSV file's rows as dicts."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def variables(folder, step):
    """The arrays of a run's checkpoint, by name."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/ckpt-{step}"))
    return {
        name: reader.get_tensor(name)
        for name, dtype in reader.get_variable_to_dtype_map().items()
        if dtype != tf.string
    }


def same_weights(one, other, step, **tolerance):
    """Asserts that two runs' checkpoints hold the same, to the bit or near."""
    a, b = variables(one, step), variables(other, step)
    assert a.keys() == b.keys()
    # How often was saved is no part of a run.
    for name in a.keys() - {"save_counter/.ATTRIBUTES/VARIABLE_VALUE"}:
        np.testing.assert_allclose(
            a[name], b[name], err_msg=name, **{"rtol": 0, **tolerance}
        )


def signal_once_there(process, path, number):
    """Waits for a file of a script, then sends it a signal; gives its words."""
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    return process.communicate(timeout=120)
