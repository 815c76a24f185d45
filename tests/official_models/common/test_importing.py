"""A script that lacks a package says what to install."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from official_models.common import importing

ROOT = Path(__file__).parents[3]
SCRIPT = "official_models.nlp.term_weighting.train"


@pytest.mark.parametrize(
    "package, script, extra",
    [
        ("sklearn", SCRIPT, "term_weighting"),
        ("gymnasium", "official_models.rl.dqn_lambda.play", "rl"),
        ("absl", "official_models.vision.resnet.train", "models"),
        ("torch", "official_models.rl.dqn_lambda.play", "torch"),
    ],
)
def test_the_extra_of_a_missing_package(monkeypatch, package, script, extra):
    monkeypatch.setitem(sys.modules, package, None)
    error = ModuleNotFoundError("no", name=f"{package}.part")
    line = importing.explanation(error, script)
    assert line == (
        f"{script}: needs the package {package}, which is not installed: pip "
        f"install 'tf-lamb[{extra}]'"
    )


def test_every_extra_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    assert {*importing._EXTRAS.values(), "models"} <= {*known}


def test_keras_2_is_named(monkeypatch):
    error = ImportError("cannot import name 'ops'", name="keras")
    assert importing.explanation(error, SCRIPT) is None
    monkeypatch.setattr(metadata, "version", lambda _: "2.15.0")
    assert importing.explanation(error, SCRIPT).startswith(
        "Keras 2.15.0: this script needs Keras 3.10 or later"
    )


def test_defects_are_not_explained():
    for error in (
        ValueError("keras"),
        ModuleNotFoundError("no", name="official_models.nlp.gone"),
        ModuleNotFoundError("no", name="numpy.gone"),  # it is installed
        ImportError("cannot import name 'gone' from 'numpy'", name="numpy"),
    ):
        assert importing.explanation(error, SCRIPT) is None


def test_a_script_without_its_package(tmp_path):
    """In a process: one line and status 2, where a traceback was."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['sklearn'] = None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].endswith(
        "pip install 'tf-lamb[term_weighting]'"
    )


def test_a_user_s_program_keeps_python_s_hook():
    program = (
        "import sys, official_models, tpu\n"
        "assert sys.excepthook is sys.__excepthook__"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
