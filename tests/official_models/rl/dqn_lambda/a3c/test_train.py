"""The whole script, small: actors, resuming, refusals; and play."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from official_models.rl.dqn_lambda import play
from official_models.rl.dqn_lambda.a3c import learner, train
from official_models.rl.dqn_lambda.a3c.actors import Actors
from tests import warm
from tests.official_models import scripts
from tests.official_models.scripts import refusal

ROOT = Path(__file__).parents[5]
SMALL = (
    "--steps=600 --actors=1 --environments=2 --rollout=10 --eval_episodes=2 "
    "--log_every=5 --save_every=10 --learning_rate=0.02"
).split()
TABLE = ("return", "episodes", "policy_loss", "value_loss", "entropy", "age")


@pytest.fixture(scope="module", autouse=True)
def flags():
    with scripts.flags_of(train):
        yield


def run(folder, *arguments):
    scripts.run(train, *SMALL, f"--output_dir={folder}", *arguments)
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, flags):
    """A run of one actor that nobody disturbed: its folder and its report."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(folder)


def table(folder):
    rows = scripts.rows(folder / "metrics.csv")
    return [{k: row[k] for k in ("step", *TABLE)} for row in rows]


def killed(folder, *arguments):
    """SIGKILL once a process of its own has saved."""
    process = warm.popen(
        [sys.executable, "-m", train.__name__, *SMALL, *arguments]
        + [f"--output_dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # Written after the files that it names: only then is there one to resume.
    first = folder / "checkpoints" / "checkpoint"
    # Its end comes once its actors, which hold its stderr, have ended too.
    scripts.signal_once_there(process, first, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_run_of_one_actor_that_was_killed(whole, tmp_path, capsys):
    """It goes on to the bit: weights, optimizer, rows, scores, actions."""
    (folder, report), other = whole, tmp_path / "run"
    assert [int(r["step"]) for r in table(folder)] == [*range(100, 601, 100)]
    assert {float(r["age"]) for r in table(folder)} == {0}
    assert (folder / learner.ROLLOUTS).stat().st_size == 30 * 21
    killed(other)
    resumed = run(other)
    assert f"{other}: resuming from step" in capsys.readouterr().out
    scripts.same_weights(folder, other, 30)
    assert table(folder) == table(other)
    assert report["training"]["episodes"] == resumed["training"]["episodes"]
    for name in ("evaluation", "episode_gif"):
        assert report[name] == resumed[name]
    for name in (learner.ROLLOUTS, "episode.gif"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_the_last_row_is_of_fewer_updates(tmp_path, monkeypatch):
    """Transitions a second, by a clock of a second a row."""
    seconds = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(seconds))
    monkeypatch.setattr(train, "time", clock)
    run(tmp_path / "run", "--steps=240")
    rows = scripts.rows(tmp_path / "run" / "metrics.csv")
    rates = [float(row["steps_per_second"]) for row in rows]
    assert rates == [100, 100, 40]


def test_a_training_that_diverges_is_said():
    """By its last update, too, after which no loss is computed."""
    weights = np.ones(3)
    losses = np.zeros(3)
    found = SimpleNamespace(
        take=lambda: (0.0, losses),
        shared=SimpleNamespace(weights=lambda: weights),
        **{"steps": 5, "scores": []},
    )
    assert train.metrics(found, 1.0)["steps_per_second"] == 1
    weights[1] = np.inf
    refusal(lambda: train.metrics(found, 1.0), "weights are not finite")
    losses[2] = np.nan
    refusal(lambda: train.metrics(found, 1.0), "the losses are [0.0, 0.0, nan]")


def test_a_run_of_several_actors_that_was_killed(tmp_path):
    """What was saved stays; every actor played before and after."""
    folder = tmp_path / "run"
    killed(folder, "--actors=3", "--optimizer=rmsprop")
    before = (folder / learner.ROLLOUTS).read_bytes()[: 10 * 21]
    report = run(folder, "--actors=3", "--optimizer=rmsprop")
    after = (folder / learner.ROLLOUTS).read_bytes()
    assert len(after) == 30 * 21 and after.startswith(before)
    order = np.frombuffer(after, "uint8").reshape(30, 21)[:, 0]
    assert set(order) == {0, 1, 2}
    assert 0 < report["training"]["mean_age"]
    assert report["training"]["episodes"] > 5


def test_damaged_states_are_refused(whole, tmp_path):
    folder = tmp_path / "run"
    run(folder, "--steps=200")
    (folder / "report.json").unlink()
    path = folder / learner.ROLLOUTS
    content = path.read_bytes()
    again = lambda *more: run(folder, "--steps=200", *more)  # noqa: E731
    path.write_bytes(content[:-1])
    refusal(again, f"{path}: 209 bytes, expected the 210")
    path.write_bytes(content[:-1] + b"\xc8")
    refusal(again, "action 200, expected less than 6")
    path.write_bytes(b"\x01" + content[1:])
    refusal(again, "actor 1, expected less than 1")
    path.write_bytes(bytes(210))
    refusal(again, "episodes", "at step 100, played again it is")
    path.write_bytes(content)
    (folder / "metrics.csv").unlink()
    assert again()["training"]["mean_age"] is None
    assert (folder / "metrics.csv").read_text().startswith("step,return,")
    refusal(lambda: again("--rollout=5"), "rollout = 10")


def test_an_actor_that_ends_is_said(whole, monkeypatch, tmp_path):
    real = Actors.send

    def send(self, number, weights):
        if self.processes[number].poll() is None:
            self.processes[number].kill()
            self.processes[number].wait()
        real(self, number, weights)

    monkeypatch.setattr(Actors, "send", send)
    refusal(lambda: run(tmp_path / "run"), "actor 0: its process ended", "-9")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--game=minatar/brekout"], ["nearest: minatar/breakout"]),
        (["--lambda=1.5"], ["--lambda 1.5", "from 0"]),
        (["--lambda=0.5", "--lambda_rule=median"], ["--lambda: has no effect"]),
        (["--max_td_error=1"], ["--max_td_error: has no effect"]),
        (["--steps=610"], ["--steps 610", "a multiple of --rollout 10"]),
        (["--log_every=4"], ["--save_every 10", "--log_every 4"]),
        (["--gradient_accumulation_steps=2"], ["--gradient_accumulation"]),
        (["--momentum=0.5"], ["--momentum: for --optimizer lars or sgd"]),
        (
            ["--optimizer=sgd", "--beta_2=0.5"],
            ["--beta_2: for --optimizer lamb or adamw or rmsprop"],
        ),
        (["--optimizer=rmsprop", "--beta_2=5"], ["beta_2"]),
        (["--output_dir=gs://a/b"], ["name a local folder"]),
    ],
)
def test_flags_that_are_refused(tmp_path, arguments, parts):
    refusal(lambda: run(tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_play(whole, tmp_path, capsys, monkeypatch):
    from absl import flags as absl_flags

    folder, report = whole
    gif = tmp_path / "a.gif"
    values = absl_flags.FlagValues()
    for module in (play, absl_flags):
        monkeypatch.setattr(module, "FLAGS", values)
    for kind in ("string", "float", "integer"):
        name = f"DEFINE_{kind}"
        real = getattr(absl_flags, name)
        monkeypatch.setattr(
            absl_flags,
            name,
            lambda *a, real=real: real(*a, flag_values=values),
        )
    play.define_flags()
    values(["play", f"--checkpoint={folder}", f"--output={gif}"])
    values.episodes = 2
    play.main([])
    lines = capsys.readouterr().out.splitlines()
    # What the training's own evaluation said, by the weights of the file.
    assert json.loads(lines[1]) == report["evaluation"]
    assert gif.read_bytes() == (folder / "episode.gif").read_bytes()
