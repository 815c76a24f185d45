"""What pyproject.toml says, held against the pins and the code."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import tf_lamb
from tests.packaging import release_check

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
# The smaller build of the same version.
ALIASES = {"tensorflow": "tensorflow-cpu"}
# Extra -> the environments in which it is tested.
TESTED_IN = {
    "tensorflow": ("main", "oldest", "newest-py312", "newest-py313"),
    "jax": ("main", "plan", "newest-py312", "newest-py313"),
    "torch": ("torch",),
    "keras2": ("main", "newest-py312", "newest-py313"),
    "data": ("data",),
    "hub": ("main",),
    "models": ("main",),
    "rl": ("main",),
    "summarization": ("main",),
    "term_weighting": ("main",),
    "test": ("main",),
}


def pins(file):
    """Canonical name -> version of requirements/<file>.txt."""
    lines = (ROOT / f"requirements/{file}.txt").read_text("utf-8").splitlines()
    names = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in names}


def requirements(extra):
    """The requirements of an extra; those of tf-lamb itself are expanded."""
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "tf-lamb":
            for nested in requirement.extras:
                yield from requirements(nested)
        else:
            yield requirement


def pinned_version(requirement, file):
    name = canonicalize_name(requirement.name)
    versions = pins(file)
    found = versions.get(name) or versions.get(ALIASES.get(name))
    assert found, f"requirements/{file}.txt has no {name}"
    return Version(found)


@pytest.mark.parametrize(
    "extra, file",
    [(e, file) for e, files in TESTED_IN.items() for file in files],
)
def test_an_extra_admits_what_is_tested(extra, file):
    for requirement in requirements(extra):
        assert pinned_version(requirement, file) in requirement.specifier, (
            requirement
        )


@pytest.mark.parametrize(
    "file", [path.stem for path in sorted(ROOT.glob("requirements/*.txt"))]
)
def test_what_the_package_depends_on_admits_what_is_tested(file):
    if file in ("release", "docs"):
        return  # Environments of tools, in which tf_lamb does not run.
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert pinned_version(requirement, file) in requirement.specifier


def test_every_extra_is_tested_and_tried_alone():
    assert set(TESTED_IN) == set(EXTRAS)
    assert {row.extra for row in release_check.ROWS} - {None} == set(EXTRAS)


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
def test_lower_bounds_are_the_oldest_pair_that_is_tested(name):
    oldest = pinned_version(Requirement(name), "oldest")
    (requirement,) = (r for r in requirements("tensorflow") if r.name == name)
    major_minor = f"{oldest.major}.{oldest.minor}"
    assert requirement.specifier == SpecifierSet(f">={major_minor}")


def test_numpy_is_the_oldest_that_is_tested():
    oldest = pinned_version(Requirement("numpy"), "oldest")
    assert PROJECT["dependencies"] == [f"numpy>={oldest.major}.{oldest.minor}"]


def _imported_packages(folder):
    """Top-level modules that are neither Python's nor this repository's."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    ours = {"tf_lamb", "official_models", "tpu", "benchmarks", "tests"}
    return found - set(sys.stdlib_module_names) - ours


@pytest.mark.parametrize("folder", ["tf_lamb", "official_models"])
def test_what_is_imported_is_asked_for(folder):
    """Every package that is imported is a dependency or in an extra."""
    owners = importlib.metadata.packages_distributions()
    asked = {
        canonicalize_name(ALIASES.get(requirement.name, requirement.name))
        for requirement in [
            *map(Requirement, PROJECT["dependencies"]),
            *(r for extra in EXTRAS for r in requirements(extra)),
        ]
    }
    for module in _imported_packages(folder):
        # A package that this environment lacks has its module's name.
        names = map(canonicalize_name, owners.get(module, [module]))
        assert asked & set(names), f"{folder} imports {module}"


def test_every_dependency_is_imported():
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert names <= _imported_packages("tf_lamb")


def test_pythons_are_those_that_are_tested():
    prefix = "Programming Language :: Python :: 3."
    declared = sorted(
        int(text.removeprefix(prefix))
        for text in PROJECT["classifiers"]
        if text.startswith(prefix)
    )
    rows = [path.stem for path in ROOT.glob("requirements/newest-py3*.txt")]
    tested = {int(row.removeprefix("newest-py3")) for row in rows}
    # Every other environment is that of its file's first lines.
    for path in ROOT.glob("requirements/*.txt"):
        tested |= {
            int(minor)
            for minor in re.findall(r"Python 3\.(\d+)", path.read_text("utf-8"))
        }
    assert declared == sorted(tested)
    assert PROJECT["requires-python"] == f">=3.{declared[0]}"
    ruff = PYPROJECT["tool"]["ruff"]["target-version"]
    assert ruff == f"py3{declared[0]}"


def test_one_version():
    """In the code, the newest release of the changelog and CITATION.cff."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", headings[1])
    version, date = re.match(r"\[(.+)\] - (.+)", headings[1]).groups()
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f'\nversion: "{version}"\n' in citation
    assert f'\ndate-released: "{date}"\n' in citation
    assert tf_lamb.__version__ == version
    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"] == {
        "version": {"attr": "tf_lamb.__version__"}
    }
