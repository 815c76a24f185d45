"""The notebooks are as they were executed, without errors, and small.

Their code is not run here (`make notebooks` does that, in minutes): it has to
be the code that was executed, and to use names and arguments that exist.
"""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from docs.notebooks.execute import code_cells, digest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
OURS = ("tf_lamb", "official_models")
LARGEST = 300_000


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_of(notebook):
    return "\n".join("".join(cell["source"]) for cell in code_cells(notebook))


notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_there_are_three():
    assert [p.stem for p in NOTEBOOKS] == [
        "batch_scaling_digits",
        "finetune_with_lamb",
        "trust_ratios",
    ]


@notebooks
def test_outputs_are_those_of_the_code(path):
    notebook = read(path)
    assert notebook["metadata"]["executed"]["code_sha256"] == digest(notebook)
    cells = code_cells(notebook)
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    outputs = [x for cell in cells for x in cell["outputs"]]
    assert not [x for x in outputs if x["output_type"] == "error"]
    assert any("image/png" in x.get("data", {}) for x in outputs)
    # The first thing that is printed is the day, which the reader sees.
    date = notebook["metadata"]["executed"]["date"]
    assert "".join(outputs[0]["text"]).startswith(date)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", date)


def test_another_code_has_another_digest():
    notebook = read(NOTEBOOKS[0])
    before = digest(notebook)
    code_cells(notebook)[0]["source"] += "\npass"
    assert digest(notebook) != before


@notebooks
def test_is_small(path):
    assert path.stat().st_size < LARGEST


@notebooks
def test_links_lead_to_files(path):
    text = "\n".join("".join(c["source"]) for c in read(path)["cells"])
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    assert not [x for x in links if not (FOLDER / x).exists()]


@notebooks
def test_names_and_arguments_exist(path):
    """Imports resolve, `tf_lamb.x` exists, and takes the keywords it gets."""
    names, calls = our_names(code_of(read(path)))
    assert calls
    for call in calls:
        function = names[ast.unparse(call.func)]
        keywords = {k.arg: None for k in call.keywords if k.arg}
        inspect.signature(function).bind_partial(
            *[None] * len(call.args), **keywords
        )


def our_names(code):
    """{expression: our object}, and the calls of such an expression."""
    tree = ast.parse(code)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OURS:
                    module = importlib.import_module(alias.name)
                    names[alias.asname or alias.name] = module
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in OURS:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    found = getattr(module, alias.name)
                    names[alias.asname or alias.name] = found
    # Inner attributes come last of a walk: begin with the shortest.
    attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    for node in sorted(attributes, key=lambda n: len(ast.unparse(n))):
        owner = names.get(ast.unparse(node.value))
        if owner is not None:
            names[ast.unparse(node)] = getattr(owner, node.attr)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]
    return names, calls


@pytest.mark.parametrize(
    "code, error",
    [
        ("import tf_lamb\ntf_lamb.LAMBB(1e-3)", AttributeError),
        ("from tf_lamb.callbacks import Logger", AttributeError),
        ("import tf_lamb.optimiser", ModuleNotFoundError),
    ],
)
def test_a_name_that_does_not_exist_is_found(code, error):
    with pytest.raises(error):
        our_names(code)
