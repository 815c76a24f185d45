"""The whole script, small: what it writes, resumes, and refuses; and play."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from official_models.rl.dqn_lambda import play, run_state, script, train
from tests import warm
from tests.official_models import scripts
from tests.official_models.scripts import refusal

ROOT = Path(__file__).parents[4]
SMALL = (
    "--steps=340 --prepopulate=100 --refresh_every=40 --cache_size=60 "
    "--block_size=10 --batch_size=20 --environments=4 --replay_capacity=200 "
    "--epsilon_steps=100 --eval_episodes=2 --save_every=2 --history=2 "
    "--priority=0.2 --learning_rate=0.02"
).split()


@pytest.fixture(scope="module", autouse=True)
def flags():
    with scripts.flags_of(train):
        yield


def run(folder, *arguments):
    scripts.run(train, *SMALL, f"--output_dir={folder}", *arguments)
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, flags):
    """A run that nobody disturbed: its folder and its report."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(folder)


def table(folder):
    """metrics.csv without the speed, which is another each time."""
    rows = scripts.rows(folder / "metrics.csv")
    return [{k: v for k, v in r.items() if "second" not in k} for r in rows]


def same(one, other):
    """Asserts that two runs' weights, optimizers, rows and scores are one."""
    (a, a_report), (b, b_report) = one, other
    scripts.same_weights(a, b, 6)
    assert table(a) == table(b)
    for name in ("training", "evaluation", "episode_gif"):
        assert a_report[name] == b_report[name]
    for name in (run_state.ACTIONS, "episode.gif"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_a_run(whole):
    folder, report = whole
    written = {path.name for path in folder.iterdir()}
    assert written >= {
        *("model.keras", "learning_curve.png", "episode.gif", "metrics.csv"),
        *("report.json", "run.json", "checkpoints", run_state.ACTIONS),
    }
    rows = table(folder)
    assert [int(r["step"]) for r in rows] == list(range(140, 341, 40))
    assert [float(r["epsilon"]) for r in rows[-4:]] == [0.1] * 4
    # One byte a transition, and nothing of frames.
    assert (folder / run_state.ACTIONS).stat().st_size == 340
    assert report["bytes_per_transition"] == 406
    assert report["evaluation"]["episodes"] == 2
    assert report["training"]["episodes"] > 10
    network = keras.saving.load_model(folder / "model.keras")
    assert network.count_params() == report["parameters"]
    with Image.open(folder / "episode.gif") as gif:
        assert gif.size == (160, 160)
        assert gif.n_frames == report["episode_gif"]["frames"]


def test_a_run_that_is_complete_is_left_alone(whole, capsys):
    folder, report = whole
    before = (folder / "model.keras").stat().st_mtime_ns
    assert run(folder) == report
    assert (folder / "model.keras").stat().st_mtime_ns == before
    said = capsys.readouterr().out
    mean = report["training"]["mean_return"]
    assert f"in training {mean:.2f};" in said
    refusal(lambda: run(folder, "--lambda=0.5"), "lambda = 0.75")
    run(folder, "--eval_epsilon=0.1")
    said = capsys.readouterr().out.splitlines()
    path = folder / "report.json"
    assert said[0].startswith(f"{path}: evaluated with --eval_epsilon 0.05;")
    content = path.read_text()
    for damaged in ("{}", "[1]", '{"evaluation": {"mean": 1}}'):
        path.write_text(damaged)
        refusal(lambda: run(folder), f"{path}: lacks figures", "remove it")
    path.write_text(content)


def test_a_run_that_was_killed(whole, tmp_path, capsys):
    """SIGKILL in a process of its own once it has saved; resumed here."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", train.__name__, *SMALL]
    process = warm.popen(
        [*command, f"--output_dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # Written after the files that it names: only then is there one to resume.
    first = folder / "checkpoints" / "checkpoint"
    scripts.signal_once_there(process, first, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    report = run(folder)
    assert f"{folder}: resuming from step" in capsys.readouterr().out
    same(whole, (folder, report))


def test_a_kill_between_the_actions_and_the_checkpoint(
    whole, tmp_path, monkeypatch
):
    """Actions without their checkpoint are cut off and played again."""
    folder = tmp_path / "run"

    class Killed(BaseException):
        pass

    def save(self, step, real=run_state.Checkpoints.save):
        if step == 4:
            raise Killed
        real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(run_state.Checkpoints, "save", save)
        with pytest.raises(Killed):
            run(folder)
    assert (folder / run_state.ACTIONS).stat().st_size == 260
    same(whole, (folder, run(folder)))


def test_damaged_and_foreign_states_are_refused(whole, tmp_path):
    folder = tmp_path / "run"
    run(folder, "--steps=180")
    (folder / "report.json").unlink()
    actions = folder / run_state.ACTIONS
    content = actions.read_bytes()
    again = lambda *more: run(folder, "--steps=180", *more)  # noqa: E731
    actions.write_bytes(content[:-1])
    refusal(again, f"{actions}: 179 bytes, expected the 180")
    actions.write_bytes(content[:-1] + b"\xc8")
    refusal(again, "action 200, expected less than 6")
    actions.write_bytes(bytes(180))
    refusal(again, "episodes", "at step 140, played again it is", "damaged")
    actions.write_bytes(content)
    (folder / "metrics.csv").unlink()
    (folder / "learning_curve.png").unlink()
    again()
    assert not (folder / "learning_curve.png").exists()
    (folder / "report.json").unlink()
    refusal(lambda: again("--network=drqn"), "network = 'cnn'")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "history": 1}))
    refusal(lambda: again("--history=1"), "ckpt-2", "of another model")


def test_games_that_did_not_repeat(tmp_path):
    """As many episodes as then say nothing, if their returns are others."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,return,episodes\n10,,0\n20,1.5,2\n30,2.0,3\n")

    def check(scores, steps=30):
        learner = SimpleNamespace(scores=scores, steps=steps)
        script.check_replayed(learner, path)

    good = [(12, 1.0), (20, 2.0), (21, 3.0)]
    check(good)
    check(good[:2], steps=20)
    for scores, part in (
        (good[:2], "episodes 3 at step 30, played again it is 2"),
        ([(5, 1.0), *good[1:]], "episodes 0 at step 10, played again it is 1"),
        ([(12, 2.0), *good[1:]], "return 1.5 at step 20, played again it is 2"),
    ):
        refusal(lambda scores=scores: check(scores), path, part)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--optimizer=lars", "--warmup_ratio=0.5", "--network=drqn"],
        [
            *("--optimizer=adamw", "--epsilon=1e-4", "--lambda_rule=bounded"),
            *("--gradient_accumulation_steps=2", "--returns=watkins"),
        ],
    ],
    ids=["lars", "adam"],
)
def test_other_optimizers_networks_and_returns(tmp_path, arguments):
    report = run(tmp_path / "run", "--steps=140", *arguments)
    rows = table(tmp_path / "run")
    assert len(rows) == 1 and np.isfinite(float(rows[0]["loss"]))
    assert report["evaluation"]["episodes"] == 2


