"""One script's flags at a time: those of several have the same names."""

import contextlib

from absl import flags
from absl.testing import flagsaver


@contextlib.contextmanager
def flags_of(script):
    """Defines the flags of a script, and takes them away at the end."""
    before = set(flags.FLAGS)
    try:
        script.define_flags()
        with flagsaver.flagsaver():
            yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
