"""Kills a worker at a random step, again and again; the job has to survive.

    python -m tests.multi_worker.faults --kills 10 --seed 0 --output FILE

Two workers train under MultiWorkerMirroredStrategy with a checkpoint every
three steps. Each time one of them, at a random step, is sent SIGKILL; the other
cannot go on alone, and both are started again, as a job manager does. At the
end the weights have to be those of a run that nothing happened to.
"""

import argparse
import datetime
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.processes import Cluster

STEPS = 24  # of worker.py
JOBS = {"worker": 2}


def _run(folder, log, kill=None, slow=0.0):
    """One start of the job; `kill` is (worker, step). Returns exit codes."""
    arguments = ["resumable", folder, "--slow", slow]
    with Cluster(JOBS, "tests.multi_worker.worker", arguments, log) as cluster:
        if kill is None:
            return cluster.wait(timeout=120)
        worker, step = kill
        end = time.monotonic() + 120
        while f"worker {worker} step {step}\n" not in Path(log).read_text():
            if time.monotonic() > end:
                raise TimeoutError(Path(log).read_text()[-3000:])
            time.sleep(0.02)
        process = cluster.processes["worker", worker]
        process.kill()
        process.wait()
        # The survivor ends by itself, or is ended after some seconds.
        return cluster.wait(timeout=20, all_end=True)


def _weights(folder):
    with np.load(Path(folder) / "end.npz") as end:
        return [end[name] for name in end.files]


def _steps_done(folder):
    names = Path(folder, "checkpoints").glob("ckpt-*.index")
    return max([int(p.stem.split("-")[1]) for p in names], default=0)


def campaign(kills, seed, folder):
    """Kills `kills` workers in as many runs as it takes.

    Each run begins anew when its steps are used up, so that every kill hits a
    job that has steps to go.

    Returns:
      {"tried", "survived", "faults": [...]}.
    """
    folder = Path(folder)
    rng = random.Random(seed)
    whole = folder / "whole"
    whole.mkdir()
    codes = _run(whole, folder / "whole.txt")
    if codes != [0, 0]:
        raise RuntimeError((folder / "whole.txt").read_text()[-3000:])
    expected = _weights(whole)
    faults = []
    while len(faults) < kills:
        job = folder / f"job{len(faults)}"
        job.mkdir()
        # Two kills a job: the second hits a job that has resumed already.
        pending = []
        for _ in range(min(2, kills - len(faults))):
            done = _steps_done(job)
            step = rng.randint(done + 1, min(done + 12, STEPS - 1))
            worker = rng.randrange(2)
            log = job / f"log{len(pending)}.txt"
            codes = _run(job, log, (worker, step), slow=0.1)
            pending.append(
                {
                    "worker": worker,
                    "step": step,
                    "resumed_from": done,
                    "exit_codes": codes,
                }
            )
        codes = _run(job, job / "last.txt")
        same = codes == [0, 0] and all(
            np.array_equal(a, b) for a, b in zip(_weights(job), expected)
        )
        close = codes == [0, 0] and all(
            np.allclose(a, b, rtol=0, atol=1e-6)
            for a, b in zip(_weights(job), expected)
        )
        for fault in pending:
            fault.update(survived=bool(close), bit_for_bit=bool(same))
            print(json.dumps(fault), flush=True)
        faults += pending
    return {
        "tried": len(faults),
        "survived": sum(f["survived"] for f in faults),
        "bit_for_bit": sum(f["bit_for_bit"] for f in faults),
        "faults": faults,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = campaign(arguments.kills, arguments.seed, folder)
    import tensorflow as tf

    report = {
        **result,
        "command": (
            "python -m tests.multi_worker.faults "
            f"--kills {arguments.kills} --seed {arguments.seed}"
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
        temporary = arguments.output.with_suffix(".tmp")
        temporary.write_text(text + "\n")
        os.replace(temporary, arguments.output)
    return 0 if result["survived"] == result["tried"] else 1


if __name__ == "__main__":
    sys.exit(main())