def test_lambdas_of_the_bounded_rule_are_told(tmp_path, capsys):
    """A bound that is out of a game's scale is one of one-step returns."""
    folder = tmp_path / "low"
    options = "--lambda_rule=bounded", "--steps=180"
    report = run(folder, *options, "--max_td_error=1e-9")
    assert report["lambda"] == {"mean_lambda": 0, "share_of_lambda_0": 1}
    assert {row["mean_lambda"] for row in table(folder)} == {"0.0"}
    said = capsys.readouterr().out
    assert "--max_td_error 1e-09: lambda was 0 in 100% of the blocks" in said
    report = run(tmp_path / "high", *options, "--max_td_error=1e9")
    assert report["lambda"] == {"mean_lambda": 1, "share_of_lambda_0": 0}
    assert "lambda was 0" not in capsys.readouterr().out
    one_step = run(tmp_path / "one_step", "--lambda=0", "--steps=180")
    assert "lambda" not in one_step
    # So low a bound is lambda 0 by another name.
    scripts.same_weights(folder, tmp_path / "one_step", 2)


def test_accumulated_batches_are_the_whole_batch(tmp_path):
    """The same samples, in parts, move the weights alike.

    50 transitions are two updates of 20, not five parts of 10.
    """
    options = "--optimizer=sgd", "--returns=n_step", "--steps=180"
    options += ("--cache_size=50",)
    moved = []
    for name, parts in (("whole", 1), ("parts", 2)):
        run(
            tmp_path / name,
            *options,
            "--game=minatar/space_invaders",
            f"--gradient_accumulation_steps={parts}",
        )
        model = keras.saving.load_model(tmp_path / name / "model.keras")
        moved.append(model.get_weights())
    for one, other in zip(*moved):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--game=minatar/brekout"], ["nearest: minatar/breakout"]),
        (["--replay_capacity=40"], ["--replay_capacity 40", "at least 48"]),
        (["--lambda=1.5"], ["--lambda 1.5", "from 0"]),
        (["--lambda=0.5", "--lambda_rule=median"], ["--lambda: has no effect"]),
        (["--n=4"], ["--n: has no effect with --returns peng"]),
        (["--max_td_error=1"], ["--max_td_error: has no effect"]),
        (
            ["--returns=n_step", "--lambda_rule=median"],
            ["--lambda_rule: has no effect"],
        ),
        (["--steps=341"], ["--steps 341", "a multiple of --refresh_every 40"]),
        (["--steps=100"], ["--steps 100"]),
        (["--environments=3"], ["--prepopulate 100", "--environments 3"]),
        (["--cache_size=61"], ["--cache_size 61", "--block_size 10"]),
        (["--batch_size=61"], ["--batch_size 61", "--cache_size 60"]),
        (["--gradient_accumulation_steps=3"], ["--batch_size 20"]),
        (
            ["--prepopulate=40", "--steps=80"],
            ["--prepopulate 40: 10 transitions", "at least 44"],
        ),
        (["--replay_capacity=4000000000"], ["--replay_capacity 40", " GB of"]),
        (["--network=drqn", "--history=1"], ["drqn", "--history 2 or more"]),
        (["--momentum=0.5"], ["--momentum: for --optimizer lars or sgd"]),
        (["--learning_rate=-1"], ["--learning_rate"]),
        (["--output_dir=gs://a/b"], ["name a local folder"]),
    ],
)
def test_flags_that_are_refused(tmp_path, arguments, parts):
    refusal(lambda: run(tmp_path / "run", *arguments), *parts)
    assert {path.name for path in tmp_path.glob("run/*")} <= {".lock"}


