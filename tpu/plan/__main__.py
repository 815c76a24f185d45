r"""Plans a training job on TPUs before they are rented; needs none.

    python -m tpu.plan --model bert-large --topology v3:32x32 \
        --batch_size 32768 --sequence_length 512 --steps 1562
    python -m tpu.plan --recipe lamb-76min
    python -m tpu.plan --model resnet50 --topology v5e:4x4 --batch_size 4096 \
        --examples 115000000 --sweep topology=v5e:4x4,v5e:8x8,v5e:16x16

The train step of the real Keras model is traced on JAX and compiled by libtpu
for the slice: does it fit, what does it compute, move and send, and how long
may a step take. If it does not fit, the rematerialisation and the largest batch
that do are searched for, and the status is 2. One compilation of BERT-large
takes minutes.

README.md beside this file says what the figures mean.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from absl import flags
from tqdm import tqdm

import tpu.plan  # noqa: F401  before JAX: it sets JAX up
from official_models.common import errors
from tpu.plan import planner, recipes, report, sweep, workloads

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this program's flags."""
    flags.DEFINE_string(
        "model",
        "bert-large",
        f"{', '.join(workloads.MODELS)}; or module:function, a function of the "
        "global batch size that returns (compiled Keras model, (x, y)) with "
        "anything that has a shape and a dtype for x and y.",
    )
    flags.DEFINE_string(
        "topology", "v3:4x4", "Generation and chips along each axis of a slice."
    )
    flags.DEFINE_integer("batch_size", 512, "Global.", 1)
    flags.DEFINE_integer("sequence_length", 128, "Of BERT, in tokens.", 8)
    flags.DEFINE_integer("image_size", 224, "Of ResNet, in pixels.", 8)
    flags.DEFINE_enum(
        "optimizer", "lamb", list(workloads.OPTIMIZERS), "The optimizer."
    )
    flags.DEFINE_string("dtype", "mixed_bfloat16", "Keras dtype policy.")
    flags.DEFINE_float("dropout", 0.1, "Of BERT.", 0.0, 0.9)
    flags.DEFINE_enum(
        "rematerialize",
        "none",
        list(workloads.REMAT),
        "blocks: compute each layer or block again in the backward pass.",
    )
    flags.DEFINE_boolean(
        "shard_state",
        False,
        "Split the optimizer's state over the devices that share the batch, "
        "as the training scripts do.",
    )
    flags.DEFINE_string(
        "mesh",
        None,
        "AxB, such as 2x4: A parts of the batch times B of the weights, on all "
        "devices of the slice. Default: all weights on every device.",
    )
    flags.DEFINE_integer("steps", None, "Of the schedule, for minutes.", 1)
    flags.DEFINE_integer(
        "examples", None, "Sequences or images in all, in place of --steps.", 1
    )
    flags.DEFINE_boolean(
        "search", True, "Look for what fits where the job does not."
    )
    flags.DEFINE_enum(
        "recipe", None, list(recipes.RECIPES), "A published run to plan."
    )
    flags.DEFINE_string(
        "sweep",
        None,
        "batch_size=A,B,... or topology=A,B,...: a table and, beside --output, "
        "a plot; needs --examples.",
    )
    flags.DEFINE_string("output", None, "JSON file to write.")
    flags.DEFINE_float(
        "time_limit",
        120.0,
        "Minutes of one compilation, after which the program ends.",
        lower_bound=0.001,
    )
    flags.DEFINE_boolean(
        "debug", False, "Show the traceback of what a model raised."
    )


def _job() -> planner.Job:
    try:
        options = workloads.Options(
            sequence_length=FLAGS.sequence_length,
            image_size=FLAGS.image_size,
            optimizer=FLAGS.optimizer,
            dtype=FLAGS.dtype,
            dropout=FLAGS.dropout,
            rematerialize=FLAGS.rematerialize,
        )
    except ValueError as error:
        raise errors.InputError(f"--{error}") from error
    return planner.Job(
        FLAGS.model,
        options,
        FLAGS.topology,
        FLAGS.batch_size,
        FLAGS.shard_state,
        FLAGS.mesh,
    )


def _make(job: planner.Job) -> planner.Plan:
    """Makes a plan and says on stderr that it is being made."""
    planner.check(job)
    name = f"{job.model} for {job.topology}"
    if not sys.stderr.isatty():
        print(f"compiling {name}", file=sys.stderr, flush=True)
    with (
        _time_limit(name),
        tqdm(
            desc=name,
            bar_format="compiling {desc}: {elapsed}",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        ),
    ):
        return planner.make(job)


