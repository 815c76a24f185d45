"""A script whose imports fail for want of a package: one line, no traceback."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from types import TracebackType

_OURS = ("benchmarks", "official_models", "tf_lamb", "tpu")
# Extras of tf-lamb, by the package that is missing or a part of the script's
# name; what neither names is in "models".
_EXTRAS = {
    "tensorflow": "tensorflow",
    "jax": "jax",
    "torch": "torch",
    "apache_beam": "data",
    "summarization": "summarization",
    "rl": "rl",
    "term_weighting": "term_weighting",
}


def keras_is_too_old() -> str | None:
    """A line that says so, of Keras 2; None of Keras 3 or without Keras."""
    try:
        version = importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        return None
    if int(version.partition(".")[0]) >= 3:
        return None
    return (
        f"Keras {version}: this script needs Keras 3.10 or later; run it by "
        "make .venv && .venv/bin/python, or pip install 'keras>=3.10'"
    )


def explanation(error: BaseException | None, script: str) -> str | None:
    """What to install, in a line; None where that is not what is wrong.

    Args:
        error: What was raised.
        script: The module that Python runs, with its packages.
    """
    if not isinstance(error, ImportError):
        return None
    package = (error.name or "").partition(".")[0]
    if package == "keras" and (line := keras_is_too_old()):
        return line
    if (
        not isinstance(error, ModuleNotFoundError)
        or package in ("", *_OURS)
        or importlib.util.find_spec(package)
    ):
        return None
    names = [x for x in (package, *script.split(".")) if x in _EXTRAS]
    extra = _EXTRAS[names[0]] if names else "models"
    return (
        f"{script}: needs the package {package}, which is not installed: "
        f"pip install 'tf-lamb[{extra}]'"
    )


def explain() -> None:
    """Of a script that `-m` runs, says in a line what it cannot import.

    The packages of scripts call it as they are imported. The process ends with
    status 2 then. Every other exception keeps its traceback, and in a
    library's user's program nothing changes.
    """
    if sys.argv[:1] == ["-m"]:  # until Python has found the module
        sys.excepthook = _hook


def _hook(
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    words = sys.orig_argv
    script = words[words.index("-m") + 1] if "-m" in words[:-1] else "script"
    line = explanation(error, script)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
        return
    print(f"error: {line}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(2)  # a hook cannot change the status otherwise
