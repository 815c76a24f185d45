"""Names and shapes of a file against those of a model; .keras files."""

import io
import re
import zipfile

import keras
import numpy as np
import pytest

from official_models.common import weights
from tests.official_models.scripts import refusal

OURS = {"a/kernel": (2, 3), "a/bias": (3,), "b/kernel": (3, 1)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"a/kernel": [2, 3]}, ""),
        ({"a/bias": None}, "lacks 'a/bias'"),
        ({"c": (1,)}, "has unknown 'c'"),
        (
            {"b/kernel": (1, 3)},
            "has 'b/kernel' of shape (1, 3), expected (3, 1)",
        ),
        (
            {"a/bias": None, "a/kernel": (), "d": (), "c": ()},
            "lacks 'a/bias'; has unknown 'c', 'd'; has 'a/kernel' of shape (), "
            "expected (2, 3)",
        ),
    ],
)
def test_differences(changes, expected):
    theirs = {n: s for n, s in {**OURS, **changes}.items() if s is not None}
    assert weights.differences(OURS, theirs) == expected


def test_long_lists_are_cut_short():
    many = {f"x{i}": (i,) for i in range(9)}
    shown = "'x0', 'x1', 'x2', 'x3' and 5 more"
    assert weights.differences(many, {}) == f"lacks {shown}"
    assert weights.differences({}, many) == f"has unknown {shown}"
    found = weights.differences(many, {name: (0, 0) for name in many})
    assert found.count("of shape") == 4 and found.endswith(" and 5 more")


def test_names_that_may_differ():
    theirs = {"a/kernel": (2, 3), "a/bias": (3,), "b/m": (1,), "c": (1,)}
    found = weights.differences(OURS, theirs, new=["^b/"], unused=["m$"])
    assert found == "has unknown 'c'"
    options = {"new": ["^b/", "none"], "unused": ["none", ""]}
    assert weights.differences(OURS, theirs, **options) == ""
    theirs["a/bias"] = (4,)
    found = weights.differences(OURS, theirs, **options)
    assert found == "has 'a/bias' of shape (4,), expected (3,)"


def model_of(width=3, name="one"):
    inputs = keras.Input((2,))
    x = keras.layers.Dense(width, name="dense")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, x, name=name)
    rng = np.random.default_rng(width)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.fixture
def saved(tmp_path):
    model = model_of()
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras"


def test_every_variable_of_a_keras_file_is_loaded(saved):
    model, path = saved
    other = model_of(name="two")
    for variable in other.variables:
        variable.assign(variable + 1)
    weights.load_keras(other, str(path))
    assert len(other.variables) == 6
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_another_model_is_refused_and_nothing_assigned(saved):
    other = model_of(width=4, name="wide")
    before = [np.asarray(v) for v in other.variables]
    refusal(
        lambda: weights.load_keras(other, str(saved[1])),
        f"--init_checkpoint {saved[1]}: is of another model (one, this one is "
        "wide): it has 'dense/bias' of shape (3,), expected (4,)",
        "and 2 more; give the flags",
    )
    for old, new in zip(before, other.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_files_that_are_none(saved, tmp_path):
    model, path = saved
    load = weights.load_keras
    none = tmp_path / "none.keras"
    refusal(lambda: load(model, none), f"{none}: no such file; expected a")
    none.write_bytes(b"nothing")
    refusal(lambda: load(model, none), f"{none}: no .keras file, or damaged")
    other = path.rename(tmp_path / "model.zip")
    refusal(lambda: load(model, other), f"{other}: no .keras file")
    damaged = tmp_path / "damaged.keras"
    with (
        zipfile.ZipFile(other) as archive,
        zipfile.ZipFile(damaged, "w") as changed,
    ):
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                content = re.sub(rb"BatchNormalization", b"Unknown", content)
            changed.writestr(name, io.BytesIO(content).getvalue())
    refusal(
        lambda: load(model, damaged),
        f"{damaged}: cannot be read: ",
        "Unknown",
        "expected a model.keras",
    )
