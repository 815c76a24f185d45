"""Weights from a file: held against a model's, and assigned to it."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence

import keras

from official_models.common.errors import InputError

Shapes = Mapping[str, Sequence[int]]
_SHOWN = 4


def differences(
    expected: Shapes,
    found: Shapes,
    *,
    new: Iterable[str] = (),
    unused: Iterable[str] = (),
) -> str:
    """Which names and shapes keep a file from being a model's weights.

    Args:
        expected: {name: shape} of the model's variables.
        found: {name: shape} of the file's arrays.
        new: Regexes, searched in the names that the file need not have.
        unused: Regexes, searched in the names that the model need not have.

    Returns:
        Such as "lacks 'a', 'b'; has unknown 'c'; has 'd' of shape (2, 3),
        expected (3, 3)", long lists cut short; "" if there is no difference.
    """
    problems = []
    for what, names, allowed in (
        ("lacks", expected.keys() - found.keys(), list(new)),
        ("has unknown", found.keys() - expected.keys(), list(unused)),
    ):
        names = sorted(
            name
            for name in names
            if not any(re.search(pattern, name) for pattern in allowed)
        )
        if names:
            problems.append(f"{what} {_first(map(repr, names), ', ')}")
    shapes = []
    for name in sorted(expected.keys() & found.keys()):
        ours, theirs = tuple(expected[name]), tuple(found[name])
        if ours != theirs:
            shapes.append(f"has {name!r} of shape {theirs}, expected {ours}")
    if shapes:
        problems.append(_first(shapes, "; "))
    return "; ".join(problems)


def _first(items: Iterable[str], separator: str) -> str:
    """The first ones, and how many more there are."""
    items = list(items)
    more = len(items) - _SHOWN
    shown = separator.join(items[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by path, without the states of its dropouts."""
    return {v.path: v for v in model.weights if "seed_generator" not in v.path}


def read_keras(path: str | os.PathLike, where: str) -> keras.Model:
    """The model in a `.keras` file, not compiled.

    Args:
        path: A file that `model.save` wrote.
        where: Begins an error's message, such as "--init_checkpoint a.keras".

    Raises:
        InputError: It cannot be read.
    """
    if not os.path.isfile(path):
        raise InputError(f"{where}: no such file; expected a model.keras")
    if not os.fspath(path).endswith(".keras") or not zipfile.is_zipfile(path):
        raise InputError(
            f"{where}: no .keras file, or damaged; expected a model.keras"
        )
    try:
        return keras.saving.load_model(path, compile=False)
    # Keras passes on whatever a damaged archive raises.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{where}: cannot be read: {reason}; expected a model.keras"
        ) from error


def load_keras(model: keras.Model, path: str | os.PathLike) -> None:
    """Gives every variable of a model the value it has in a `.keras` file.

    Args:
        model: Built; its optimizer is left alone.
        path: A file that `model.save` wrote, the --init_checkpoint of a
            script.

    Raises:
        InputError: It cannot be read, or holds another model. Nothing is
            assigned then.
    """
    where = f"--init_checkpoint {path}"
    saved = read_keras(path, where)
    theirs = {v.path: v for v in saved.variables}
    ours = {v.path: v for v in model.variables}
    problem = differences(_shapes(ours), _shapes(theirs))
    if problem:
        raise InputError(
            f"{where}: is of another model ({saved.name}, this one is "
            f"{model.name}): it {problem}; give the flags of the model that it "
            "was trained with"
        )
    for name, variable in ours.items():
        variable.assign(theirs[name])


def _shapes(variables: Mapping[str, keras.Variable]) -> dict[str, tuple]:
    return {name: tuple(v.shape) for name, v in variables.items()}
