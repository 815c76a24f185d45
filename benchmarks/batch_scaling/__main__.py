r"""Accuracy against the batch size, by the untuned rule and retuned.

    python -m benchmarks.batch_scaling                     # digits, minutes
    python -m benchmarks.batch_scaling --task cifar10 \\
        --data_dir DIR --hours 3                           # resumable
    python -m benchmarks.batch_scaling --task cifar10 --report

Rates are chosen at the smallest batch on a validation split of the training
data (a ladder of factors of two, climbed to a rung whose neighbours are worse).
At the other batches they follow by rule: the square root of the batch, for
momentum also the batch itself; warmup epochs grow with the batch. A retuned
baseline at the largest batch stands beside. Every optimizer gets the same
epochs, schedule, augmentation and number of seeds.

Each cell is one training run by one worker of one thread; results are written
after every cell, and a study that was stopped resumes where it was.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Queue

from tqdm import tqdm

from benchmarks import measure
from benchmarks.batch_scaling import grid, report, studies
from benchmarks.batch_scaling.store import Store
from official_models.common.errors import InputError

MODULE = "benchmarks.batch_scaling"
RESULTS = measure.ROOT / "benchmarks" / "results" / "batch_scaling"


class Worker:
    """A process that trains one cell after another.

    Args:
        args: of the command line.
        replies: takes (worker, line of its answer, "" when it ended).
    """

    def __init__(self, args, replies: Queue):
        command = [sys.executable, "-m", MODULE, "--work"]
        command += ["--task", args.task, "--data_dir", args.data_dir]
        if args.epochs:
            command += ["--epochs", str(args.epochs)]
        self.cell = None
        # Where TensorFlow's remarks do not cut through the progress bar.
        self.remarks = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            command,
            cwd=measure.ROOT,
            env=measure.environment(**measure.ONE_THREAD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.remarks,
            text=True,
        )
        threading.Thread(
            target=self._listen, args=(replies,), daemon=True
        ).start()

    def _listen(self, replies):
        for line in self.process.stdout:
            replies.put((self, line))
        replies.put((self, ""))

    def run(self, cell: grid.Cell) -> None:
        """Hands over a cell; the result comes through the queue."""
        self.cell, self.began = cell, time.monotonic()
        self.process.stdin.write(json.dumps(vars(cell)) + "\n")
        self.process.stdin.flush()


def work(args) -> None:
    """Trains the cells that come in, a line each, until there are no more."""
    from benchmarks.batch_scaling import tasks, training

    # Whatever a library prints must not be taken for a result.
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        task = tasks.make(args.task, args.data_dir, args.epochs)
    except InputError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        result = training.train(task, grid.Cell(**json.loads(line)))
        print(json.dumps(result), file=answers, flush=True)


def run(study, store: Store, args) -> None:
    """Runs what is pending, until it is done or the time is up."""
    limit = time.monotonic() + 3600 * args.hours
    replies: Queue = Queue()
    seconds = [v["seconds"] for v in store.value["cells"].values()]
    workers = [Worker(args, replies) for _ in range(args.workers)]
    idle, busy = [], []
    store.begin()
    left = grid.pending(study, args.seeds, store.scores)
    bar = tqdm(total=len(left), unit="cell", dynamic_ncols=True)
    try:
        while len(idle) < len(workers) or left:
            worker, line = replies.get()
            _take(worker, line, store, seconds, bar)
            busy = [w for w in busy if w is not worker]
            idle.append(worker)
            left = grid.pending(study, args.seeds, store.scores)
            bar.total = bar.n + len(left)
            taken = {w.cell.key for w in busy}
            free = [cell for cell in left if cell.key not in taken]
            # Not the longest: a machine may have slept in the middle of one.
            expected = statistics.median(seconds[-10:] or [0])
            begun = bar.n + len(busy)
            free = free[: max(0, args.cells - begun)]
            if time.monotonic() + expected > limit or begun >= args.cells:
                free, left = [], []
            while free and idle:
                busy.append(idle.pop())
                busy[-1].run(free.pop(0))
            if not busy:
                break
    finally:
        bar.close()
        for worker in workers:
            worker.process.kill()


def _take(worker, line, store, seconds, bar):
    """Keeps what a worker answered."""
    if not line:
        worker.remarks.seek(0)
        raise RuntimeError(
            f"a worker ended with status {worker.process.wait()} in "
            f"{worker.cell.key if worker.cell else 'its beginning'}:\n"
            + worker.remarks.read()[-2000:]
        )
    answer = json.loads(line)
    if "error" in answer:
        raise InputError(answer["error"])
    if "ready" in answer:
        return
    store.add(worker.cell, answer)
    seconds.append(answer["seconds"])
    bar.set_postfix_str(f"{worker.cell.key} {answer['score']:.2f}")
    bar.update()


def _arguments(argv):
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument("--task", choices=studies.STUDIES, default="mnist")
    parser.add_argument("--data_dir", default="", help="of cifar10, masked_lm")
    parser.add_argument(
        "--hours", type=float, default=3.0, help="no cell begins after these"
    )
    parser.add_argument(
        "--cells", type=int, default=10**6, help="end after so many cells"
    )
    parser.add_argument(
        "--epochs", type=float, help="of a run, in place of the study's"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="one thread each"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON; default: benchmarks/results/..."
    )
    parser.add_argument(
        "--report", action="store_true", help="table and plot; no training"
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if min(args.hours, args.workers, args.cells) <= 0:
        parser.error("--hours, --workers, --cells: expected more than 0")
    if args.epochs is not None and args.epochs <= 0:
        parser.error("--epochs: expected more than 0")
    args.output = args.output or RESULTS / f"{args.task}.json"
    return args


def main(argv=None) -> int:
    args = _arguments(argv)
    if args.work:
        work(args)
        return 0
    try:
        study = studies.study(args.task, args.epochs)
        settings = studies.settings(args.task)
        store = Store(args.output, args.task, study, settings)
        if not args.report:
            run(study, store, args)
        print(report.write(study, store, args.seeds))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {args.output} has what is done", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
