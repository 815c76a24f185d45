"""The actors' processes, as the process that trains sees them."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from official_models.common.errors import InputError
from official_models.rl.dqn_lambda.a3c import actor
from official_models.rl.dqn_lambda.a3c.actor import Job, Rollout

_ROOT = Path(__file__).parents[4]
_THREADS = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")


class Actors:
    """Processes, one for each job; their ends are waited for at the end.

    Each is a new Python that imports NumPy and its game alone, with one thread
    for its matrices: nothing is forked from a process in which a framework has
    threads, nor imported a second time.

    Args:
        jobs: One of each actor.
    """

    def __init__(self, jobs: Sequence[Job]):
        self._jobs = list(jobs)
        path = os.pathsep.join(
            [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        threads = {f"{name}_NUM_THREADS": "1" for name in _THREADS}
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    actor.__name__,
                    json.dumps(job._asdict()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **threads, "PYTHONPATH": path},
            )
            for job in jobs
        ]
        self._ready = selectors.DefaultSelector()
        for number in range(len(self._jobs)):
            self._ready.register(
                self._output(number), selectors.EVENT_READ, number
            )

    def __enter__(self) -> Actors:
        return self

    def __exit__(self, *error) -> None:
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            # A rollout may be on its way, which nobody reads.
            process.stdout.close()
            process.wait()
        self._ready.close()

    def replay(self, played: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Brings the actors to where they were.

        Args:
            played: [rollouts, T, E] of each actor, uint8.

        Returns:
            The scores of each rollout, of each actor.
        """
        for number, actions in enumerate(played):
            content = np.ascontiguousarray(actions).ravel()
            self._write(number, lambda to, c=content: actor.write_list(to, c))
        return [
            [
                self._read(number, lambda at: actor.read_list(at, "<f8"))
                for _ in actions
            ]
            for number, actions in enumerate(played)
        ]

    def send(self, number: int, weights: np.ndarray) -> None:
        """Has an actor play a rollout by these weights, [P] in float32."""
        self._write(number, lambda to: actor.write_all(to, weights))

    def arrivals(self) -> Iterator[tuple[int, Rollout]]:
        """Rollouts in the order in which they come, with the actors' numbers.

        Of those that are there at once, each is given before any second one of
        the same actor.
        """
        while True:
            for key, _ in self._ready.select():
                number = key.data
                job = self._jobs[number]
                read = lambda at, job=job: actor.read_rollout(at, job)  # noqa: E731
                yield number, self._read(number, read)

    def _output(self, number: int):
        return self.processes[number].stdout

    def _read(self, number: int, read):
        try:
            return read(self._output(number).fileno())
        except EOFError:
            self._ended(number)

    def _write(self, number: int, write) -> None:
        try:
            write(self.processes[number].stdin.fileno())
        except BrokenPipeError:
            self._ended(number)

    def _ended(self, number: int):
        status = self.processes[number].wait()
        raise InputError(
            f"actor {number}: its process ended with status {status}, expected "
            "it to play until the end of the run; what it printed is above; "
            "give the same command again, which goes on from the last "
            "checkpoint"
        )
