"""A pytest plugin that runs the Python blocks of README and the site's pages.

    python -m pytest -p tests.docs.code_blocks README.md docs

Every block fenced as ```python is run, in the order of its page; the blocks of
a page share one namespace. A comment on the line above a block says where it is
run, if that is not Keras 3 on TensorFlow, or why it cannot be run here:

    <!-- runs on: jax -->
    <!-- runs on: tensorflow, jax, torch -->
    <!-- not run: needs a TPU -->

The blocks that are not run are listed at the end, each with its reason.
"""

import importlib.metadata
import os
import re
import tempfile
from pathlib import Path

import pytest
import sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("tensorflow", "jax", "torch", "tf_keras", "tf215")
DEVICES = 4
_MARK = re.compile(r"<!-- (runs on|not run)\b:? ?(.*?) ?-->[ \t]*\n[ \t]*\Z")
_PYTHON_LIKE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*(py\S*.*?)[ \t]*$", re.M)
# Of this run: [(page, line, reason)]
not_run = []


def environment() -> str:
    """Which of `ENVIRONMENTS` this process is."""
    if importlib.metadata.version("keras").startswith("2."):
        return "tf215"
    if os.environ.get("TF_USE_LEGACY_KERAS") in ("true", "True", "1"):
        return "tf_keras"
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def mark_of(text: str, start: int, where: str):
    """What the comment above a block says.

    Args:
      text: the page.
      start: position of the block's fence.
      where: page and line, for messages.

    Returns:
      The names of environments, and None; or no names, and why it is not run.

    Raises:
      ValueError: an unknown environment, or no reason.
    """
    found = _MARK.search(text, 0, start)
    if found is None:
        return ("tensorflow",), None
    kind, value = found.groups()
    if kind == "not run":
        if not value:
            raise ValueError(
                f"{where}: 'not run' without a reason; expected "
                "<!-- not run: why -->."
            )
        return (), value
    names = tuple(name.strip() for name in value.split(","))
    unknown = [name for name in names if name not in ENVIRONMENTS]
    if unknown:
        raise ValueError(
            f"{where}: runs on {unknown[0]!r}; expected some of "
            f"{', '.join(ENVIRONMENTS)}."
        )
    return names, None


class Blocks:
    """The parser of Sybil's that keeps the blocks of one environment."""

    def __init__(self, here: str):
        self.here = here
        self._parse = PythonCodeBlockParser()

    def __call__(self, document):
        page = os.path.relpath(document.path, ROOT)
        for language in _PYTHON_LIKE.findall(document.text):
            if language != "python":
                raise ValueError(
                    f"{page}: a block fenced as {language!r} would not be run; "
                    "expected 'python', with marks in a comment above it."
                )
        for region in self._parse(document):
            line = document.text.count("\n", 0, region.start) + 1
            names, reason = mark_of(
                document.text, region.start, f"{page}:{line}"
            )
            if reason is not None:
                not_run.append((page, line, reason))
            if self.here in names:
                yield region


_folders = []


def _set_up(namespace):
    """An empty folder, seeds, and a Keras as a new process has it."""
    folder = tempfile.TemporaryDirectory()
    _folders.append((os.getcwd(), folder))
    os.chdir(folder.name)
    namespace["__name__"] = "__main__"
    here = environment()
    if here == "tf215":
        from tensorflow import keras
    elif here == "tf_keras":
        import tf_keras as keras
    else:
        import keras
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("float32")
    if here == "jax":
        keras.distribution.set_distribution(None)
    elif here != "torch":
        _separate_collectives()


def _separate_collectives():
    """Gives a page's MirroredStrategy keys that no earlier page has used.

    Every strategy of a process counts its collective operations from the same
    number, and TensorFlow remembers their shapes. To a reader, pages are
    programs of their own.
    """
    from tensorflow.python.distribute import cross_device_utils

    cross_device_utils.INSTANCE_KEY_START_NUMBER += 10_000


def _tear_down(namespace):
    before, folder = _folders.pop()
    os.chdir(before)
    folder.cleanup()


pytest_collect_file = sybil.Sybil(
    [Blocks(environment())],
    path=str(ROOT),
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=_set_up,
    teardown=_tear_down,
).pytest()


def pytest_configure(config):
    """Several devices, before anything is initialised."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MPLBACKEND", "Agg")
    here = environment()
    if here == "jax":
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "")
            + f" --xla_force_host_platform_device_count={DEVICES}"
        )
    elif here != "torch":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * DEVICES,
        )


def pytest_report_header(config):
    return f"code blocks of: {environment()}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    if not_run:
        terminalreporter.section("blocks that are not run anywhere")
    for page, line, reason in not_run:
        terminalreporter.write_line(f"{page}:{line}: {reason}")
