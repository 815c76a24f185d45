"""Processes of several environments that take turns at being measured."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import measure

HIDDEN = argparse.SUPPRESS  # of the flags by which a benchmark calls itself
PYTHONS = {
    "tensorflow": ".venv/bin/python",
    "jax": ".venv/bin/python",
    "torch": ".venv-torch/bin/python",
    "tf215": ".venv-tf215/bin/python",
}


def serve(environment: str, step: Callable[[str], float]) -> None:
    """What a worker does: reads names from standard input, prints seconds.

    Args:
      environment: its name.
      step: makes what has a name, gives the seconds that it took.
    """
    print(json.dumps({"ready": environment}), flush=True)
    for line in sys.stdin:
        found = {"seconds": step(json.loads(line))}
        print(json.dumps(found), flush=True)


class Worker:
    """A process of one environment.

    Args:
      module: that is run by `python -m`, and calls `serve`.
      environment: its name.
      python: the interpreter.
      words: arguments of the module.
      **changes: of the environment variables.

    Raises:
      RuntimeError: it ended before it was ready.
    """

    def __init__(
        self,
        module: str,
        environment: str,
        python: Path,
        words: Sequence[str],
        **changes: str,
    ):
        self.environment, self._module = environment, module
        self._words = words
        self._process = subprocess.Popen(
            [python, "-m", module, *words],
            cwd=measure.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **changes},
        )
        self._answer("ready")

    def _answer(self, key):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the worker of {self.environment} ended with status "
                f"{self._process.wait()}; run python -m {self._module} "
                f"{' '.join(self._words)} to see why"
            )
        return json.loads(line)[key]

    def step(self, name: str) -> float:
        """Seconds of one step; the first one builds and compiles."""
        self._process.stdin.write(json.dumps(name) + "\n")
        self._process.stdin.flush()
        return self._answer("seconds")

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def start(
    module: str, environment: str, words: Sequence[str], keras: str = ""
) -> Worker | None:
    """The worker of an environment; None, and a line, where there is none.

    Args:
      module: as of `Worker`.
      environment: of `PYTHONS`.
      words: as of `Worker`.
      keras: backend of Keras; by default what the environment is named after,
        and TensorFlow in that of TensorFlow 2.15.
    """
    python = measure.ROOT / PYTHONS[environment]
    if not python.exists():
        print(f"{environment}: no {python} (see the Makefile); left out")
        return None
    backend = keras or {"tf215": "tensorflow"}.get(environment, environment)
    return Worker(
        module,
        environment,
        python,
        words,
        KERAS_BACKEND=backend,
        JAX_PLATFORMS="cpu",
    )
