"""What has to hold before a release: the files, and each installed alone.

    python -m tests.packaging.release_check [--only jax hub]

builds the source distribution and the wheel, checks both with
`twine check --strict`, and installs the wheel with each extra in a new
environment. There, outside the repository, all that the extra names is
imported, and on each Keras one step is trained. Nothing is left behind.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.packaging.build import ROOT, build, copy_source, run

SCRIPTS = Path(__file__).parent
_LEGACY = {"TF_USE_LEGACY_KERAS": "1"}


@dataclass(frozen=True)
class Row:
    """One new environment.

    Attributes:
      name: Of the row.
      extra: The extra of tf-lamb that is installed; None: the wheel alone.
      pins: (requirements file, package) pairs: the package is installed in
        the version of that file.
      scripts: What is run there: a file beside this one, then its arguments.
      variables: Environment variables of the scripts.
    """

    name: str
    extra: "str | None"
    scripts: tuple = ()
    pins: tuple = ()
    variables: dict = field(default_factory=dict)


def _trains(front_end, backend):
    return ("train_step.py", f"tf_lamb.{front_end}", backend)


def _backend(name):
    return {"KERAS_BACKEND": name}


ROWS = (
    Row(
        "tensorflow",
        "tensorflow",
        (_trains("keras3", "tensorflow"),),
        variables=_backend("tensorflow"),
    ),
    Row(
        "jax",
        "jax",
        (_trains("keras3", "jax"),),
        variables=_backend("jax"),
    ),
    Row(
        "torch",
        "torch",
        (_trains("keras3", "torch"),),
        # Where a CPU build of this version is at hand, pip takes it.
        pins=(("torch", "torch"),),
        variables=_backend("torch"),
    ),
    Row(
        "keras2",
        "keras2",
        (_trains("keras2", "tensorflow"),),
        variables=_LEGACY,
    ),
    Row(
        "tf215",
        None,
        (_trains("keras2", "tensorflow"),),
        pins=(("tf215", "tensorflow-cpu"),),
    ),
    Row("data", "data"),
    Row("hub", "hub", (("hub_layer.py",),), variables=_LEGACY),
    Row("models", "models"),
    Row("rl", "rl"),
    Row("summarization", "summarization"),
    Row("term_weighting", "term_weighting"),
    Row("test", "test"),
)


def pinned(file: str, package: str) -> str:
    """The line `package==version` of requirements/<file>.txt."""
    path = ROOT / "requirements" / f"{file}.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.partition("==")[0] == package:
            return line
    raise RuntimeError(f"{path}: no line {package}==..., expected one")


def check_row(row: Row, wheel: Path, folder: Path) -> str:
    """Makes the row's environment and runs its scripts.

    Returns:
      What they print.
    """
    run(sys.executable, "-m", "venv", folder / "env")
    python = folder / "env" / "bin" / "python"
    extra = f"[{row.extra}]" if row.extra else ""
    pins = [pinned(*pin) for pin in row.pins]
    run(python, *"-m pip install --quiet".split(), f"{wheel}{extra}", *pins)
    scripts = list(row.scripts)
    if row.extra:
        scripts.insert(0, ("import_extra.py", row.extra))
    printed = ""
    for name, *arguments in scripts:
        # A copy, and -I: nothing of the repository can be imported.
        script = shutil.copy(SCRIPTS / name, folder)
        printed += run(
            *(python, "-I", script, *arguments),
            cwd=folder,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **row.variables},
        )
    return printed


def check_files(folder: Path) -> Path:
    """Builds and checks both files; returns the wheel's path."""
    source = copy_source(folder / "source")
    files = build(sys.executable, source, folder / "dist")
    print(run(sys.executable, *"-m twine check --strict".split(), *files))
    return files[0]


def main() -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        *("--only", "-o"),
        nargs="+",
        choices=names,
        default=names,
        metavar="ROW",
        help=f"The environments to try, of {', '.join(names)}.",
    )
    only = parser.parse_args().only
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = check_files(Path(folder))
        for row in (row for row in ROWS if row.name in only):
            start = time.monotonic()
            # One at a time: an environment takes up to 2 GB.
            with tempfile.TemporaryDirectory(dir=folder) as own:
                try:
                    printed = check_row(row, wheel, Path(own))
                except RuntimeError as error:
                    failed.append(row.name)
                    printed = f"FAILED\n{error}\n"
            seconds = time.monotonic() - start
            print(f"-- {row.name} ({seconds:.0f} s)\n{printed}", flush=True)
    if failed:
        print(f"release_check: failed: {', '.join(failed)}")
        return 1
    print(f"release_check: {len(only)} environments passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
