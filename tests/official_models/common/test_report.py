"""report.json and pictures of a run."""

import csv
import json
import re

import keras
import pytest

import tf_lamb
from official_models.common import report


@pytest.fixture
def folder(tmp_path):
    with open(tmp_path / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["step", "loss", "val_loss", "accuracy"],
                ["2", "2.5", "", "0.1"],
                ["4", "1.5", "1.75", "0.2"],
            ]
        )
    return tmp_path


def test_the_environment_names_date_command_machine_and_versions():
    environment = report.environment()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", environment["date"])
    assert "pytest" in environment["command"]
    assert "cores" in environment["machine"]
    for name in ("tensorflow", "keras", "numpy", "python"):
        assert re.match(r"\d+\.\d+", environment[name]), name


def test_skipped_steps_are_found_inside_a_loss_scaler():
    optimizer = tf_lamb.LAMB(0.1)
    optimizer.build([keras.Variable([1.0], name="x")])
    optimizer._skipped_steps.assign(3)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer))
    assert report.skipped_steps(model) == 3
    model.compile("sgd")
    assert report.skipped_steps(model) == 0


def test_a_report_with_curves(folder):
    figures = {"loss": 1.5, "measured": report.environment()}
    report.write(
        folder,
        figures,
        picture="curves.png",
        panels={"loss": "loss (nats)", "accuracy": "accuracy"},
        title="a title",
    )
    assert json.loads((folder / "report.json").read_text()) == figures
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {
        *("metrics.csv", "report.json", "curves.png")
    }


def test_trust_ratios_are_drawn_where_there_are_some(folder):
    (folder / "trust_ratio.csv").write_text("step,kernel\n2,0.5\n4,0.25\n")
    report.write(folder, {}, picture="c.png", panels={"loss": "l"}, title="t")
    picture = (folder / "trust_ratio.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_curves_show_training_held_out_and_baseline(folder, monkeypatch):
    """What is drawn, read from the figure."""
    drawn = []
    monkeypatch.setattr(
        report.files, "save_figure", lambda path, figure: drawn.append(figure)
    )
    report.plot_curves(
        folder / "metrics.csv",
        folder / "curves.png",
        {"loss": "loss (nats)", "accuracy": "accuracy"},
        {"loss": (2.0, "unigram")},
        "a title",
    )
    (figure,) = drawn
    loss, accuracy = figure.axes
    lines = {line.get_label(): line for line in loss.get_lines()}
    assert list(lines) == ["training", "held out", "unigram"]
    assert lines["training"].get_xydata().tolist() == [[2, 2.5], [4, 1.5]]
    assert lines["held out"].get_xydata().tolist() == [[4, 1.75]]
    assert [*lines["unigram"].get_ydata()] == [2.0, 2.0]
    assert [line.get_label() for line in accuracy.get_lines()] == ["training"]
    assert loss.get_ylabel() == "loss (nats)"
    assert figure.get_suptitle() == "a title"
