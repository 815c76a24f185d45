"""Trust ratios in tables, in TensorBoard and in a plot."""

import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from tf_lamb.callbacks import (
    StepTable,
    TrustRatioLogger,
    plot_trust_ratios,
    read_table,
)
from tf_lamb.diagnostics.heat_map import plot_heat_map


def _fit(callback, epochs=2, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = tf_lamb.LAMB(
        0.1, exclude_from_weight_decay=["bias"], **arguments
    )
    model.compile(optimizer, "mse", steps_per_execution=2)
    x = np.ones((32, 3), "float32")
    model.fit(
        *(x, x[:, :2]),
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )
    return optimizer


def test_logger_writes_a_table_tensorboard_and_a_plot(tmp_path):
    path = tmp_path / "ratios.csv"
    optimizer = _fit(TrustRatioLogger(path, tmp_path / "tb", every=4))
    table = read_table(path)
    kernel, bias = table
    assert kernel.endswith("kernel") and bias.endswith("bias")
    assert [step for step, _ in table[kernel]] == [4, 8, 12, 16]
    last = table[kernel][-1][1]
    assert last == pytest.approx(optimizer.trust_ratios[kernel])
    assert {ratio for _, ratio in table[bias]} == {1.0}
    (events,) = (tmp_path / "tb").iterdir()
    tags = [
        (event.step, value.tag)
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert (16, f"trust_ratio/{kernel}") in tags
    plot_trust_ratios(path, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_plot_without_a_ratio_is_empty(tmp_path):
    table = StepTable(tmp_path / "t.csv", ["a", "b"])
    table.write(1, {"a": 1.0, "b": 1.0})
    with warnings.catch_warnings(action="error"):
        plot_trust_ratios(tmp_path / "t.csv", tmp_path / "t.png")
    assert (tmp_path / "t.png").exists()


def test_logger_counts_updates_under_accumulation(tmp_path):
    path = tmp_path / "ratios.csv"
    logger = TrustRatioLogger(path, every=2, first_step=10)
    _fit(logger, gradient_accumulation_steps=4)
    (points, *_) = read_table(path).values()
    assert [step for step, _ in points] == [12, 14]


def test_table_goes_on_after_an_interruption(tmp_path):
    path = tmp_path / "table.csv"
    table = StepTable(path, ["loss", "val_loss"])
    table.write(1, {"loss": 3.0})
    table.write(2, {"loss": 2.0, "val_loss": 2.5})
    table.write(3, {"loss": 1.0})
    with open(path, "a") as file:
        file.write("4,0.")  # cut off in the middle of a row
    table = StepTable(path, ["loss", "val_loss"], first_step=2)
    table.write(3, {"loss": 1.5})
    assert read_table(path) == {
        "loss": [(1, 3.0), (2, 2.0), (3, 1.5)],
        "val_loss": [(2, 2.5)],
    }
    # Other columns: another table.
    StepTable(path, ["accuracy"], first_step=2)
    assert read_table(path) == {"accuracy": []}


def test_a_table_that_is_not_there(tmp_path):
    for read in (read_table, lambda p: plot_trust_ratios(p, tmp_path / "p")):
        with pytest.raises(
            FileNotFoundError,
            match="^no table .*t.csv; TrustRatioLogger writes a row every ",
        ):
            read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "content, found",
    [
        (b"import keras\nprint(1)\n", "the head line 'import keras'"),
        (b"step,a\n1,two\n", "other text below 'step' or 'a'"),
        (b"step,a\none,2\n", "other text below 'step' or 'a'"),
        (b"\x89PNG\r\n\xff\xfe", "a file that is no CSV text"),
        (b"", "an empty first line"),
    ],
)
def test_a_file_that_is_no_table(content, found, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_table(tmp_path / "t.csv")
    assert str(caught.value) == (
        f"{tmp_path / 't.csv'}: expected a CSV table with a head line that "
        f"begins with 'step' and numbers below it, got {found}; name another "
        "file."
    )


@pytest.mark.parametrize("draw", [plot_trust_ratios, plot_heat_map])
def test_a_plot_without_matplotlib(draw, tmp_path, monkeypatch):
    StepTable(tmp_path / "t.csv", ["a"]).write(1, {"a": 0.5})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw(tmp_path / "t.csv", tmp_path / "t.png")


@pytest.mark.parametrize("draw", [plot_trust_ratios, plot_heat_map])
def test_a_plot_leaves_the_backend_of_a_notebook(draw, tmp_path, monkeypatch):
    """`matplotlib.use` would end the pictures of the user's own cells."""
    import matplotlib

    used = []
    monkeypatch.setattr(matplotlib, "use", used.append)
    StepTable(tmp_path / "t.csv", ["a"]).write(1, {"a": 0.5})
    draw(tmp_path / "t.csv", tmp_path / "new" / "t.png")
    assert not used
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["t.png"]


def test_names_that_the_locale_does_not_have(tmp_path):
    code = (
        "from tf_lamb.callbacks import StepTable, read_table\n"
        "for step in 1, 2:\n"
        "    table = StepTable('t.csv', ['r\\xe9seau/kernel'], step - 1)\n"
        "    table.write(step, {'r\\xe9seau/kernel': 0.5})\n"
        "assert len(read_table('t.csv')['r\\xe9seau/kernel']) == 2\n"
    )
    root = os.path.dirname(os.path.dirname(tf_lamb.__file__))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("LC_")},
        **{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": root},
    }
    subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        **{"cwd": tmp_path, "env": environment, "check": True},
    )
    assert list(read_table(tmp_path / "t.csv")) == ["r\xe9seau/kernel"]
