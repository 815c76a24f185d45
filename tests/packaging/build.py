"""Builds the package from a copy of what git tracks."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command, **arguments) -> str:
    """Runs a command and returns what it prints.

    Raises:
      RuntimeError: It failed; with the command and all that it printed.
    """
    command = [str(word) for word in command]
    result = subprocess.run(
        command, capture_output=True, text=True, **arguments
    )
    if result.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: status {result.returncode}\n"
            + result.stdout
            + result.stderr
        )
    return result.stdout


def copy_source(folder: Path) -> Path:
    """Copies what git tracks, so that a build leaves nothing in the tree."""
    names = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT)
    for name in names.splitlines():
        path = ROOT / name
        if path.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(path.read_bytes())
    return folder


def build(python, source: Path, folder: Path) -> tuple[Path, Path]:
    """Builds the source distribution, and from it the wheel.

    Args:
      python: An interpreter that has `build`.
      source: Folder of pyproject.toml.
      folder: Where the two files go.

    Returns:
      The paths of the wheel and of the source distribution.
    """
    run(python, "-m", "build", "--outdir", folder, source)
    (wheel,) = folder.glob("tf_lamb-*.whl")
    (archive,) = folder.glob("tf_lamb-*.tar.gz")
    return wheel, archive
