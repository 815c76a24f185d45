"""The benchmark that tunes optimizers alike: what it runs, what it chooses."""

import json
import subprocess

import pytest

from benchmarks import finetuning, trainings

# Accuracy of seed 1, 2, 3 by optimizer and rate; the second rate is better.
SCORES = {
    ("lamb", 0.001): [0.7],
    ("lamb", 0.002): [0.8, 0.6, 0.7],
    ("adamw", 0.0001): [0.5, 0.9, 0.7],
    ("adamw", 0.0002): [0.4],
}


@pytest.fixture
def ran(monkeypatch):
    """Scripts that were run; each writes its report."""
    found = []

    def run(words, env):
        flags = dict(w[2:].split("=") for w in words if w.startswith("--opt"))
        flags |= dict(
            w[2:].split("=")
            for w in words
            if w.startswith(("--learning", "--output_dir", "--seed"))
        )
        key = flags["optimizer"], float(flags["learning_rate"])
        number, first = int(flags["seeds"]), int(flags["seed"])
        found.append((*key, number))
        values = SCORES[key][:number]
        report = {
            "compared_by": "dev accuracy",
            "date": "2026-11-27",
            "machine": "any",
            "scores": {
                "dev": {
                    "accuracy": {
                        "mean": sum(values) / number,
                        "deviation": 0.1 if number > 1 else None,
                    }
                }
            },
            "seeds": [
                {
                    "seed": first + i,
                    "scores": {"dev": {"accuracy": x}},
                    "examples_per_second": 10.0 * (i + 1),
                }
                for i, x in enumerate(values)
            ],
        }
        folder = finetuning.Path(flags["output_dir"])
        folder.mkdir(exist_ok=True)
        (folder / "report.json").write_text(json.dumps(report))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return found


def arguments(tmp_path, *rates):
    return [
        *("--rates", *rates),
        *("--runs", str(tmp_path / "runs")),
        *("--output", str(tmp_path / "found.json"), "--", "a.script", "--x=1"),
    ]


def test_the_best_rate_of_each_gets_all_seeds(ran, tmp_path, capsys):
    words = arguments(tmp_path, "lamb=1e-3,2e-3", "adamw=1e-4,2e-4")
    finetuning.main(words)
    assert ran == [
        *(("lamb", 0.001, 1), ("lamb", 0.002, 1)),
        *(("adamw", 0.0001, 1), ("adamw", 0.0002, 1)),
        *(("lamb", 0.002, 3), ("adamw", 0.0001, 3)),
    ]
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    lamb, adamw = rows
    assert (lamb["learning_rate"], adamw["learning_rate"]) == (0.002, 0.0001)
    assert lamb["tried"] == {"0.001": 0.7, "0.002": 0.8}
    assert lamb["seeds"] == [1, 2, 3]
    assert lamb["examples_per_second"] == 20
    shown = capsys.readouterr().out
    assert "| adamw | 0.0001: 0.5000; 0.0002: 0.4000 | 0.0001 |" in shown
    assert "0.7000 ± 0.1000 | 3 | 20.0 |" in shown
    # Again: nothing is left to do, and the same comes out.
    ran.clear()
    finetuning.main(words)
    assert ran == []
    assert json.loads((tmp_path / "found.json").read_text())["rows"] == rows


def test_an_interrupted_one_goes_on(ran, tmp_path):
    words = arguments(tmp_path, "lamb=1e-3,2e-3")
    finetuning.main([*words[:-3], "--seeds", "1", *words[-3:]])
    ran.clear()
    finetuning.main(words)
    assert ran == [("lamb", 0.002, 3)]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (["lamb=1e-3", "adamw=1e-4,2e-4"], "lamb 1, adamw 2; expected as many"),
        (["lamb=x"], "--rates lamb=x: expected OPTIMIZER=RATE"),
        (["lamb=-1"], "--rates lamb=-1: expected OPTIMIZER=RATE"),
        (["lamb=1e-3", "lamb=2e-3"], "lamb is there twice"),
        (["lamb=1e-3,0.001"], "--rates lamb=1e-3,0.001: has a rate twice"),
    ],
)
def test_rates_are_refused(rates, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        finetuning.main(arguments(tmp_path, *rates))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("place", "change", "message", "is_recorded"),
    [
        (99, ["--x=2"], "of command a.script --x=1, this is a.script", True),
        (-3, ["--seed", "7"], "has runs of seed 1, this is 7; name", True),
        (-3, ["--seed", "7"], "has runs of seed 1, this is 7; name", False),
    ],
)
def test_runs_of_another_command_are_refused(
    place, change, message, is_recorded, ran, tmp_path, capsys
):
    words = arguments(tmp_path, "lamb=1e-3,2e-3")
    finetuning.main(words)
    if not is_recorded:  # as of a version that kept no record
        (tmp_path / "runs" / trainings.RECORD).unlink()
    ran.clear()
    words[place:place] = change
    with pytest.raises(SystemExit) as ended:
        finetuning.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert ran == []


@pytest.mark.parametrize("word", ["--seeds=5", "--learning_rate", "--seed"])
def test_flags_that_are_set_here_are_refused(word, ran, tmp_path, capsys):
    with pytest.raises(SystemExit):
        finetuning.main([*arguments(tmp_path, "lamb=1e-3"), word])
    assert f"-- {word}: is set here" in capsys.readouterr().err
    assert ran == []


def test_a_script_that_failed_or_is_missing(monkeypatch, tmp_path, capsys):
    words = arguments(tmp_path, "lamb=1e-3")
    failed = subprocess.CompletedProcess([], 2)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    for given, message in [
        (words, "a.script ended with status 2"),
        (words[:-3], "no script: expected --"),
    ]:
        with pytest.raises(SystemExit) as ended:
            finetuning.main(given)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
