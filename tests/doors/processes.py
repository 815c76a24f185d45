"""Starts the processes of a cluster on 127.0.0.1."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.doors import table

ROOT = Path(__file__).parents[2]
TIMEOUT = 300  # seconds for a row of the table


def _free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _environment(cluster, kind, index):
    return {
        **os.environ,
        "TF_CONFIG": json.dumps(
            {"cluster": cluster, "task": {"type": kind, "index": index}}
        ),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "2",
        "GRPC_FAIL_FAST": "use_caller",
    }


def run_row(front_end, strategy, folder):
    """Runs a row of the table by `worker.py`; logs go to `folder/log.txt`.

    Ends when the processes that train have ended, one of them has failed, or
    the time is up; parameter servers and idle workers are stopped then.
    """
    jobs = table.CLUSTERS[strategy]
    ports = iter(_free_ports(sum(jobs.values())))
    cluster = {
        kind: [f"127.0.0.1:{next(ports)}" for _ in range(n)]
        for kind, n in jobs.items()
    }
    command = [sys.executable, "-m", "tests.doors.worker"]
    processes, trainers = [], []
    with open(Path(folder) / "log.txt", "w") as log:
        for kind, n in jobs.items():
            for index in range(n):
                process = subprocess.Popen(
                    [*command, front_end, strategy, str(folder)],
                    cwd=ROOT,
                    env=_environment(cluster, kind, index),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                processes.append(process)
                if kind == "chief" or "chief" not in jobs:
                    trainers.append(process)
        try:
            _wait(trainers)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _wait(processes):
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes:
            return
        time.sleep(0.2)
