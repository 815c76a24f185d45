"""Who imports whom: the table of the plan, held against the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"keras", "tf_keras", "tensorflow", "jax", "torch"}
FORBIDDEN_EVERYWHERE = {"pickle", "tensorflow_addons"}
# CIFAR-10's python version is pickles: read with a whitelist of names.
UNPICKLES = {"official_models/vision/datasets/cifar10/unpickle.py": {"pickle"}}

# module -> what of FRAMEWORKS and of this repository it may import
PURE = {"tf_lamb.check", "tf_lamb.arithmetic"}
CORE = {
    f"tf_lamb.{n}"
    for n in (
        "arguments",
        "directions",
        "exclusion",
        "hyperparameters",
        "moments",
        "rules",
        "schedule_checks",
        "schedules",
        "trust_ratios",
        "unit_clipping",
    )
} | PURE
# One update, and what an optimizer of any front end is made of.
UPDATE = {
    f"tf_lamb.{n}" for n in ("averages", "bundles", "groups", "update")
} | CORE
OPTIMIZER = {f"tf_lamb.{n}" for n in ("layer_adaptive", "optimizers")} | UPDATE
# TensorFlow's side of an update.
ON_TENSORFLOW = {
    f"tf_lamb.{n}"
    for n in (
        "tf_accumulation",
        "tf_contexts",
        "tf_norms",
        "tf_ops",
        "tf_update",
    )
}
KERAS = {"tf_lamb.keras_optimizer"} | ON_TENSORFLOW | OPTIMIZER
# What an optimizer needs to be saved, copied and loaded.
SAVING = {f"tf_lamb.{n}" for n in ("addons_checkpoints", "known_variables")}
TF_LAMB = {
    # Only for type checkers.
    "__init__": {
        f"tf_lamb.{n}"
        for n in (
            "diagnostics.monitor",
            "diagnostics.noise_callback",
            "groups",
            "keras3",
            "layerwise",
            "local_sgd",
            "wrapped",
        )
    },
    "arguments": {"tf_lamb.exclusion", "tf_lamb.hyperparameters"} | PURE,
    "arithmetic": set(),
    "check": set(),
    "hyperparameters": PURE,
    "moments": {"tf_lamb.arithmetic"},
    "directions": {"tf_lamb.hyperparameters", "tf_lamb.moments"} | PURE,
    "rules": {
        "tf_lamb.directions",
        "tf_lamb.hyperparameters",
        "tf_lamb.moments",
        "tf_lamb.trust_ratios",
        "tf_lamb.unit_clipping",
    }
    | PURE,
    "trust_ratios": {"tf_lamb.arithmetic"},
    "unit_clipping": {"tf_lamb.hyperparameters"} | PURE,
    "exclusion": PURE,
    "groups": {"tf_lamb.exclusion", "tf_lamb.hyperparameters"} | PURE,
    "layerwise": {"tf_lamb.exclusion", "tf_lamb.groups"} | PURE,
    "bundles": {"tf_lamb.averages", "tf_lamb.groups"} | CORE,
    "schedule_checks": PURE,
    "schedules": {"tf_lamb.schedule_checks"} | PURE,
    "averages": PURE,
    "update": UPDATE,
    "configs": PURE,
    "saved": {"tf_lamb.exclusion"},
    "saved_state": {"tf_lamb.exclusion", "tf_lamb.saved"},
    "known_variables": set(),
    "layer_adaptive": {"tf_lamb.saved"} | UPDATE,
    "optimizers": OPTIMIZER,
    "keras_optimizer": {"tf_lamb.configs", "tf_lamb.saved_state"} | OPTIMIZER,
    "tf_ops": {"tensorflow"},
    "tf_norms": {"tensorflow", "tf_lamb.arithmetic", "tf_lamb.tf_ops"},
    "tf_update": {
        "tensorflow",
        "tf_lamb.tf_accumulation",
        "tf_lamb.tf_contexts",
        "tf_lamb.tf_norms",
        "tf_lamb.tf_ops",
    }
    | UPDATE,
    "tf_contexts": {"tensorflow"},
    "legacy_names": set(),
    "tf_accumulation": {"tensorflow"},
    "loss_scaling": {"tensorflow", "keras", "tf_lamb.wrapped"},
    # torch on its own backend only, inside the function that needs it.
    # JAX on its own backend only, inside the function that needs it.
    "sharding": {"keras", "jax"},
    "keras3": {"keras", "tf_lamb.keras3_loop", "tf_lamb.loss_scaling"}
    | SAVING
    | KERAS,
    "keras3_loop": {"keras", "torch"} | UPDATE,
    # tf.keras up to TensorFlow 2.15.
    "keras2": {
        "tensorflow",
        "tf_lamb.keras2_arguments",
        "tf_lamb.legacy_names",
    }
    | SAVING
    | KERAS,
    "keras2_arguments": {"tensorflow", "tf_keras"},
    "addons_checkpoints": {"tensorflow"},
    "v1": {"tensorflow", "tf_lamb.v1_variables"} | ON_TENSORFLOW | OPTIMIZER,
    "v1_variables": set(),
    "wrapped": set(),
    "any_callback": set(),
    "same_model": {"tensorflow", "keras", "tf_keras"},
    "multi_worker": {
        "tensorflow",
        "keras",
        "tf_lamb.any_callback",
        "tf_lamb.check",
        "tf_lamb.same_model",
        "tf_lamb.loss_scaling",
    },
    "local_sgd": {
        "tensorflow",
        "tf_lamb",
        "tf_lamb.check",
        "tf_lamb.multi_worker",
        "tf_lamb.diagnostics.every",
    },
    # TensorFlow only where TensorBoard is asked for.
    "callbacks": {
        "keras",
        "tensorflow",
        "tf_lamb.any_callback",
        "tf_lamb.wrapped",
    }
    | CORE,
    "diagnostics/__init__": {"tf_lamb.diagnostics.initialisation"},
    "diagnostics/initialisation": {
        "keras",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/noise_scale": {"tf_lamb.check"},
    "diagnostics/alarms": {"tf_lamb.check"},
    "diagnostics/examples": {"tf_lamb.check"},
    # The framework of the model, inside the class of its backend.
    "diagnostics/probe": {
        "tensorflow",
        "jax",
        "torch",
        "keras",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.exclusion",
    }
    | PURE,
    # TensorFlow's workers only under one of its strategies.
    "diagnostics/every": {
        "tf_lamb.any_callback",
        "tf_lamb.diagnostics.probe",
        "tf_lamb.multi_worker",
        "tf_lamb.wrapped",
    }
    | PURE,
    # Before a training: the command lines, and what they are made of.
    "diagnostics/command_line": set(),
    "diagnostics/lanczos": {"tf_lamb.check"},
    "diagnostics/curvature": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/spectrum": {
        "tf_lamb.check",
        "tf_lamb.diagnostics.curvature",
        "tf_lamb.diagnostics.lanczos",
    },
    "diagnostics/inputs": {
        "keras",
        "tf_lamb",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/advice": {
        "keras",
        "tf_lamb.check",
        "tf_lamb.schedules",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.noise_scale",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/__main__": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "advice",
            "command_line",
            "connect_command",
            "curvature",
            "examples",
            "inputs",
            "jacobian",
            "landscape_command",
            "noise_scale",
            "ntk_command",
            "probe",
            "prune_command",
            "spectrum",
        )
    },
    # SciPy inside the function that needs it.
    "diagnostics/jacobian": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    # Lottery tickets.
    "diagnostics/masks": {"keras", "tf_lamb.check"},
    "diagnostics/tickets": {"keras", "tf_lamb.check"}
    | {f"tf_lamb.diagnostics.{n}" for n in ("examples", "masks", "probe")},
    "diagnostics/prune_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in ("command_line", "examples", "inputs", "masks", "tickets")
    },
    # Weights that are not the model's own: slices, curves, kernels.
    "diagnostics/at_weights": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/landscape": {
        "tf_lamb.check",
        "tf_lamb.exclusion",
        "tf_lamb.diagnostics.at_weights",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/landscape_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "at_weights",
            "command_line",
            "examples",
            "inputs",
            "landscape",
        )
    },
    "diagnostics/curves": {
        "tf_lamb.check",
        "tf_lamb.diagnostics.at_weights",
    },
    # An optimizer, inside the function that makes it.
    "diagnostics/curve_training": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
    }
    | {
        f"tf_lamb.diagnostics.{n}"
        for n in ("at_weights", "curves", "examples", "probe")
    },
    "diagnostics/connect_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "at_weights",
            "command_line",
            "curve_training",
            "curves",
            "examples",
            "inputs",
            "probe",
        )
    },
    "diagnostics/ntk": {
        "keras",
        "tensorflow",
        "jax",
        "tf_lamb.check",
        "tf_lamb.diagnostics.at_weights",
        "tf_lamb.diagnostics.examples",
        "tf_lamb.diagnostics.probe",
    },
    "diagnostics/ntk_command": {
        f"tf_lamb.diagnostics.{n}"
        for n in (
            "at_weights",
            "command_line",
            "examples",
            "inputs",
            "ntk",
        )
    },
    "diagnostics/heat_map": {"tf_lamb.callbacks"},
    "diagnostics/monitor": {
        "tensorflow",
        "tf_lamb.callbacks",
        "tf_lamb.wrapped",
    }
    | PURE
    | {
        f"tf_lamb.diagnostics.{n}"
        for n in ("alarms", "every", "examples", "heat_map", "probe")
    },
    "diagnostics/noise_callback": {
        "tensorflow",
        "tf_lamb.callbacks",
        "tf_lamb.exclusion",
    }
    | PURE
    | {
        f"tf_lamb.diagnostics.{n}"
        for n in ("every", "examples", "noise_scale", "probe")
    },
}
# Rooms of official_models and tpu, the first pattern that fits a file counts:
# pattern -> (frameworks, what of this repository it may import).
DATA_TOOLS = (
    r"official_models\.common\."
    r"(checkpoint_list|errors|files|pypi|readers|record_check|records)"
)
MODEL_TOOLS = (
    DATA_TOOLS,
    r"official_models\.common\.(layer|ops|ops\..+|weights)",
)
BERT = r"official_models\.nlp\.bert\."
ROOMS = {
    r"official_models/common/ops/\w+\.py": (
        ("keras", "tensorflow"),
        MODEL_TOOLS,
    ),
    r"(official_models|tpu)/(\w+/)*__init__\.py": ((), ()),
    # Common: no model, no data set. A run takes a tf_keras model too.
    r"official_models/common/"
    r"(checkpoint_list|errors|files|pypi|readers|record_check|records)\.py": (
        ("tensorflow",),
        (DATA_TOOLS,),
    ),
    r"official_models/common/\w+\.py": (
        ("keras", "tf_keras", "tensorflow", "jax"),
        (r"official_models\.common\..+", r"tf_lamb(\..+)?"),
    ),
    # Data sets and texts: without Keras, so that a TPUEstimator can read them.
    r"official_models/nlp/(text|datasets)/\w+\.py": (
        ("tensorflow",),
        (DATA_TOOLS, r"official_models\.nlp\.(text|datasets)\..+"),
    ),
    r"official_models/vision/datasets/(\w+/)?\w+\.py": (
        ("tensorflow",),
        (DATA_TOOLS, r"official_models\.vision\.datasets\..+"),
    ),
    r"official_models/nlp/bert/pretraining/"
    r"(batches|masking|packing|pipeline|recipe|records)\.py": (
        ("tensorflow",),
        (
            DATA_TOOLS,
            r"official_models\.nlp\.text\..+",
            BERT + r"pretraining\.(batches|masking|packing|recipe|records)",
        ),
    ),
    r"official_models/nlp/bert/finetuning/(tasks/)?\w+\.py": (
        ("tensorflow",),
        (
            DATA_TOOLS,
            r"official_models\.nlp\.(text|datasets)\..+",
            BERT + r"(config|heads|finetuning\..+)",
        ),
    ),
    # By Keras' `fit`, on each backend.
    r"official_models/nlp/bert/finetuning/fit/\w+\.py": (
        ("keras",),
        (
            r"official_models\.(common|nlp)\..+",
            r"tf_lamb",
        ),
    ),
    # Models: Keras through common.ops, of tf_lamb nothing but its checks.
    r"official_models/nlp/transformer/\w+\.py": (("keras",), MODEL_TOOLS),
    r"official_models/(nlp|vision)/\w+/(pretraining/)?"
    r"(model|layers|layouts|losses|blocks|heads)\.py": (
        ("keras",),
        (
            *MODEL_TOOLS,
            r"official_models\.nlp\.transformer\..+",
            BERT + r"(config|heads|model)",
            r"official_models\.nlp\.albert\.(config|model)",
            r"official_models\.vision\.resnet\.(blocks|layers)",
            r"official_models\.vision\.few_shot\.losses",
            r"tf_lamb\.check",
        ),
    ),
    r"official_models/nlp/\w+/(config|huggingface|hub)\.py": (
        ("keras", "tensorflow"),
        (
            *MODEL_TOOLS,
            r"official_models\.nlp\.transformer\..+",
            BERT + r"(config|model|huggingface)",
            r"official_models\.nlp\.albert\.model",
            r"official_models\.nlp\.checkpoint\.(opening|source)",
            r"tf_lamb\.check",
        ),
    ),
    # Checkpoints: of models, not of their training.
    r"official_models/nlp/checkpoint/\w+\.py": (
        ("keras", "tensorflow"),
        (
            r"official_models\.common\..+",
            r"official_models\.nlp\.text\..+",
            r"official_models\.nlp\.checkpoint(\..+)?",
            r"official_models\.nlp\.(bert|albert)\."
            r"(config|heads|huggingface|model)",
        ),
    ),
    # Scripts and what only they use: anything but another script.
    r"official_models/(nlp|vision)/\w+/(pretraining/)?\w+\.py": (
        ("keras", "tensorflow", "tf_keras"),
        (
            r"official_models\.(common|nlp|vision)\..+",
            r"tf_lamb(\.(callbacks|keras2|schedules|multi_worker))?",
        ),
    ),
    # The planner: Keras and JAX, no TensorFlow; models, no data.
    r"tpu/plan/\w+\.py": (
        ("keras", "jax"),
        (
            r"official_models\..+\.(config|layouts|losses|model|model_parallel)",
            DATA_TOOLS,
            r"tf_lamb(\.sharding)?",
            r"tpu\.plan(\..+)?",
        ),
    ),
    r"tpu/\w+\.py": (
        ("tensorflow",),
        (
            r"official_models\..+",
            r"tf_lamb\.(v1|schedules|exclusion|hyperparameters|rules|arithmetic|schedule_checks"
            r"|wrapped)",
            r"tpu\.\w+",
        ),
    ),
}


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
