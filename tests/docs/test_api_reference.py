"""Every public name is in the API reference, and every script in its list."""

import ast
import re
from pathlib import Path

import tf_lamb

ROOT = Path(__file__).parents[2]
API = ROOT / "docs" / "api"
# Described as a module only: the optimizers are built on them.
INTERNAL = {
    "tf_lamb.addons_checkpoints",
    "tf_lamb.any_callback",
    "tf_lamb.arguments",
    "tf_lamb.averages",
    "tf_lamb.bundles",
    "tf_lamb.check",
    "tf_lamb.configs",
    "tf_lamb.diagnostics.command_line",
    "tf_lamb.diagnostics.connect_command",
    "tf_lamb.diagnostics.every",
    "tf_lamb.diagnostics.inputs",
    "tf_lamb.diagnostics.landscape_command",
    "tf_lamb.diagnostics.ntk_command",
    "tf_lamb.diagnostics.precision",
    "tf_lamb.diagnostics.probe",
    "tf_lamb.diagnostics.prune_command",
    "tf_lamb.directions",
    "tf_lamb.figures",
    "tf_lamb.keras2_arguments",
    "tf_lamb.keras3_loop",
    "tf_lamb.keras_optimizer",
    "tf_lamb.known_variables",
    "tf_lamb.layer_adaptive",
    "tf_lamb.legacy_names",
    "tf_lamb.moments",
    "tf_lamb.optimizers",
    "tf_lamb.saved",
    "tf_lamb.saved_state",
    "tf_lamb.tf_accumulation",
    "tf_lamb.tf_contexts",
    "tf_lamb.tf_norms",
    "tf_lamb.tf_ops",
    "tf_lamb.tf_update",
    "tf_lamb.torch_lists",
    "tf_lamb.torch_update",
    "tf_lamb.trust_ratios",
    "tf_lamb.unit_clipping",
    "tf_lamb.update",
    "tf_lamb.v1_variables",
}
_DIRECTIVE = re.compile(
    r"^[ *-]*\.\. (?:py:|auto)(?:module|class|function|data):: ([\w.]+)", re.M
)


def declared_names(folder: Path) -> set:
    """What the pages of the reference describe."""
    pages = [p.read_text(encoding="utf-8") for p in folder.glob("*.rst")]
    return {name for page in pages for name in _DIRECTIVE.findall(page)}


def public_names(source: str) -> set:
    """Names that a module makes public.

    Args:
      source: of the module.

    Returns:
      The names in `__all__`; without one, classes, functions and values whose
      names do not begin with an underscore, imported names left out.
    """
    defined, listed = set(), None
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined.add(node.name)
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        for target in targets:
            if isinstance(target, ast.Name):
                defined.add(target.id)
                if target.id == "__all__":
                    listed = set(ast.literal_eval(node.value))
    if listed is not None:
        return listed
    return {name for name in defined if not name.startswith("_")}


def public_api() -> set:
    """All public names of tf_lamb with their modules, and the modules."""
    names = {"tf_lamb"} | {f"tf_lamb.{name}" for name in tf_lamb.__all__}
    for path in (ROOT / "tf_lamb").rglob("[!_]*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names.add(module)
        if module not in INTERNAL:
            source = path.read_text(encoding="utf-8")
            names |= {f"{module}.{name}" for name in public_names(source)}
    return names


def test_every_public_name_is_described():
    missing = sorted(public_api() - declared_names(API))
    assert not missing, f"docs/api has no directive for {', '.join(missing)}"


def test_what_is_described_exists():
    unknown = sorted(declared_names(API) - public_api())
    assert not unknown, f"docs/api describes {', '.join(unknown)}: not public"


def test_internal_modules_exist():
    for module in INTERNAL:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


def test_public_names_of_a_module():
    source = "import os\nfrom a import b\nX = 1\n_Y = 2\nZ: int = 3\n"
    source += "def f(): ...\ndef _g(): ...\nclass C: ...\n"
    assert public_names(source) == {"X", "Z", "f", "C"}
    assert public_names(source + "__all__ = ['f', 'b']\n") == {"f", "b"}


def test_a_name_that_is_left_out_is_found(tmp_path):
    for page in API.glob("*.rst"):
        text = page.read_text(encoding="utf-8")
        text = text.replace(".. autofunction:: tf_lamb.rules.lars\n", "")
        (tmp_path / page.name).write_text(text, encoding="utf-8")
    assert "tf_lamb.rules.lars" in public_api() - declared_names(tmp_path)


def test_every_script_is_listed():
    page = (API / "scripts.rst").read_text(encoding="utf-8")
    listed = set(re.findall(r"\* - ``([\w.]+)``", page))
    scripts = set()
    for folder in ("tf_lamb", "official_models", "tpu", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if '\nif __name__ == "__main__":' in path.read_text("utf-8"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                scripts.add(".".join(p for p in parts if p != "__main__"))
    assert scripts == listed
