"""Who imports whom: the table of the plan, held against the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports_of_models import ROOMS
from tests.imports_of_tf_lamb import TF_LAMB

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"keras", "tf_keras", "tensorflow", "jax", "torch"}
FORBIDDEN_EVERYWHERE = {"pickle", "tensorflow_addons"}
# CIFAR-10's python version is pickles: read with a whitelist of names.
UNPICKLES = {"official_models/vision/datasets/cifar10/unpickle.py": {"pickle"}}


def _is_module(name):
    file = ROOT.joinpath(*name.split("."))
    return file.with_suffix(".py").exists() or (file / "__init__.py").exists()


def _imports(path):
    """Modules imported anywhere in a file: `from a import b` is a.b, if one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if _is_module(name) else node.module)
    return found


def _ours_and_frameworks(path):
    """The imports that the table is about."""
    names = _imports(path)
    ours = ("tf_lamb", "official_models", "tpu", "tests", "benchmarks")
    return {name.split(".")[0] for name in names} & FRAMEWORKS | {
        name for name in names if name.split(".")[0] in ours
    }


def _files(pattern):
    return sorted(ROOT.glob(pattern))


def test_the_table_names_every_module_of_the_package():
    found = {
        path.relative_to(ROOT / "tf_lamb").with_suffix("").as_posix()
        for path in _files("tf_lamb/**/*.py")
    }
    assert found == set(TF_LAMB)


@pytest.mark.parametrize("module", TF_LAMB)
def test_package(module):
    imported = _ours_and_frameworks(ROOT / f"tf_lamb/{module}.py")
    imported -= {"tf_lamb"}  # its version
    assert imported <= TF_LAMB[module]


@pytest.mark.parametrize(
    "module", ["arithmetic", "rules", "exclusion", "schedules"]
)
def test_pure_modules_need_only_the_standard_library_and_numpy(module):
    allowed = set(sys.stdlib_module_names) | {"numpy", "tf_lamb"}
    tops = {n.split(".")[0] for n in _imports(ROOT / f"tf_lamb/{module}.py")}
    assert tops <= allowed


ROOM_FILES = _files("official_models/**/*.py") + _files("tpu/**/*.py")


def _room(path):
    """The row of a file; fails where no row covers it."""
    name = path.relative_to(ROOT).as_posix()
    for pattern, row in ROOMS.items():
        if re.fullmatch(pattern, name):
            return pattern, row
    raise AssertionError(f"{name}: no row of ROOMS covers this file")


@pytest.mark.parametrize(
    "path", ROOM_FILES, ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_rooms(path):
    _, (frameworks, ours) = _room(path)
    imported = _ours_and_frameworks(path)
    assert imported & FRAMEWORKS <= set(frameworks)
    for name in imported - FRAMEWORKS:
        assert any(re.fullmatch(pattern, name) for pattern in ours), name


def test_every_room_has_a_file():
    used = {_room(path)[0] for path in ROOM_FILES}
    assert used == set(ROOMS)


# Scripts that run on JAX and torch where there is no TensorFlow.
WITHOUT_TENSORFLOW = ("finetune_classifier", "finetune_squad")


def _imported_at_once(path):
    """As `_imports`, of what is run on import, but for what `if` decides."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.add(name if _is_module(name) else node.module)
    return names


@pytest.mark.parametrize("script", WITHOUT_TENSORFLOW)
def test_fine_tuning_imports_no_backend_but_keras_own(script):
    waiting, seen = [f"official_models.nlp.bert.{script}"], set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        path = ROOT.joinpath(*module.split("."))
        path = (
            path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        )
        names = _imported_at_once(path)
        tops = {name.split(".")[0] for name in names}
        assert not tops & (FRAMEWORKS - {"keras"}), module
        ours = {
            n
            for n in names
            if n.split(".")[0] in ("official_models", "tf_lamb")
        }
        waiting += ours - seen
    assert "official_models.nlp.datasets.glue" in seen


def _is_script(path):
    return '__name__ == "__main__"' in path.read_text(encoding="utf-8")


def _name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_no_script_imports_a_training_script():
    scripts = {_name(path) for path in ROOM_FILES if _is_script(path)}
    training = {name for name in scripts if re.search(r"\.\w*train\w*$", name)}
    assert {"official_models.nlp.bert.pretrain"} <= training
    for path in ROOM_FILES:
        assert not _ours_and_frameworks(path) & training - {_name(path)}, path


def test_one_file_unpickles_and_none_evaluates():
    for path in [
        path
        for folder in ("tf_lamb", "official_models", "tpu")
        for path in _files(f"{folder}/**/*.py")
    ]:
        allowed = UNPICKLES.get(path.relative_to(ROOT).as_posix(), set())
        assert _imports(path) & FORBIDDEN_EVERYWHERE == allowed, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path


def test_package_alone_brings_in_no_framework():
    """`import tf_lamb` and its pure modules, in a fresh interpreter."""
    code = (
        "import sys, tf_lamb, tf_lamb.rules, tf_lamb.exclusion, "
        "tf_lamb.schedules\n"
        f"loaded = {FRAMEWORKS!r} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "assert 'LAMB' in dir(tf_lamb)\n"
        "try:\n"
        "    tf_lamb.LAMBDA\n"
        "except AttributeError as error:\n"
        "    assert 'LAMBDA' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_jax_front_end_does_not_import_tensorflow_itself():
    """Keras may; the source of what runs under JAX does so nowhere else."""
    for module in (
        "keras3",
        "keras3_loop",
        "keras_optimizer",
        "update",
        "schedules",
    ):
        text = (ROOT / f"tf_lamb/{module}.py").read_text(encoding="utf-8")
        assert "import tensorflow" not in text
        assert not re.search("^import torch", text, re.MULTILINE)
        for line in text.splitlines():
            if "tf_update" in line and "import" in line:
                assert line.startswith("    "), "only on TensorFlow"