@contextlib.contextmanager
def _time_limit(name: str) -> Iterator[None]:
    """Ends the process where a compilation takes too long.

    Nothing else stops a compiler that does not come back to Python.
    """

    def end() -> None:
        print(
            f"error: --time_limit {FLAGS.time_limit:g}: {name} was not "
            "compiled in so many minutes; give it more, or a smaller job",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(60 * FLAGS.time_limit, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _one(job: planner.Job) -> dict:
    steps = FLAGS.steps
    if FLAGS.examples:
        steps = round(FLAGS.examples / job.batch_size)
    plan = _make(job)
    print(report.text(plan, steps))
    found = {"plan": report.as_json(plan, steps)}
    if plan.program.fits or not FLAGS.search:
        return found
    again = planner.rematerialized(job)
    if again is not None:
        remat = _make(again)
        print(f"\nwith rematerialisation:\n{report.text(remat, steps)}")
        found["rematerialized"] = report.as_json(remat, steps)
    smaller = planner.largest_batch(plan, _make)
    if smaller is None:
        print("\nno batch fits; give more memory a device: another topology")
    else:
        # As many examples in all.
        n = steps and round(steps * job.batch_size / smaller.job.batch_size)
        print(f"\nthe largest batch found:\n{report.text(smaller, n)}")
        found["largest_batch"] = report.as_json(smaller, n)
    return found


def _recipe(name: str) -> dict:
    recipe = recipes.RECIPES[name]
    found, low, high = [], 0.0, 0.0
    for phase in recipe.phases:
        plan = _make(phase.job)
        print(report.text(plan, phase.steps) + "\n")
        found.append(report.as_json(plan, phase.steps))
        if plan.step is None:
            raise errors.InputError(
                f"--recipe {name}: {report.heading(plan)}: does not fit"
            )
        low += phase.steps * plan.step.overlapped / 60
        high += phase.steps * plan.step.serial / 60
    published = recipe.published_minutes
    print(
        f"{name}: {low:.1f} to {high:.1f} minutes estimated, {published:.1f} "
        f"published ({recipe.source})"
    )
    return {
        "recipe": name,
        "minutes": {"sending_hidden": low, "sending_not_hidden": high},
        "published_minutes": published,
        "source": recipe.source,
        "phases": found,
    }


def _sweep(job: planner.Job) -> dict:
    if not FLAGS.examples:
        raise errors.InputError(
            "--sweep: give --examples, the sequences or images of the whole run"
        )
    jobs = sweep.jobs(job, FLAGS.sweep)
    for _, each in jobs:
        planner.check(each)
    points = [sweep.point(v, _make(each), FLAGS.examples) for v, each in jobs]
    print(sweep.table(points))
    last = sweep.stops_scaling(points)
    if last is not None:
        print(
            f"\nstops scaling at {last.label}: over {sweep.STOPS_AT} times the "
            "chip-hours of the cheapest"
        )
    if FLAGS.output:
        plot = Path(FLAGS.output).with_suffix(".png")
        sweep.draw(plot, points, f"{job.model}, {FLAGS.examples:,} examples")
    return {
        "sweep": FLAGS.sweep,
        "examples": FLAGS.examples,
        "stops_scaling_at": last and last.label,
        "points": [
            {
                "label": p.label,
                "minutes": p.minutes,
                "chip_hours": p.chip_hours,
                **report.as_json(p.plan),
            }
            for p in points
        ],
    }


def _check_output(path: Path) -> None:
    """Before minutes of compiling: whether the file can be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise errors.InputError(
            f"--output {path}: no folder {path.parent}; make it first"
        )
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise errors.InputError(
            f"--output {path}: expected a file in a folder that can be written"
        )


def _write(path: Path, found: dict) -> None:
    packages = ("jax", "jaxlib", "libtpu", "keras")
    command = "python -m tpu.plan " + " ".join(sys.argv[1:])
    value = {
        "date": date.today().isoformat(),
        "command": command.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; no TPU",
        "versions": {n: importlib.metadata.version(n) for n in packages},
        **found,
    }
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main(_) -> None:
    """Plans, and writes what was found."""
    if FLAGS.debug:
        try:
            _main()
        except errors.InputError as error:
            traceback.print_exception(error)
            raise
    else:
        _main()


def _main() -> None:
    output = Path(FLAGS.output) if FLAGS.output else None
    if output:
        _check_output(output)
    if FLAGS.steps and FLAGS.examples:
        raise errors.InputError(
            f"--steps {FLAGS.steps}, --examples {FLAGS.examples}: expected one "
            "of them; either says how long the run is"
        )
    if FLAGS.recipe:
        found = _recipe(FLAGS.recipe)
    elif FLAGS.sweep:
        found = _sweep(_job())
    else:
        found = _one(_job())
    print(f"\n{report.LEFT_OUT}")
    if output:
        _write(output, found)
    if "plan" in found and not found["plan"]["program"]["fits"]:
        raise errors.InputError(
            f"--topology {FLAGS.topology}: too little memory for "
            f"--batch_size {FLAGS.batch_size}; what fits, if anything was "
            "found, is above"
        )


if __name__ == "__main__":
    define_flags()
    errors.run(main)
