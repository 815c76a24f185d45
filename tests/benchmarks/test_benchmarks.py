"""Each benchmark on a few small variables: what it finds and writes."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import (
    advice,
    albert_sharing,
    dqn_lambda_speed,
    dropout,
    first_step,
    groups,
    head_sweep,
    image_pipeline,
    measure,
    memory,
    monitoring,
    scaling,
    shapes,
    steps,
)

BERT = shapes.bert(layers=1, width=8, vocab=20, ff=16)


@pytest.fixture
def in_process(monkeypatch):
    """Jobs run here: a process of its own would import TensorFlow again."""

    def run(module, job):
        result = importlib.import_module(module).run_job(json.loads(_dump(job)))
        return json.loads(_dump(result))

    monkeypatch.setattr(measure, "fresh", run)


def _dump(value):
    return json.dumps(value, allow_nan=False)


def _written(path):
    value = json.loads(path.read_text())
    assert {
        "date",
        "command",
        "cpu",
        "cores",
        "python",
        "packages",
        "seed",
    } <= (value["provenance"].keys())
    assert not list(path.parent.glob("*tmp*"))
    return value


def test_summary():
    assert measure.summary([4, 1, 2, 3, 10]) == dict(
        median=3, min=1, max=10, lower_quartile=2, upper_quartile=4, n=5
    )
    with pytest.raises(ValueError, match="at least one"):
        measure.summary([])


@pytest.mark.parametrize(
    ("benchmark", "flag"),
    [
        (albert_sharing, "--repeats"),
        (dqn_lambda_speed, "--repeats"),
        (first_step, "--repeats"),
        (head_sweep, "--repeats"),
        (head_sweep, "--examples"),
        (image_pipeline, "--rounds"),
        (memory, "--repeats"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1"])
def test_how_often_is_once_at_least(benchmark, flag, value, capsys):
    """0 was taken for the default, -1 ended in a traceback."""
    with pytest.raises(SystemExit) as ended:
        benchmark.main([f"{flag}={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"{flag}: expected a whole number >= 1, got '{value}'" in said


def test_bert_has_the_variables_of_the_released_model():
    base = shapes.bert()
    assert len(base) == len({name for name, _ in base}) == 206
    assert sum(int(np.prod(shape)) for _, shape in base) == 110_106_428
    assert len(first_step.distinct(base)) == 11
    assert len(first_step.distinct(first_step.many(3000))) == 12


@pytest.mark.parametrize("name", steps.OPTIMIZERS)
def test_every_optimizer_makes_steps(name):
    step = steps.make(name, BERT[-5:], seed=0)
    step.run()
    step.run()
    if step.optimizer is not None:
        assert step.optimizer.iterations.numpy() == 2


def test_first_step(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(first_step, "bert", lambda **_: BERT[-5:])
    monkeypatch.setattr(
        first_step, "many", lambda _, many=first_step.many: many(13)
    )
    first_step.main(["--quick", "--output", str(tmp_path / "first.json")])
    rows = _written(tmp_path / "first.json")["rows"]
    assert [row["variables"] for row in rows] == [4, 5, 12, 13, 5]
    for row in rows:
        assert 0 < row["first"]["min"] <= row["first"]["median"]
        assert ("kernels" in row) == (row["optimizer"] == first_step.LAMB)
        assert (row["over_pure"] is None) == (row["pure"] is None)
    assert rows[0]["traced_again"] == rows[2]["traced_again"] == 0
    assert f"| {rows[3]['name']} | 13 |" in capsys.readouterr().out


def test_dropout(tmp_path, capsys):
    dropout.main(["--quick", "--output", str(tmp_path / "dropout.json")])
    rows = _written(tmp_path / "dropout.json")["rows"]
    assert len(rows) == 4 and all(row["ms"]["n"] == 3 for row in rows)
    assert "| Keras, XLA |" in capsys.readouterr().out


def test_groups(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(shapes, "bert", lambda *_: BERT)
    groups.main(["--quick", "--output", str(tmp_path / "groups.json")])
    found = _written(tmp_path / "groups.json")
    assert found["variables"] == len(BERT)
    rows = found["variants"]
    assert rows[groups.BASE]["ratio"]["median"] == 1
    assert rows["1 group"]["kernels_added"] == 0
    assert rows["24 groups"]["kernels_added"] == 0
    assert rows["a ratio of each layer"]["kernels_added"] > 0
    assert "| 24 groups |" in capsys.readouterr().out


def test_memory(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(memory, "bert", lambda **_: BERT[-5:])
    memory.main(["--quick", "--output", str(tmp_path / "memory.json")])
    found = _written(tmp_path / "memory.json")
    assert found["variables"] == 5
    assert found["largest_variable_bytes"] == 4 * 20
    for row in found["rows"]:
        assert row["first"]["n"] == 1
        beside = row["later"]["median"] - row["programs"]["median"]
        assert row["beside"]["median"] == beside
    assert "| tf_lamb.LAMB |" in capsys.readouterr().out


def test_advice(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(advice, "LAYERS", 1)
    monkeypatch.setattr(advice, "STEPS", 2)
    path = tmp_path / "cost.json"
    advice.main(["--quick", "--output", str(path)])
    found = json.loads(path.read_text())
    assert found["command"] and found["date"]
    parameters = 128 * 128 + 128 + 128 * 10 + 10
    for name in ("training_step", "hessian", "gauss_newton"):
        row = found["memory"][name]
        assert row["parameters"] == parameters
        assert row["whole"] >= row["anonymous"] > 4 * parameters
    beyond = found["memory"]["hessian"]["beyond_over_parameters"]
    expected = (
        found["memory"]["hessian"]["whole"]
        - found["memory"]["training_step"]["whole"]
    ) / (4 * parameters)
    assert beyond["whole"] == pytest.approx(expected, abs=0.01)
    assert json.loads(capsys.readouterr().out.split("\n", 0)[0]) == found


def test_albert_sharing(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(albert_sharing, "SHARING", ["all"])
    sizes = {"hidden_size": 8, "intermediate_size": 16, "vocab_size": 20}
    for name, size in sizes.items():
        monkeypatch.setitem(albert_sharing.SIZES, name, size)
    path = tmp_path / "sharing.json"
    albert_sharing.main(["--quick", "--output", str(path)])
    (row,) = _written(path)["rows"]
    assert row["mode"] == "all" and row["variables"] == 32
    assert row["step"]["n"] == 1 and row["step"]["median"] > 0
    assert "| all |" in capsys.readouterr().out


def test_head_sweep(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(head_sweep.SIZES, "initializer_range", 0.5)
    monkeypatch.setitem(head_sweep.SIZES, "intermediate_size", 16)
    path = tmp_path / "sweep.json"
    head_sweep.main(["--quick", "--output", str(path)])
    found = _written(path)
    rows = found["rows"]
    # Two layers of two heads, two whole layers, nothing off.
    assert rows["models"]["median"] == 7
    assert 0 < found["largest_difference"] < 1e-4
    saved = rows["passes"]["median"] / rows["sweep"]["median"]
    assert rows["saved_passes"]["median"] == pytest.approx(saved)
    assert "| sweep |" in capsys.readouterr().out


def test_dqn_lambda_speed(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(dqn_lambda_speed, "TRANSITIONS", 20)
    path = tmp_path / "speed.json"
    dqn_lambda_speed.main(["--quick", "--output", str(path)])
    found = _written(path)
    seconds = found["seconds"]
    parts = "environment", "memory", "acting", "refresh", "updates"
    assert {*seconds} == {"whole", "plain", *parts}
    for kind, ratio in found["plain_by_whole"].items():
        both = [seconds[name][kind]["median"] for name in ("plain", "whole")]
        assert both[0] / both[1] == ratio
    assert (found["updates"], found["cache_size"]) == (1, 400)
    assert "| plain |" in capsys.readouterr().out


def test_peak_of_memory_is_seen_and_forgotten():
    before = memory._settle()
    np.ones(64 * memory.MIB, "uint8").sum()
    assert memory._status("VmHWM") - before >= 60 * memory.MIB
    assert memory._settle() - before < 30 * memory.MIB
    assert memory._status("VmHWM") - before < 30 * memory.MIB


def test_scaling(in_process, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scaling, "SQUARE", 8)
    monkeypatch.setattr(scaling, "SECONDS", 0.1)
    # Three of the six points fit.
    need = 64 * scaling.BYTES * scaling.ROOM
    monkeypatch.setattr(scaling, "_available", lambda: need * 100)
    scaling.main(["--quick", "--output", str(tmp_path / "scaling.json")])
    by_parameters, by_variables = _written(tmp_path / "scaling.json")["sweeps"]
    assert [p["parameters"] for p in by_parameters["points"]] == [
        64,
        256,
        1024,
    ]
    assert [p["variables"] for p in by_variables["points"]] == [10, 100]
    for sweep in (by_parameters, by_variables):
        assert {"slope", "intercept", "r2", "exponent"} == sweep["fit"].keys()
        assert sweep["points"][0]["step"]["n"] >= scaling.MIN_STEPS
    out = capsys.readouterr().out
    assert "25,600 parameters: left out" in out
    assert "us a variable, R²" in out
    assert (tmp_path / "scaling.png").read_bytes()[:4] == b"\x89PNG"


def test_fit_of_a_line():
    line = scaling.fit([1, 2, 3], [5, 7, 9])
    assert (line["slope"], line["intercept"]) == pytest.approx((2, 3))
    assert line["r2"] == pytest.approx(1)
    # A large point that is off by a half does not bend the small ones' line.
    line = scaling.fit([1, 10, 100, 1000, 10000], [1, 10, 100, 1000, 15000])
    assert 1 < line["slope"] < 1.2 and abs(line["intercept"]) < 0.2
    assert scaling.fit([1, 2, 4], [1, 4, 16])["exponent"] == pytest.approx(2)


def test_a_process_of_its_own():
    job = dict(
        optimizer="optax.lamb, jitted", shapes=[("a", (3,))], seed=0, retrace=0
    )
    assert measure.fresh(first_step.MODULE, job)["first"] > 0
    with pytest.raises(RuntimeError, match="KeyError: 'none'"):
        measure.fresh(first_step.MODULE, dict(job, optimizer="none"))


@pytest.mark.parametrize("name", ["first_step", "memory", "scaling"])
def test_help_explains(name):
    out = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=measure.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "python -m benchmarks." in out and "--quick" in out


def test_image_pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(image_pipeline, "BATCH", 4)
    monkeypatch.setattr(image_pipeline, "SIZE", 32)
    found = image_pipeline.measure_all(32, batches=1, rounds=1, seed=0)
    assert 60_000 < found["jpeg_bytes"] < 160_000
    names = [row["name"] for row in found["rows"]]
    assert len(names) == 8
    for row in found["rows"]:
        assert row["images_per_second"]["median"] > 0
        assert row["over_keras"] > 0
    table = image_pipeline.markdown(found["rows"])
    assert len(table.splitlines()) == 10 and "evaluation: ours" in table
    _dump(found)


def test_monitoring_shows_what_was_measured(tmp_path):
    result = _written(measure.ROOT / "benchmarks/results/monitoring.json")
    found = result["against_per_example_gradients"]
    low, high = found["interval"]
    assert low < found["direct"] < high
    assert "TrainingMonitor" in monitoring.render(result)
    monitoring.plot(result, tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 1000
