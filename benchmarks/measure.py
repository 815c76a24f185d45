"""What every benchmark needs: a sample in numbers, where it was taken, a file.

No framework: every environment can import it.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, TypedDict

import numpy as np

from official_models.common import files

ROOT = Path(__file__).parents[1]

# The packages whose version decides a time.
PACKAGES = (
    "tf_lamb",
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "tf_keras",
    "tensorflow-addons",
    "jax",
    "jaxlib",
    "libtpu",
    "optax",
    "torch",
    "timm",
    "numpy",
    "apache-beam",
    "tokenizers",
)


class Sample(TypedDict):
    """Order statistics of repeated measurements, in the unit they came in."""

    median: float
    min: float
    max: float
    lower_quartile: float
    upper_quartile: float
    n: int


def summary(times: Sequence[float]) -> Sample:
    """The order statistics of `times`.

    Raises:
      ValueError: there are none.
    """
    if not len(times):
        raise ValueError("summary: expected at least one measurement, got [].")
    lowest, lower, median, upper, highest = (
        float(x) for x in np.percentile(times, [0, 25, 50, 75, 100])
    )
    return Sample(
        median=median,
        min=lowest,
        max=highest,
        lower_quartile=lower,
        upper_quartile=upper,
        n=len(times),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [x.partition(":")[2] for x in lines if x.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def _versions() -> Dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance(
    command: Optional[Sequence[str]] = None, seed: Optional[int] = None
) -> Dict[str, Any]:
    """When, where and with what a measurement was taken.

    Args:
      command: what was run, in words; None for this process' own.
      seed: of the random numbers, if there are any.

    Returns:
      A dict for JSON.
    """
    if command is None:
        command = ["python", *sys.orig_argv[1:]]
    elif isinstance(command, str):
        command = [command]
    return {
        "date": datetime.date.today().isoformat(),
        "command": command[0] if len(command) == 1 else shlex.join(command),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": _versions(),
        "seed": seed,
    }


# TensorFlow in one thread, for processes that share a machine.
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def environment(**changes: str) -> Dict[str, str]:
    """This process' environment for another that measures, with `changes`.

    TensorFlow is Keras' backend and quiet, unless the user says otherwise.
    """
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**quiet, **os.environ, **changes}


def parser(
    module: str, description: str, quick: Optional[str] = None
) -> argparse.ArgumentParser:
    """The arguments that benchmarks have in common.

    Args:
      module: name of the benchmark, run by `python -m`.
      description: its docstring.
      quick: what --quick does; None for a benchmark without.

    Returns:
      A parser to which a benchmark adds its own.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if quick:
        made.add_argument("--quick", action="store_true", help=quick)
        made.add_argument(
            "--output",
            type=Path,
            help="JSON, a plot beside it if there is one; default: none",
        )
        # What `fresh` hands to a process of its own.
        made.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    return made


def measured(
    made: argparse.ArgumentParser,
    run: Callable[[bool], Dict[str, Any]],
    render: Callable[[Dict[str, Any]], str],
    arguments: Optional[Sequence[str]] = None,
) -> int:
    """Runs a benchmark that has --quick and --output alone.

    Args:
      made: of `parser`.
      run: measures, quickly or not; gives what the JSON has.
      render: the table of it, which is printed.
      arguments: of the command line; None: the process' own.

    Returns:
      The exit status.
    """
    flags = made.parse_args(arguments)
    result = run(flags.quick)
    print(render(result))
    if flags.output:
        write_json(flags.output, result)
        print(f"-> {flags.output}")
    return 0


def fresh(module: str, job: Dict[str, Any]) -> Dict[str, Any]:
    """What `module` prints last for `--job`, in a process of its own.

    Args:
      module: name of a benchmark, run by `python -m`.
      job: for JSON, as is the result.

    Raises:
      RuntimeError: the process failed; the message ends in what it wrote.
    """
    process = subprocess.run(
        [sys.executable, "-m", module, "--job", json.dumps(job)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(
            f"{module} --job {job}: status {process.returncode}\n"
            + process.stderr[-2000:]
        )
    return json.loads(process.stdout.splitlines()[-1])


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; all but the first column is right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_json(path, value: Any) -> None:
    """Writes `value`, under a temporary name first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, value, indent=1, allow_nan=False)
