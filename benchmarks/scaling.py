"""Time of a step of tf_lamb.LAMB against parameters and against variables.

    python -m benchmarks.scaling --output benchmarks/results/scaling.json

Two sweeps in graph mode (`tf.function`), gradients as arguments, each point in
a process of its own: 1M to 1B parameters in equal variables of 1024 x 1024, and
10 to 10,000 variables of 64 elements, whose time is the overhead a variable. To
each a line is fitted by least squares of relative deviations, so that small
points count as large ones do. Points that do not fit into the memory that is
available are left out, with a word. A plot is written beside the JSON.
Takes ten minutes on two cores; --quick half a minute.
"""

import json
import re
import time
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.steps import make
from official_models.common import files

MODULE = "benchmarks.scaling"
SQUARE = 1024
TINY = 64
BYTES = 16  # parameter, gradient and two moments in float32
ROOM = 1.15  # what the framework and the allocator need on top
MIN_STEPS, MAX_STEPS, SECONDS = 15, 200, 3.0


def _available():
    """Bytes of memory that a new process may take."""
    text = Path("/proc/meminfo").read_text()
    return int(re.search(r"MemAvailable:\s+(\d+) kB", text).group(1)) * 1024


def run_job(job):
    """Measures in this process: seconds of each step."""
    shapes = [(f"v{i}/kernel", job["shape"]) for i in range(job["variables"])]
    step = make("tf_lamb.LAMB", shapes, job["seed"])
    for _ in range(3):
        step.run()
    times = []
    end = time.perf_counter() + SECONDS
    while len(times) < MIN_STEPS or (
        time.perf_counter() < end and len(times) < MAX_STEPS
    ):
        start = time.perf_counter()
        step.run()
        times.append(time.perf_counter() - start)
    return {"times": times}


def fit(x, y):
    """y = intercept + slope x by least squares of (fitted - y) / y.

    Returns:
      Those two; R^2, of those deviations over the spread of log y; and the
      exponent of the power law through the points.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    left = np.square((intercept + slope * x) / y - 1).sum()
    spread = np.square(np.log(y) - np.log(y).mean()).sum()
    values = dict(slope=slope, intercept=intercept, r2=1 - left / spread)
    values["exponent"] = np.polyfit(np.log(x), np.log(y), 1)[0]
    return {key: float(value) for key, value in values.items()}


def _point(variables, shape, seed):
    """One point; None where memory does not suffice."""
    parameters = variables * int(np.prod(shape))
    need, available = parameters * BYTES * ROOM, _available()
    if need > available:
        print(
            f"{parameters:,} parameters: left out; they need "
            f"{need / 1e9:.1f} GB and {available / 1e9:.1f} are available"
        )
        return None
    job = dict(variables=variables, shape=list(shape), seed=seed)
    step = measure.summary(measure.fresh(MODULE, job)["times"])
    print(
        f"{variables:,} variables, {parameters:,} parameters: "
        f"{step['median'] * 1e3:.2f} ms",
        flush=True,
    )
    return dict(variables=variables, parameters=parameters, step=step)


def _sweep(axis, counts, shape, seed):
    points = [_point(n, shape, seed) for n in counts]
    points = [point for point in points if point]
    line = fit(
        [point[axis] for point in points],
        [point["step"]["median"] for point in points],
    )
    return dict(axis=axis, shape=list(shape), points=points, fit=line)


def measure_all(quick, seed):
    """Both sweeps."""
    if quick:
        million, counts = [1, 4, 16], [10, 100, 400]
    else:
        million = [1, 3, 10, 30, 95, 286, 954]  # the last is 1.0e9
        counts = [10, 30, 100, 300, 1000, 3000, 10000]
    return [
        _sweep("parameters", million, (SQUARE, SQUARE), seed),
        _sweep("variables", counts, (TINY,), seed),
    ]


def plot(path, sweeps):
    """Two panels, time against parameters and against variables."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, sweep in zip(panels, sweeps):
        axis, line = sweep["axis"], sweep["fit"]
        x = np.array([point[axis] for point in sweep["points"]])
        median, low, high = (
            np.array([point["step"][key] for point in sweep["points"]]) * 1e3
            for key in ("median", "lower_quartile", "upper_quartile")
        )
        panel.errorbar(x, median, [median - low, high - median], fmt="o")
        dense = np.geomspace(x.min(), x.max(), 200)
        fitted = (line["intercept"] + line["slope"] * dense) * 1e3
        shown = fitted > 0
        panel.plot(dense[shown], fitted[shown], "--")
        panel.set_title(_words(sweep), fontsize="medium")
        shape = " x ".join(map(str, sweep["shape"]))
        panel.set(
            xscale="log",
            yscale="log",
            xlabel=f"{axis} (variables of {shape})",
            ylabel="ms a step, median and quartiles",
        )
        panel.grid(alpha=0.3)
    figure.suptitle("tf_lamb.LAMB, graph mode, float32")
    files.save_figure(path, figure, dpi=150)


def _words(sweep):
    line = sweep["fit"]
    if sweep["axis"] == "parameters":
        slope = f"{line['slope'] * 1e9:.2f} ms a million parameters"
    else:
        slope = f"{line['slope'] * 1e6:.1f} us a variable"
    return f"{slope}, R² {line['r2']:.4f}, exponent {line['exponent']:.2f}"


def markdown(sweeps):
    """A table of the points, and the fits."""
    rows = [
        [
            f"{point['variables']:,}",
            f"{point['parameters']:,}",
            f"{point['step']['median'] * 1e3:.2f}",
            f"{point['step']['lower_quartile'] * 1e3:.2f}-"
            f"{point['step']['upper_quartile'] * 1e3:.2f}",
        ]
        for sweep in sweeps
        for point in sweep["points"]
    ]
    head = ["variables", "parameters", "ms a step", "quartiles"]
    return "\n".join(
        [measure.table(head, rows), "", *(_words(s) + "." for s in sweeps)]
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "three small points a sweep")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    sweeps = measure_all(args.quick, args.seed)
    if args.output:
        value = dict(
            provenance=measure.provenance(seed=args.seed), sweeps=sweeps
        )
        measure.write_json(args.output, value)
        plot(args.output.with_suffix(".png"), sweeps)
    print(markdown(sweeps))


if __name__ == "__main__":
    main()
