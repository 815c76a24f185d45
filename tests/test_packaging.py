"""`pip install .` in an empty environment, wheel and source distribution."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(*command, **arguments):
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, **arguments
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what git tracks, so that building leaves nothing behind."""
    folder = tmp_path_factory.mktemp("source")
    names = _run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT)
    for name in names.splitlines():
        path = ROOT / name
        if path.exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def python(source, tmp_path_factory):
    """An interpreter of a new environment that holds the package alone."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", source)
    return python


def test_installs_light_and_imports_fast(python, tmp_path):
    installed = _run(python, "-m", "pip", "list", "--format=freeze").lower()
    names = {line.split("==")[0] for line in installed.splitlines()}
    assert names - {"pip", "setuptools"} == {"absl-py", "numpy", "tf-lamb"}
    code = (
        "import sys, time; t = time.perf_counter(); import tf_lamb; "
        "seconds = time.perf_counter() - t; "
        "assert 'tensorflow' not in sys.modules; print(seconds)"
    )
    times = [float(_run(python, "-c", code, cwd=tmp_path)) for _ in range(3)]
    assert min(times) < 0.2
    _run(python, "-c", "import tf_lamb.rules, tf_lamb.schedules", cwd=tmp_path)


def test_wheel_holds_the_package_alone(source, python, tmp_path):
    _run(
        *(python, "-m", "pip", "wheel", "-q", "--no-deps"),
        *("-w", tmp_path, source),
    )
    (wheel,) = tmp_path.glob("tf_lamb-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.name for path in (ROOT / "tf_lamb").glob("*.py")}
    packed = {n.split("/")[1] for n in names if n.startswith("tf_lamb/")}
    assert packed == modules | {"py.typed"}
    assert not any(n.startswith(("tests", "official_models")) for n in names)


def test_source_distribution_builds_and_holds_what_a_wheel_needs(
    source, tmp_path
):
    code = (
        "from setuptools import build_meta; import sys; "
        "print(build_meta.build_sdist(sys.argv[1]))"
    )
    _run(sys.executable, "-c", code, tmp_path, cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[-1] for name in tar.getnames()}
    assert {"setup.py", "LICENSE", "README.md", "tf_lamb/rules.py"} <= names
