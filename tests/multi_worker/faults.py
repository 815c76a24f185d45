"""Kills a worker at a random moment, again and again; the job has to survive.

    python -m tests.multi_worker.faults --kills 10 --seed 0 --output FILE

Two workers train under MultiWorkerMirroredStrategy with a checkpoint every
three steps. Each time one of them, at a random moment after a random step, is
sent SIGKILL; the other cannot go on alone, and both are started again, as a job
manager does. At the end the weights have to be those of a run that nothing
happened to. Every second kill waits for a checkpoint that is being written.
`--tf_keras_kills` more are made of workers under tf_keras.
"""

import argparse
import datetime
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from official_models.common import files
from tests.processes import Cluster

STEPS = 24  # of worker.py
JOBS = {"worker": 2}


class Kill(NamedTuple):
    """SIGKILL for `worker`, `delay` seconds after its `step` is reported.

    Or sooner, if `in_writing`: as soon as the first file of a checkpoint shows.
    """

    worker: int
    step: int
    delay: float
    in_writing: bool


class Job:
    """A job that is started again and again in its folder."""

    def __init__(self, folder, legacy=False):
        self.folder = folder
        self._extra = {"TF_USE_LEGACY_KERAS": str(int(legacy))}
        folder.mkdir()

    def run(self, kill=None):
        """One start of all workers, one of which may be killed.

        Returns:
          Exit codes of the workers.
        """
        log = self.folder / f"log{len(list(self.folder.glob('log*')))}.txt"
        arguments = ["resumable", self.folder, "--slow", 0.1 if kill else 0.0]
        if kill and kill.in_writing:
            arguments.append("--report_first")
        with Cluster(
            JOBS, "tests.multi_worker.worker", arguments, log, self._extra
        ) as cluster:
            if kill is None:
                codes = cluster.wait(timeout=120)
                if codes != [0, 0]:
                    print(log.read_text()[-3000:], file=sys.stderr)
                return codes
            line = rf"worker {kill.worker} step {kill.step}(?!\d)"
            end = time.monotonic() + 120
            while not re.search(line, log.read_text()):
                if time.monotonic() > end:
                    raise TimeoutError(log.read_text()[-3000:])
                time.sleep(0.02)
            end = time.monotonic() + kill.delay
            torn = self.torn_checkpoints()
            while time.monotonic() < end:
                if kill.in_writing and self.torn_checkpoints() - torn:
                    break
                time.sleep(0.001)
            process = cluster.processes["worker", kill.worker]
            if process.poll() is not None:
                raise RuntimeError(f"{kill}: ended before it could be killed")
            process.kill()
            process.wait()
            # The survivor ends by itself, or is ended after some seconds.
            return cluster.wait(timeout=20, all_end=True)

    def weights(self):
        """Weights at the end."""
        with np.load(self.folder / "end.npz") as end:
            return [end[name] for name in end.files]

    def steps_done(self):
        """Steps of the last whole checkpoint."""
        names = self.folder.glob("checkpoints/ckpt-*.index")
        return max([int(p.stem.split("-")[1]) for p in names], default=0)

    def torn_checkpoints(self):
        """Files of checkpoints that were not finished."""
        files = self.folder.glob("checkpoints/ckpt-*")
        return {p for p in files if not p.with_suffix(".index").exists()}


def campaign(kills, seed, folder, legacy=False):
    """Kills workers `kills` times, two kills a job.

    The second kill hits a job that has resumed already. Every kill hits a job
    that has steps to go.

    Args:
      kills: how many.
      seed: of the workers, steps and moments.
      folder: for the jobs; has to be empty.
      legacy: tf_keras in place of Keras 3.

    Returns:
      What happened, one dict a kill.
    """
    rng = random.Random(seed)
    whole = Job(Path(folder) / "whole", legacy)
    if whole.run() != [0, 0]:
        raise RuntimeError("the run that nothing happens to has failed")
    faults = []
    while len(faults) < kills:
        number = len(faults) // 2
        job = Job(Path(folder) / f"job{number}", legacy)
        pending = [
            _kill_once(job, rng, in_writing=bool(i))
            for i in range(min(2, kills - len(faults)))
        ]
        ended = job.run() == [0, 0]
        for fault in pending:
            fault["keras"] = "tf_keras" if legacy else "Keras 3"
            fault["survived"] = ended and _distance(job, whole) <= 1e-6
            fault["bit_for_bit"] = ended and _distance(job, whole) == 0
            print(json.dumps(fault), flush=True)
        faults += pending
    return faults


def _kill_once(job, rng, in_writing):
    done = job.steps_done()
    # At 0.1 seconds a step, the delay is less than what is left of the run.
    step = rng.randint(done + 1, min(done + 12, STEPS - 4))
    delay = 0.4 if in_writing else round(rng.uniform(0, 0.3), 3)
    kill = Kill(rng.randrange(2), step, delay, in_writing)
    torn = job.torn_checkpoints()
    codes = job.run(kill)
    return {
        **kill._asdict(),
        "resumed_from": done,
        "torn_checkpoint": bool(job.torn_checkpoints() - torn),
        "exit_codes": codes,
    }


def _distance(job, other):
    pairs = zip(job.weights(), other.weights())
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--tf_keras_kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    faults = []
    kinds = (False, arguments.kills), (True, arguments.tf_keras_kills)
    for legacy, kills in kinds:
        with tempfile.TemporaryDirectory() as folder:
            seed = arguments.seed + legacy
            faults += campaign(kills, seed, folder, legacy)
    import tensorflow as tf

    result = {
        "tried": len(faults),
        "survived": sum(f["survived"] for f in faults),
        "bit_for_bit": sum(f["bit_for_bit"] for f in faults),
        "torn_checkpoints": sum(f["torn_checkpoint"] for f in faults),
    }
    report = {
        **result,
        "faults": faults,
        "command": (
            f"python -m tests.multi_worker.faults --kills {arguments.kills} "
            f"--seed {arguments.seed} "
            f"--tf_keras_kills {arguments.tf_keras_kills}"
        ),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }
    text = json.dumps(report, indent=1)
    print(f"{result['tried']} tried, {result['survived']} survived")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(arguments.output, text + "\n")
    return 0 if result["survived"] == result["tried"] else 1


if __name__ == "__main__":
    sys.exit(main())
