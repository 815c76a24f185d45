"""`pip install .` in an empty environment, wheel and source distribution."""

import sys
import tarfile
import venv
import zipfile

import pytest

from tests.packaging.build import ROOT, copy_source, run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return copy_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def python(source, tmp_path_factory):
    """An interpreter of a new environment that holds the package alone."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", source)
    return python


def test_installs_light_and_imports_fast(python, tmp_path):
    installed = run(python, "-m", "pip", "list", "--format=freeze").lower()
    names = {line.split("==")[0] for line in installed.splitlines()}
    assert names - {"pip", "setuptools"} == {"numpy", "tf-lamb"}
    code = (
        "import sys, time; t = time.perf_counter(); import tf_lamb; "
        "seconds = time.perf_counter() - t; "
        "assert 'tensorflow' not in sys.modules; print(seconds)"
    )
    times = [float(run(python, "-c", code, cwd=tmp_path)) for _ in range(3)]
    assert min(times) < 0.2
    run(python, "-c", "import tf_lamb.rules, tf_lamb.schedules", cwd=tmp_path)


def test_wheel_holds_the_package_alone(source, python, tmp_path):
    run(
        *(python, "-m", "pip", "wheel", "-q", "--no-deps"),
        *("-w", tmp_path, source),
    )
    (wheel,) = tmp_path.glob("tf_lamb-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "-co", "tf_lamb/", cwd=ROOT).split()
    modules = {name for name in tracked if name.endswith((".py", "/py.typed"))}
    assert {"tf_lamb/__init__.py", "tf_lamb/py.typed"} <= modules
    assert {n for n in names if ".dist-info/" not in n} == modules
    assert any(n.endswith("/licenses/LICENSE") for n in names)


def test_source_distribution_builds_and_holds_what_a_wheel_needs(
    source, tmp_path
):
    code = (
        "from setuptools import build_meta; import sys; "
        "print(build_meta.build_sdist(sys.argv[1]))"
    )
    run(sys.executable, "-c", code, tmp_path, cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[-1] for name in tar.getnames()}
    assert {
        *("setup.py", "pyproject.toml", "LICENSE", "README.md"),
        *("CHANGELOG.md", "CITATION.cff"),
        *("tf_lamb/rules.py", "tf_lamb/py.typed"),
    } <= names
    # Without what they import, single test files are of no use.
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"tf_lamb", "tf_lamb.egg-info"}
