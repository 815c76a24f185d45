r"""Kills training scripts again and again, and holds them to what they resume.

    python -m tests.robustness.kills --kills 100 \
        --output tests/robustness/results/kills.json

A run is killed by SIGKILL, SIGTERM or SIGINT at a random moment, or as soon as
files of a checkpoint appear, and started again by the same command; after five
kills it may end. A run that ends before its moment comes was not killed, and
does not count. Its last checkpoint must then have the arrays of a run that
nothing disturbed, to the bit. Scripts take turns. With the wish to be repeated,
the moments depend on --seed, but not how far a run has come by then.

--full_disks runs have a disk of their own (a tmpfs, so it takes root) that is
full somewhere on the way: they have to end with status 2 and one line, and go
on to the same weights on a larger one.
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import measure
from tests.robustness.kill_jobs import JOBS, write_inputs

SIGNALS = {"KILL": 9, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
KILLS_OF_A_RUN = 5


def kill(
    process: subprocess.Popen,
    folder: Path,
    saves: str,
    rng: random.Random,
    seconds: float,
) -> tuple[str, str]:
    """Kills a process; gives the signal and moment, and what it said.

    Args:
        process: of `Job.start`.
        folder: where it writes.
        saves: pattern of the files of a save.
        rng: draws signal and moment.
        seconds: that the script takes undisturbed.

    Returns:
        "" for the signal and moment where it ended before.
    """
    name = rng.choice(sorted(SIGNALS))
    aimed = rng.random() < 0.5
    end = time.monotonic() + rng.uniform(0.1, seconds)
    before = {*folder.glob(saves)}
    while process.poll() is None and time.monotonic() < end + aimed * seconds:
        if aimed and {*folder.glob(saves)} - before:
            break
        time.sleep(0.002 if aimed else 0.02)
    ended = process.poll() is not None
    process.send_signal(SIGNALS[name])
    said = process.communicate(timeout=300)[1]
    moment = "at a save" if aimed else "at random"
    return "" if ended else f"SIG{name} {moment}", said


def one_run(name, inputs, whole, folder, rng, kills, seconds):
    """A run that is killed until it ends, `kills` times at most.

    Returns:
        Counts, and what went wrong.
    """
    job, counts, wrong = JOBS[name], collections.Counter(), []
    while counts.total() < kills:
        process = job.start(inputs, folder)
        what, said = kill(process, folder, job.saves, rng, seconds)
        if not what and not process.returncode:
            break
        counts[what] += 1
        if not what or "Traceback" in said:
            wrong.append(f"{name}: {what}: {said[-1000:]}")
    process = JOBS[name].start(inputs, folder)
    said = process.communicate(timeout=600)[1]
    if process.returncode:
        wrong.append(f"{name}: not resumed: {said[-1000:]}")
        return counts, wrong
    wrong += _compared(name, whole, folder, dict(counts))
    return counts, wrong


def _compared(name, whole, folder, what) -> list[str]:
    """What is wrong with the weights after what was done to a run."""
    arrays = JOBS[name].arrays
    expected, found = arrays(whole), arrays(folder)
    if (
        expected
        and expected.keys() == found.keys()
        and all(
            np.array_equal(found[key], value) for key, value in expected.items()
        )
    ):
        return []
    return [f"{name}: other weights after {what}"]


def _mount(folder: Path, size: int, option: str = "") -> None:
    """A disk of so many bytes in a folder, or another size of it."""
    options = f"{option}size={size}"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )


def one_full_disk(name, inputs, whole, folder, rng):
    """A run whose disk is full on the way; gives what went wrong.

    Raises:
        subprocess.CalledProcessError: No disk can be mounted.
    """
    size = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
    folder.mkdir()
    _mount(folder, int(size * rng.uniform(0.02, 0.9)))
    try:
        process = JOBS[name].start(inputs, folder)
        said = process.communicate(timeout=600)[1]
        if process.returncode != 2 or "Traceback" in said:
            status = process.returncode
            return [f"{name}: full disk: status {status}: {said[-1000:]}"]
        # A progress bar may be on the same line.
        if not re.search(r"error: .*No space left on device.*again", said):
            return [f"{name}: full disk: {said[-1000:]}"]
        _mount(folder, 8 * size, "remount,")
        process = JOBS[name].start(inputs, folder)
        said = process.communicate(timeout=600)[1]
        if process.returncode:
            return [f"{name}: not resumed after a full disk: {said[-1000:]}"]
        return _compared(name, whole, folder, "a full disk")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(number, inputs, wholes, root, rng):
    """That many runs; gives how many there were, and what went wrong."""
    wrong = []
    for i in range(number):
        name = [*JOBS][i % len(JOBS)]
        folder = Path(root, f"disk {i}")
        try:
            found = one_full_disk(name, inputs, wholes[name], folder, rng)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode().strip()
            print(f"full disks: not tried, since none can be mounted: {said}")
            return i, wrong
        print(f"full disk {i + 1} of {number}: {name}", flush=True)
        wrong += found
    return number, wrong


def main() -> None:
    """Kills; status 1 if a run was lost or ended with other weights."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=100, help="how many")
    parser.add_argument("--full_disks", type=int, default=12, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--output", type=Path, help="JSON file of the counts")
    args = parser.parse_args()
    # A shell's background ignores SIGINT, and so would all that is started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, wrong, runs = random.Random(args.seed), [], 0
    counts: dict[str, collections.Counter] = {}
    with tempfile.TemporaryDirectory() as root, tqdm(total=args.kills) as bar:
        inputs = Path(root, "inputs")
        inputs.mkdir()
        write_inputs(inputs)
        wholes, seconds = {}, {}
        for name in JOBS:
            bar.set_description(f"{name}, undisturbed")
            wholes[name] = Path(root, f"whole {name}")
            began = time.monotonic()
            if JOBS[name].start(inputs, wholes[name]).wait():
                raise SystemExit(f"{name}: does not run")
            seconds[name] = time.monotonic() - began
            counts[name] = collections.Counter()
        while bar.n < args.kills:
            name = [*JOBS][runs % len(JOBS)]
            bar.set_description(name)
            kills = min(KILLS_OF_A_RUN, args.kills - bar.n)
            found, problems = one_run(
                *(name, inputs, wholes[name], Path(root, f"run {runs}")),
                *(rng, kills, seconds[name]),
            )
            counts[name] += found
            wrong += problems
            runs += 1
            bar.update(found.total())
        full, problems = full_disks(args.full_disks, inputs, wholes, root, rng)
        wrong += problems
    for problem in wrong:
        print(problem)
    print(
        f"{args.kills} kills of {runs} runs, {full} full disks, {len(wrong)} "
        "problems"
    )
    if args.output:
        value = dict(
            provenance=measure.provenance(seed=args.seed),
            runs=runs,
            seconds_undisturbed=seconds,
            problems=wrong,
            kills=counts,
            full_disks=full,
        )
        measure.write_json(args.output, value)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
