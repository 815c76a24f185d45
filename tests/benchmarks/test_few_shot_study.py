"""The study of the large margin: what it runs, what it chooses and compares."""

import json
import subprocess

import pytest

from benchmarks import few_shot_study as study

FLAGS = ["--ways=3"]


def _flags(words):
    return dict(w[2:].split("=", 1) for w in words if w.startswith("--"))


def _accuracy(flags):
    """Best at the temperature nearest to 3; the margin adds its weight."""
    far = abs(float(flags["temperature"]) - 3)
    seed = int(flags["seed"]) / 1000
    return 0.9 - far / 100 + 0.01 * float(flags["margin_weight"]) + seed


@pytest.fixture
def ran(monkeypatch):
    """Flags of the scripts that were run; each writes its report."""
    found = []

    def run(words, env, **_):
        flags = _flags(words)
        found.append(flags)
        if float(flags["learning_rate"]) > 5e-2:
            error = "outputs are not finite: the training has diverged; lower"
            return subprocess.CompletedProcess(words, 2, stderr=error)
        value = _accuracy(flags)
        folder = study.Path(flags["output_dir"])
        folder.mkdir(parents=True)
        scores = {k: {"mean": value} for k in ("validation", "test")}
        (folder / "report.json").write_text(json.dumps({"scores": scores}))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(study.subprocess, "run", run)
    return found


def _main(tmp_path, *words):
    study.main(
        ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "o.json")]
        + [*words, "--", *FLAGS]
    )
    return json.loads((tmp_path / "o.json").read_text())


def test_both_arms_try_the_same_rates_and_temperatures():
    plain, margin = (study.trials("lamb", arm, 8) for arm in study.ARMS)
    shared = [
        [(x["learning_rate"], x["temperature"]) for x in arm]
        for arm in (plain, margin)
    ]
    assert shared[0] == shared[1] and len(set(shared[0])) == 8
    assert {x["margin_weight"] for x in plain} == {0.0}
    for name, (low, high) in study.RANGES.items():
        values = [x[name] for x in margin]
        assert low <= min(values) < (low * high) ** 0.5 < max(values) <= high
    low, high = study.RATES["lamb"]
    assert all(low <= x["learning_rate"] <= high for x in plain)


def test_the_best_trial_of_each_arm_is_trained_with_other_seeds(tmp_path, ran):
    found = _main(tmp_path, "--trials", "8", "--seeds", "3")
    assert len(ran) == 2 * (8 + 3)
    for row in found["rows"]:
        tried = row["tried"]
        assert any(x["validation"] == 0 for x in tried)  # diverged
        best = max(tried, key=lambda x: x["validation"])
        assert row["chosen"]["temperature"] == best["temperature"]
        expected = [
            _accuracy({**row["chosen"], "seed": seed}) for seed in (1, 2, 3)
        ]
        assert row["test"]["each"] == pytest.approx(expected)
    tuning = [x for x in ran if x["seed"] == str(study.TUNING_SEED)]
    assert len(tuning) == 16
    assert {x["eval_episodes"] for x in tuning} == {"200"}
    assert all("eval_episodes" not in x for x in ran if x not in tuning)
    assert {x["ways"] for x in ran} == {"3"}
    plain, margin = found["rows"]
    compared = found["margin less cross-entropy"]["lamb"]
    assert compared["seeds"] == 3
    assert compared["difference"] == pytest.approx(
        margin["test"]["mean"] - plain["test"]["mean"]
    )
    assert (tmp_path / "o.png").stat().st_size > 0


def test_nothing_is_trained_twice_and_hours_end_a_start(tmp_path, ran, capsys):
    _main(tmp_path, "--trials", "2", "--seeds", "1")
    count = len(ran)
    _main(tmp_path, "--trials", "2", "--seeds", "1", "--hours", "1e-9")
    assert len(ran) == count
    _main(tmp_path, "--trials", "2", "--seeds", "2", "--hours", "1e-9")
    assert len(ran) == count
    assert "the same command goes on" in capsys.readouterr().out
    _main(tmp_path, "--trials", "2", "--seeds", "2")
    assert len(ran) == count + 2


def test_a_script_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    error = "a warning\n--ways 1: expected 2 or more\n"
    monkeypatch.setattr(
        study.subprocess,
        "run",
        lambda words, **_: subprocess.CompletedProcess(words, 2, stderr=error),
    )
    with pytest.raises(SystemExit) as ended:
        _main(tmp_path)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].endswith("--ways 1: expected 2 or more")
    assert "lamb-cross-entropy-trial_0" in said[0]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ways=4", "has runs of flags --ways=3, this is --ways=4"),
        ("--seed=7", "-- --seed=7: is set here"),
        ("--optimizer=sgd", "-- --optimizer=sgd: is set here"),
    ],
)
def test_flags_that_are_not_those_of_the_runs(
    tmp_path, ran, capsys, flag, message, monkeypatch
):
    _main(tmp_path, "--trials", "1", "--seeds", "1")
    count = len(ran)
    monkeypatch.setitem(globals(), "FLAGS", [flag])
    with pytest.raises(SystemExit) as ended:
        _main(tmp_path, "--trials", "1", "--seeds", "1")
    assert ended.value.code == 2 and len(ran) == count
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--hours", "-1")])
def test_numbers_out_of_range(tmp_path, words, capsys):
    with pytest.raises(SystemExit) as ended:
        _main(tmp_path, *words)
    assert ended.value.code == 2 and words[0] in capsys.readouterr().err
