"""Training scripts under test: run in this process, and what they leave."""

import contextlib
import csv

import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

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
    """The script's main, under `flags_of`."""
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        flags.FLAGS([script.__name__, *arguments])
        script.main([])


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
    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/ckpt-{step}"))
    return {
        name: reader.get_tensor(name)
        for name, dtype in reader.get_variable_to_dtype_map().items()
        if dtype != tf.string
    }