def test_another_backend(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    refusal(lambda: run(tmp_path / "run"), "KERAS_BACKEND jax: this script")


def playing(*arguments):
    with scripts.flags_of(play):
        scripts.run(play, *arguments)


@pytest.fixture
def only_flags_of_play(flags):
    """`play` has flags of the same names as `train`."""
    from absl import flags as absl_flags

    FLAGS = absl_flags.FLAGS
    kept = {name: FLAGS[name] for name in ("game", "epsilon", "seed")}
    for name in kept:
        delattr(FLAGS, name)
    yield
    for name, flag in kept.items():
        FLAGS[name] = flag


def test_play(whole, tmp_path, capsys, only_flags_of_play):
    folder, report = whole
    gif = tmp_path / "a.gif"
    playing(f"--checkpoint={folder}", f"--output={gif}", "--episodes=2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{gif}: minatar/breakout, return ")
    # What the training's own evaluation said, by the weights of the file.
    assert json.loads(lines[1]) == report["evaluation"]
    assert gif.read_bytes() == (folder / "episode.gif").read_bytes()


def test_checkpoints_that_play_refuses(
    whole, tmp_path, monkeypatch, only_flags_of_play
):
    folder, _ = whole
    good = f"--checkpoint={folder}"
    refusal(playing, "--checkpoint is missing")
    refusal(lambda: playing("--checkpoint=no.keras"), "no such file")
    refusal(lambda: playing(good, "--episodes=1"), "--episodes 1")
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        refusal(lambda: playing(good), "KERAS_BACKEND jax: this script")
    refusal(lambda: playing(good, "--output=no/a.gif"), "--output no/a.gif")
    refusal(lambda: playing(good, f"--output={tmp_path}"), "a folder, expected")
    png = f"--output={tmp_path / 'a.png'}"
    refusal(lambda: playing(good, png), "a.png", "with .gif")
    # Even root cannot write there.
    refusal(lambda: playing(good, "--output=/proc/a.gif"), "/proc/a.gif: cann")
    refusal(
        lambda: playing(good, "--game=minatar/asterix"),
        "is a network of minatar/breakout",
    )
    refusal(lambda: playing(good, "--game=minatar/asterisk"), "minatar/asterix")
    for name, size, part in (
        ("another", 4, "holds the network 'another'"),
        ("minatar.freeway.cnn", 4, "expected (10, 10, 7, 6)"),
    ):
        inputs = keras.Input((10, 10, size), dtype="uint8")
        x = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(6)(x), name=name)
        path = tmp_path / f"{name}.keras"
        model.save(path)
        refusal(lambda path=path: playing(f"--checkpoint={path}"), path, part)
    assert not list(tmp_path.glob("*.gif"))
