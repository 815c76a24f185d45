"""The study's figures: interquartile means, intervals, games of other units."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import dqn_lambda_study as study
from tests.official_models.scripts import refusal

DONE = SimpleNamespace(returncode=0)


def test_the_mean_of_the_middle_half():
    assert study.interquartile_mean([1, 2, 4, 100]) == 3
    rows = study.interquartile_mean([[1, 2, 4, 100], [0, 0, 0, 0]])
    np.testing.assert_array_equal(rows, [3, 0])


def test_the_interval_draws_seeds_within_their_game():
    rng = np.random.default_rng(0)
    # Were games mixed, means between 1 and 3 would be wider than this.
    apart = study.interval([[1.0] * 4, [3.0] * 4], rng)
    assert apart == [2.0, 2.0]
    low, high = study.interval([rng.normal(size=100)], rng, samples=4000)
    assert 0.25 < high - low < 0.75  # 2 x 1.96 sqrt(1.2 / 100), about 0.43
    # Of one seed nothing is drawn: the interval would be too narrow.
    assert study.interval([[1.0], [2.0, 3.0]], rng) is None


def runs():
    return [
        {
            "setting": setting,
            "game": game,
            "seed": seed,
            "evaluation": unit * (1 + better),
            "training": 1.0,
        }
        for game, unit in (("breakout", 1.0), ("freeway", 100.0))
        for setting, better in (("lambda=0", 0), ("lambda=1", 2))
        for seed in (1, 2)
    ]


def test_rows_of_games_and_of_all_in_units_of_their_mean():
    rows = [r for r in study.summary(runs()) if r["score"] == "evaluation"]
    found = {(r["game"], r["setting"]): r["iqm"] for r in rows}
    both = "all, by the game's mean"
    assert found == {
        ("breakout", "lambda=0"): 1,
        ("breakout", "lambda=1"): 3,
        ("freeway", "lambda=0"): 100,
        ("freeway", "lambda=1"): 300,
        (both, "lambda=0"): pytest.approx(0.5),
        (both, "lambda=1"): pytest.approx(1.5),
    }
    assert {r["runs"] for r in rows if r["game"] == both} == {4}
    assert "| breakout | lambda=1 | 2 | 3.00 | 3.00 to 3.00 |" in (
        study.markdown(rows)
    )


def test_a_game_in_which_nothing_was_scored_is_left_out_of_all():
    nothing = [{**r, "game": "asterix", "evaluation": 0.0} for r in runs()[:4]]
    rows = [
        r
        for r in study.summary([*nothing, *runs()])
        if r["score"] == "evaluation"
    ]
    found = {(r["game"], r["setting"]): (r["iqm"], r["runs"]) for r in rows}
    assert found["asterix", "lambda=0"] == (0, 2)
    of_all = found["all, by the game's mean", "lambda=0"]
    assert of_all == (pytest.approx(0.5), 4)


def test_a_run_that_is_there_is_not_run_again(tmp_path, monkeypatch, capsys):
    calls = []

    def train(command, **_):
        calls.append(command)
        folder = command[-1].removeprefix("--output_dir=")
        report = study.Path(folder) / "report.json"
        report.parent.mkdir(parents=True)
        report.write_text(
            '{"evaluation": {"mean": 2.5}, "training": {"mean_return": 1.5}}'
        )
        return DONE

    monkeypatch.setattr(study.subprocess, "run", train)
    output = tmp_path / "study.json"
    # A folder beside the reader is not one beside the project.
    monkeypatch.chdir(tmp_path)
    arguments = ["--folder", ".", "--output", str(output)]
    arguments += ["--settings", "lambda=0,n=3", "--flags", "steps=10"]
    study.main([*arguments, "--seeds", "1"])
    study.main([*arguments, "--seeds", "2"])
    assert len(calls) == 2
    flags = ["--steps=10", "--lambda=0", "--n=3", "--game=minatar/breakout"]
    assert calls[1][3:-1] == [*flags, "--seed=2"]
    assert output.with_suffix(".png").exists()
    assert '"iqm": 2.5' in output.read_text()
    assert "tuning" not in output.read_text()
    # A report that is damaged is not taken for the run's.
    (path,) = tmp_path.glob("breakout/*/seed_1/report.json")
    content = path.read_text()
    for damaged, part in (("{", "not JSON"), ("[1]", "lacks evaluation")):
        path.write_text(damaged)
        with pytest.raises(SystemExit):
            study.main([*arguments, "--seeds", "2"])
        assert f"{path}: {part}" in capsys.readouterr().err
    path.write_text(content)
    # Of other flags, it is another run.
    study.main([*arguments, "steps=20", "--seeds", "1"])
    assert len(calls) == 3 and "--steps=20" in calls[2]


def test_the_rate_that_trained_best_on_all_games(monkeypatch):
    monkeypatch.setattr(study, "RATES", {"o=a": ("1", "2"), "o=b": ("3", "4")})
    # Summed, the large game would decide for 2 and 4.
    returns = {
        "o=a,learning_rate=1": {"small": 4.0, "large": 100.0},
        "o=a,learning_rate=2": {"small": 1.0, "large": 110.0},
        "o=b,learning_rate=3": {"small": 3.0, "large": 100.0},
        "o=b,learning_rate=4": {"small": 1.0, "large": 110.0},
    }
    seeds = []

    def train(setting, game, seed):
        seeds.append(seed)
        return {
            "evaluation": {"mean": 0.0},
            "training": {"mean_return": returns[setting][game]},
        }

    found = study.tuning(train, ["small", "large"])
    assert list(found) == list(returns)
    best = ["o=a,learning_rate=1", "o=b,learning_rate=3"]
    assert study.tuned(found) == best
    assert set(seeds) == set(study.TUNING_SEEDS) and len(seeds) == 16
    for values in returns.values():
        values["nothing"] = 0.0
    assert study.tuning(train, ["nothing", "small", "large"]) == found
    refusal(lambda: study.tuning(train, ["nothing"]), "--games nothing", "0")


def test_a_best_rate_at_the_end_of_those_tried_is_said(monkeypatch, capsys):
    """Its optimizer would be tuned less well than the other."""
    monkeypatch.setattr(study, "RATES", {"o=a": "123", "o=b": "456"})
    settings = [x for name in study.RATES for x in study._of_rates(name)]
    assert study.tuned(dict(zip(settings, (1, 3, 2, 4, 5, 6)))) == [
        "o=a,learning_rate=2",
        "o=b,learning_rate=6",
    ]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("o=b,learning_rate=6 trained best and is at the end")


def test_what_cannot_be_studied(tmp_path, monkeypatch, capsys):
    failed = SimpleNamespace(returncode=2)
    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: failed)
    given = [f"--folder={tmp_path}", "--settings", "lambda=2"]
    for arguments, parts in (
        ([], ["lambda_2/seed_1: its training ended with status 2"]),
        (["--flags", "seed=3"], ["seed=3: each run has a seed of its own"]),
        (["n=1,game=a"], ["game=a: each run has a game of its own"]),
        (["lambda=2"], ["lambda=2 is there twice", "counted twice"]),
        (["--games", "freeway", "freeway"], ["--games: freeway is there twi"]),
        (["--games", "freeway", "pong"], ["--games pong: expected some of as"]),
        (["--output", "a.png"], ["--output a.png: that is the plot's name"]),
    ):
        with pytest.raises(SystemExit) as ended:
            study.main([*given, *arguments])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert all(part in said for part in parts)
    report = {
        "flags": {"output_dir": "there"},
        "training": {"mean_return": None},
    }
    refusal(lambda: study.score(report), "there: no episode", "--flags steps")


def test_a_study_that_ends_on_time(tmp_path, monkeypatch, capsys):
    """It finishes the run that it has begun, and the command does the rest."""
    clock, begun = [0.0], []

    def train(command, **_):
        clock[0] += 3600
        begun.append(command)
        (target,) = (x for x in command if x.startswith("--output_dir="))
        folder = study.Path(target.partition("=")[2])
        folder.mkdir()
        (folder / "report.json").write_text(
            '{"evaluation": {"mean": 1.0}, "training": {"mean_return": 2.0}}'
        )
        return DONE

    monkeypatch.setattr(study.subprocess, "run", train)
    monkeypatch.setattr(study.time, "monotonic", lambda: clock[0])
    flags = [f"--folder={tmp_path}", "--part=a3c", "--seeds=1"]
    study.main([*flags, "--hours=1.5"])
    assert len(begun) == 2 and study.TRAIN_A3C in begun[0]
    said = capsys.readouterr().out
    assert "the time is up before" in said
    assert "| breakout | lambda=0.25 | 1 |" in said
    study.main([*flags, "--hours=24"])
    assert len(begun) == len(study.PARTS["a3c"])
    assert "| breakout | lambda_rule=median | 1 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        study.main([*flags, "--hours=0"])
