"""Who imports whom: the table of the plan, held against the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"keras", "tf_keras", "tensorflow", "jax", "torch"}
FORBIDDEN_EVERYWHERE = {"pickle", "tensorflow_addons"}

# module -> what of FRAMEWORKS and of this repository it may import
PURE = {"tf_lamb.hyperparameters", "tf_lamb.arithmetic"}
CORE = {f"tf_lamb.{n}" for n in ("exclusion", "rules", "schedules")} | PURE
# What an optimizer of any Keras is made of.
KERAS = {
    f"tf_lamb.{n}"
    for n in (
        "fused",
        "layer_adaptive",
        "optimizers",
        "replicated",
        "schedule_classes",
    )
} | CORE
TF_LAMB = {
    "__init__": set(),
    "arithmetic": set(),
    "hyperparameters": set(),
    "rules": PURE,
    "exclusion": PURE,
    "schedules": PURE,
    "schedule_classes": CORE,
    "layer_adaptive": CORE,
    "optimizers": {"tf_lamb.layer_adaptive"} | CORE,
    "fused": {"tensorflow", "tf_lamb.rules"},
    "replicated": {"tensorflow", "tf_lamb.fused", "tf_lamb.layer_adaptive"},
    "loss_scaling": {"tensorflow", "keras"},
    "keras3": {"keras", "tf_lamb.loss_scaling"} | KERAS,
    # tf.keras up to TensorFlow 2.15.
    "keras2": {"tensorflow", "tf_keras"} | KERAS,
    "v1_base": {"tensorflow", "tf_lamb.fused"} | CORE,
    "v1": {"tf_lamb.v1_base", "tf_lamb.fused"} | CORE,
    "facts": {"tensorflow", "keras", "tf_keras"},
    "multi_worker": {
        "tensorflow",
        "keras",
        "tf_lamb.facts",
        "tf_lamb.loss_scaling",
    },
    # TensorFlow only where TensorBoard is asked for.
    "callbacks": {"keras", "tensorflow"} | CORE,
}
DATA = (
    *("corpus", "data", "masking", "packing", "record_files", "records"),
    # Of fine-tuning.
    *("finetuning_records", "glue", "squad", "squad_answers", "sst2"),
    # The images'.
    *("batches", "cifar10_files", "jpeg_archive", "plain_pickle"),
    *("corrupt_records", "imagenet", "imagenet_images", "imagenet_shards"),
    *("memory_source", "record_reader", "convert_imagenet", "convert_image"),
)


def _imports(path):
    """Modules imported anywhere in a file, `from a import b` as a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _ours_and_frameworks(path):
    """The imports that the table is about."""
    found = set()
    for name in _imports(path):
        top = name.split(".")[0]
        if top in FRAMEWORKS:
            found.add(top)
        elif top in ("tf_lamb", "official_models", "tests"):
            file = ROOT.joinpath(*name.split("."))
            if file.with_suffix(".py").exists():
                found.add(name)
    return found


def _files(pattern):
    return sorted(ROOT.glob(pattern))


def test_the_table_names_every_module_of_the_package():
    assert {path.stem for path in _files("tf_lamb/*.py")} == set(TF_LAMB)


@pytest.mark.parametrize("module", TF_LAMB)
def test_package(module):
    imported = _ours_and_frameworks(ROOT / f"tf_lamb/{module}.py")
    assert imported <= TF_LAMB[module]


@pytest.mark.parametrize(
    "module", ["arithmetic", "rules", "exclusion", "schedules"]
)
def test_pure_modules_need_only_the_standard_library_and_numpy(module):
    allowed = set(sys.stdlib_module_names) | {"numpy", "tf_lamb"}
    tops = {n.split(".")[0] for n in _imports(ROOT / f"tf_lamb/{module}.py")}
    assert tops <= allowed


@pytest.mark.parametrize(
    "path", _files("official_models/**/*.py"), ids=lambda p: p.stem
)
def test_reference_models(path):
    imported = _ours_and_frameworks(path)
    if path.stem in DATA or path.stem == "shakespeare":
        assert not any(n.startswith("tf_lamb") for n in imported)
        assert imported & FRAMEWORKS <= {"tensorflow"}
    if path.stem in ("model", "layers", "blocks", "heads"):
        assert imported <= {
            "keras",
            "official_models.common.ops",
            "official_models.nlp.bert.layers",
            # ALBERT is BERT with other numbers of variables.
            "official_models.nlp.bert.model",
            "official_models.vision.resnet.blocks",
            "official_models.vision.resnet.layers",
        }
    if path.parent.name == "common":
        models = {"official_models.nlp", "official_models.vision"}
        assert not any(n.startswith(tuple(models)) for n in imported)


@pytest.mark.parametrize("path", _files("tpu/plan/*.py"), ids=lambda p: p.stem)
def test_the_planner_needs_no_tensorflow(path):
    imported = _ours_and_frameworks(path)
    assert imported & FRAMEWORKS <= {"keras", "jax"}
    assert not any(n.startswith("tf_lamb.") for n in imported)
    models = {n for n in imported if n.startswith("official_models")}
    assert all(n.endswith((".model", ".common.errors")) for n in models)


@pytest.mark.parametrize("path", _files("tpu/*.py"), ids=lambda p: p.stem)
def test_tpu_jobs(path):
    ours = {f"tf_lamb.{n}" for n in ("v1", "schedules", "rules")}
    for name in _ours_and_frameworks(path):
        assert name in {"tensorflow"} | ours or name.startswith(
            "official_models."
        ), name


def test_nobody_unpickles_or_evaluates():
    for path in [
        path
        for folder in ("tf_lamb", "official_models", "tpu")
        for path in _files(f"{folder}/**/*.py")
    ]:
        assert not _imports(path) & FORBIDDEN_EVERYWHERE, path
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
    for module in ("keras3", "optimizers", "schedule_classes"):
        text = (ROOT / f"tf_lamb/{module}.py").read_text(encoding="utf-8")
        assert "import tensorflow" not in text
        for line in text.splitlines():
            if "import fused" in line:
                assert line.startswith("    "), "only on TensorFlow"
