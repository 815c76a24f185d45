"""Starts the processes of a cluster on 127.0.0.1, and stops them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests import warm

ROOT = Path(__file__).parents[1]
TIMEOUT = 300  # seconds


def free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _environment(cluster, kind, index, extra):
    return {
        **os.environ,
        "TF_CONFIG": json.dumps(
            {"cluster": cluster, "task": {"type": kind, "index": index}}
        ),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "2",
        "GRPC_FAIL_FAST": "use_caller",
        **extra,
    }


class Cluster:
    """The processes of one job; a context manager that leaves none behind.

    Args:
      jobs: {"chief" | "worker" | "ps": number of processes}.
      module: run by `python -m`, with `arguments`, in each of them.
      log: file for what they print.
      extra: environment variables.
    """

    def __init__(self, jobs, module, arguments, log, extra=()):
        ports = iter(free_ports(sum(jobs.values())))
        addresses = {
            kind: [f"127.0.0.1:{next(ports)}" for _ in range(n)]
            for kind, n in jobs.items()
        }
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self._log = open(log, "a")  # noqa: SIM115
        self.processes = {
            (kind, index): warm.popen(
                command,
                cwd=ROOT,
                env=_environment(addresses, kind, index, dict(extra)),
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
            for kind, n in jobs.items()
            for index in range(n)
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()
        self._log.close()

    def wait(self, kinds=("chief", "worker"), timeout=TIMEOUT, all_end=False):
        """Until the processes of these kinds have ended or one has failed.

        Returns:
          Their exit codes, None for one that still runs.
        """
        end = time.monotonic() + timeout
        watched = [
            p for (kind, _), p in self.processes.items() if kind in kinds
        ]
        while time.monotonic() < end:
            codes = [process.poll() for process in watched]
            if None not in codes or (any(codes) and not all_end):
                return codes
            time.sleep(0.1)
        return [process.poll() for process in watched]
