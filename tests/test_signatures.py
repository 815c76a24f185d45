"""Every public function of the package has types, every name a docstring."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tf_lamb"


def _definitions(body, owner=""):
    """`(name, node)` of classes and functions in a module's or class' body.

    A method counts as public in a private class too: users meet it in the
    public classes that are derived from it.
    """
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield f"{owner}{node.name}", node
            yield from _definitions(node.body, f"{owner}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _definitions([*node.body, *node.orelse], owner)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{owner}{node.name}", node


def _without_type(node, is_method):
    """Names of parameters that have no annotation, and "return"."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    if is_method and "staticmethod" not in decorators:
        positional = positional[1:]
    extra = [a for a in (arguments.vararg, arguments.kwarg) if a]
    every = [*positional, *arguments.kwonlyargs, *extra]
    names = [a.arg for a in every if a.annotation is None]
    return names + ["return"] * (node.returns is None)


def _is_setter(node):
    return any(
        isinstance(decorator, ast.Attribute) and decorator.attr == "setter"
        for decorator in getattr(node, "decorator_list", ())
    )


def _has_docstring(node):
    """Whether there is one, written or assigned (`__doc__ = Other.__doc__`)."""
    assigned = [
        target.id
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
    return bool(ast.get_docstring(node)) or "__doc__" in assigned


def _lacking(source):
    """What lacks a type or a docstring, as a list of lines."""
    found = []
    for name, node in _definitions(ast.parse(source).body):
        last = name.split(".")[-1]
        if last.startswith("_") and last not in ("__init__", "__call__"):
            continue
        lacks = []
        if not isinstance(node, ast.ClassDef):
            lacks += [f"type of {x}" for x in _without_type(node, "." in name)]
        # The class' docstring has the arguments of the constructor, that of a
        # property's getter says what can be set.
        documented = last == "__init__" or _is_setter(node)
        if not documented and not _has_docstring(node):
            lacks.append("docstring")
        found += [f"{name}: {x}" for x in lacks]
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.glob("**/*.py")), ids=lambda path: path.stem
)
def test_public_functions_have_types_and_docstrings(path):
    assert _lacking(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source, lacking",
    [
        ("def f(x: int) -> int:\n 'Doc.'", []),
        ("def f(x) -> int:\n 'Doc.'", ["f: type of x"]),
        ("def f(x: int):\n 'Doc.'", ["f: type of return"]),
        ("def f(x: int) -> int: ...", ["f: docstring"]),
        ("def f(*x, **y) -> int:\n 'D.'", ["f: type of x", "f: type of y"]),
        ("def _f(x): ...", []),
        ("class A: ...", ["A: docstring"]),
        ("class A:\n __doc__ = B.__doc__", []),
        ("class A:\n 'D.'\n def __init__(self, x) -> None: ...",)
        + (["A.__init__: type of x"],),
        ("class _A:\n def f(self) -> int: ...", ["_A.f: docstring"]),
        ("class A:\n 'D.'\n @staticmethod\n def f(x) -> int:\n  'Doc.'",)
        + (["A.f: type of x"],),
        ("if 1:\n def f(): ...", ["f: type of return", "f: docstring"]),
    ],
)
def test_of_the_check_itself(source, lacking):
    assert _lacking(source) == lacking


def test_the_package_says_that_it_has_types():
    assert (PACKAGE / "py.typed").exists()
