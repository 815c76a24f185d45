"""Memory that a step needs beside parameters, gradients and two moments.

    python -m benchmarks.memory --output benchmarks/results/memory.json

Each optimizer runs in a process of its own. When weights, gradients and moments
exist and have been written to, free pages are given back to the system
(malloc_trim) and the kernel's mark of the peak resident set is reset
(/proc/self/clear_refs). The mark is read after the first step, which also
compiles, and after five more: `first` and `later` are how far the peaks of the
first and of those steps are above what was resident before the first. What the
allocator keeps of freed blocks between steps counts as resident.

Programs and graphs stay resident after the first step. They are measured as
`later` of the same number of variables in as many shapes, each a quarter as
long in every direction; `beside` is what is left of `later` without them. The
reach is `beside` of at most one largest variable. Linux only. Takes three
minutes on two cores; --quick half a minute.
"""

import ctypes
import gc
import json
import math
import re
from pathlib import Path

from benchmarks import measure
from benchmarks.shapes import bert
from benchmarks.steps import OPTIMIZERS, make
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.memory"
MIB = 1 << 20
LATER_STEPS = 5


def _status(key):
    """Bytes that /proc/self/status shows under `key`."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", text).group(1)) * 1024


def _settle():
    """Gives free pages back, resets the peak; returns the resident bytes."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _narrow(shapes):
    """As many variables and distinct shapes, a quarter as long each way."""
    return [
        (name, [max(1, n // 4) if n > 4 else n for n in shape])
        for name, shape in shapes
    ]


def run_job(job):
    """Measures in this process; bytes."""
    step = make(job["optimizer"], job["shapes"], job["seed"])
    before = _settle()
    step.run()
    first = _status("VmHWM") - before
    step.run()  # allocators have their final size now
    _settle()
    for _ in range(LATER_STEPS):
        step.run()
    return {"first": first, "later": _status("VmHWM") - before}


def measure_all(quick, repeats, seed):
    """Each optimizer `repeats` times, in turn."""
    if quick:
        shapes = bert(layers=2, width=256, vocab=8000, ff=1024)
        names = list(OPTIMIZERS)[:3]
    else:
        shapes, names = bert(), list(OPTIMIZERS)
    found = {name: [] for name in names}
    for i in range(repeats):
        for name in names:
            job = dict(optimizer=name, shapes=shapes, seed=seed)
            result = measure.fresh(MODULE, job)
            job["shapes"] = _narrow(shapes)
            result["programs"] = measure.fresh(MODULE, job)["later"]
            result["beside"] = result["later"] - result["programs"]
            found[name].append(result)
            print(
                f"{i + 1}/{repeats} {name}: {result['later'] / MIB:.0f} MiB, "
                f"programs {result['programs'] / MIB:.0f}",
                flush=True,
            )
    sizes = [4 * math.prod(shape) for _, shape in shapes]
    rows = []
    for name in names:
        row = {"name": name}
        for key in found[name][0]:
            row[key] = measure.summary([r[key] for r in found[name]])
        rows.append(row)
    return {
        "variables": len(shapes),
        "state_bytes": 4 * sum(sizes),
        "largest_variable_bytes": max(sizes),
        "later_steps": LATER_STEPS,
        "rows": rows,
    }


def markdown(found):
    """A table of what was measured, in MiB."""

    def mib(sample):
        return f"{sample['median'] / MIB:.0f}"

    largest = found["largest_variable_bytes"]
    head = (
        f"{found['variables']} variables; parameters, gradients and moments "
        f"{found['state_bytes'] / MIB:.0f} MiB, largest variable "
        f"{largest / MIB:.0f} MiB; MiB:\n\n"
    )
    return head + measure.table(
        ["", "first step", "later", "programs", "beside", "largest variables"],
        [
            [
                row["name"],
                mib(row["first"]),
                mib(row["later"]),
                mib(row["programs"]),
                mib(row["beside"]),
                f"{row['beside']['median'] / largest:.2f}",
            ]
            for row in found["rows"]
        ],
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "small variables, once each")
    parser.add_argument(
        "--repeats", type=command_line.count, help="default 3, 1 if --quick"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    repeats = args.repeats or (1 if args.quick else 3)
    found = measure_all(args.quick, repeats, args.seed)
    if args.output:
        value = dict(provenance=measure.provenance(seed=args.seed), **found)
        measure.write_json(args.output, value)
    print(markdown(found))


if __name__ == "__main__":
    main()
