"""`train.py --model dca` and `summarize.py` of it, whole and small."""

import io
import json
import shutil

import keras
import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.summarization import (
    dca,
    dca_rl,
    record,
    rouge,
    train,
)
from official_models.nlp.summarization.config import AgentsConfig
from tests.official_models import scripts
from tests.official_models.nlp.summarization.small_scripts import (
    make_places,
    summaries_by,
)
from tests.official_models.scripts import refusal

COMMON = (
    "--model=dca --steps=2 --global_batch_size=4 --eval_batch_size=4 "
    "--log_every=1 --eval_every=2 --save_every=1 --max_tokens=32 "
    "--max_target=12 --sentences=1 --beam_size=2 --min_length=1 "
    "--max_length=6 --jobs=1 --warmup_steps=1 --test_limit=2 "
    "--validation_limit=2"
).split()
SIZES = "--hidden_size=8 --agents=2 --contextual_layers=1 --caa".split()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return make_places(tmp_path_factory.mktemp("agents"))


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_agents(places, folder, *arguments):
    words = f"--vocab_file={places['bert'] / 'vocab.txt'}"
    return run(places, folder, *SIZES, words, *arguments)


def run(places, folder, *arguments):
    with scripts.flags_of(train):
        scripts.run(
            train,
            *COMMON,
            f"--data_dir={places['data']}",
            f"--cache_dir={places['folder'] / 'cache'}",
            f"--output_dir={folder}",
            *arguments,
        )
    return json.loads((folder / "report.json").read_text())


def test_agents_are_trained_resumed_and_summarize(
    places, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "dca"
    report = run_agents(places, folder)
    assert [*report["rows"]] == ["Oracle", "Lead-1", "dca"]
    assert report["perplexity"] > 1 and report["tokens_per_second"] > 0
    rows = scripts.rows(folder / "metrics.csv")
    # The rate of the next step: noam, after one of warmup.
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.01 / 2**0.5)
    # The loss is that of the words and a tenth of the sentences' cosines.
    cross, loss = float(rows[0]["log_p_cross_entropy"]), float(rows[0]["loss"])
    assert abs(loss - cross) <= 0.1 and cross > 1
    line = json.loads((folder / "summaries.jsonl").read_text().splitlines()[0])
    assert len(line["agents"]) == 2
    assert sum(line["agents"]) == pytest.approx(1, abs=1e-4)
    assert 1 <= len(line["beams"]) <= 2

    whole = weights.read_keras(folder / "model.keras", "whole")
    (folder / "model.keras").unlink()
    for path in (folder / "checkpoints").glob("ckpt-2*"):
        path.unlink()
    # What comes after the training was seen above.
    monkeypatch.setattr(train, "measure", lambda *_: {**report})
    monkeypatch.setattr(train, "held_out_figures", lambda *_: {})
    run_agents(places, folder, "--eval_every=3")
    again = weights.read_keras(folder / "model.keras", "again")
    for one, other in zip(whole.weights, again.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert whole.get_layer("dca").config.caa

    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"The film is good. It was."))
    )
    capsys.readouterr()
    # An LSTM has no positions: longer than --max_target.
    summaries_by(f"--checkpoint={folder}", "--explain", "--max_length=14")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines[-2:]] == [
        *(["agent", "1"], ["agent", "2"])
    ]
    damaged = json.loads((folder / record.NAME).read_text())
    (folder / record.NAME).write_text(
        json.dumps({**damaged, "model": "bertsum_ext"})
    )
    refusal(
        lambda: summaries_by(f"--checkpoint={folder}", f"--input={__file__}"),
        "is of bertsum_ext",
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--vocab_file="], ["--vocab_file is missing"]),
        (["--init_checkpoint=x"], ["--init_checkpoint", "not with"]),
        (["--smoothing=0.2"], ["--smoothing", "not with --model dca"]),
        (["--separate=multi_optimizer"], ["--separate"]),
        (["--cohesion=-1"], ["--cohesion"]),
        (["--gamma=0.5"], ["--gamma", "only for --rl"]),
        (["--rl"], ["not with --rl", "--init_checkpoint"]),
        (["--model=bertsum_abs"], ["--agents", "only for --model dca"]),
    ],
)
def test_flags_that_agents_refuse(places, tmp_path, arguments, parts):
    refusal(lambda: run_agents(places, tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.fixture(scope="module")
def trained(places):
    """A folder as a run of MLE leaves it, with first weights."""
    folder = places["folder"] / "mle"
    folder.mkdir()
    shutil.copy(places["bert"] / "vocab.txt", folder)
    words = (folder / "vocab.txt").read_text().split()
    config = AgentsConfig(
        *(len(words), 8, 8, 2),
        contextual_layers=0,
        caa=True,
    )
    dca.communicating_agents(config).save(folder / "model.keras")
    found = record.Record("dca", 32, 12, 1, True, record.decoding.Beam())
    record.save(folder, found)
    return folder


@pytest.fixture
def eagerly(monkeypatch):
    """Two updates are done before a graph of them is traced."""

    def compile_eagerly(self, *args, jit_compile, **kwargs):
        keras.Model.compile(self, *args, run_eagerly=True, **kwargs)

    monkeypatch.setattr(dca_rl.SelfCritical, "compile", compile_eagerly)


ZERO = {"mean": 0.0, "interval_95": [0.0, 0.0]}
MEASURED = {
    "test_documents": 2,
    "rows": {"dca": {name: ZERO for name in rouge.NAMES}},
    "differences": {},
}


def test_rewards_train_what_mle_has_trained(
    places, trained, tmp_path, monkeypatch, eagerly
):
    by_rewards = (
        *("--rl", f"--init_checkpoint={trained}", "--max_target=8"),
        *("--optimizer=adamw", "--learning_rate=1e-3", "--gamma=0.9"),
    )
    folder = tmp_path / "rl"
    report = run(places, folder, *by_rewards)
    assert [*report["rows"]] == ["Oracle", "Lead-1", "dca"]
    rows = scripts.rows(folder / "metrics.csv")
    assert len(rows) == 2 and 0 <= float(rows[0]["reward"]) <= 1
    assert not rows[1]["val_reward"] and float(rows[1]["val_loss"]) > 0
    whole = weights.read_keras(folder / "model.keras", "whole")
    # It has the sizes of what it began with, and other weights.
    before = weights.read_keras(trained / "model.keras", "before")
    config = whole.get_layer("dca").config
    assert config == before.get_layer("dca").config and config.caa
    moved = [
        float(np.abs(one - other).max())
        for one, other in zip(whole.weights, before.weights, strict=True)
    ]
    assert 0 < max(moved) < 0.01  # two steps of 1e-3 at most, and decay

    # Interrupted after the first step, it draws the same in the second.
    (folder / "model.keras").unlink()
    for path in (folder / "checkpoints").glob("ckpt-2*"):
        path.unlink()
    monkeypatch.setattr(train, "measure", lambda *_: MEASURED)
    run(places, folder, *by_rewards)
    assert (
        scripts.rows(folder / "metrics.csv")[1]["reward"] == (rows[1]["reward"])
    )
    again = weights.read_keras(folder / "model.keras", "again")
    for one, other in zip(whole.weights, again.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    refusal(
        lambda: run(places, folder, *by_rewards, "--reward=rouge1"), "reward ="
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--init_checkpoint="], ["--init_checkpoint is missing", "ended"]),
        (["--init_checkpoint=none"], ["--init_checkpoint none", "has no"]),
        (["--agents=2"], ["--agents", "not with --rl"]),
        (["--jit_compile"], ["--jit_compile", "not with --rl"]),
        (["--gamma=1.5"], ["--gamma 1.5", "from 0 to 1"]),
        (["--gamma=nan"], ["--gamma nan", "from 0 to 1"]),
    ],
)
def test_flags_that_rewards_refuse(places, trained, tmp_path, arguments, parts):
    start = ("--rl", f"--init_checkpoint={trained}")
    refusal(lambda: run(places, tmp_path / "run", *start, *arguments), *parts)
    assert not (tmp_path / "run" / "run.json").exists()


def test_rewards_begin_with_agents_alone(places, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other, ignore=shutil.ignore_patterns("ckpt*"))
    start = ("--rl", f"--init_checkpoint={other}")
    found = json.loads((other / record.NAME).read_text())
    for damaged in ({**found, "model": "bertsum_abs"}, []):
        (other / record.NAME).write_text(json.dumps(damaged))
        refusal(
            lambda: run(places, tmp_path / "run", *start),
            "is no run of --model dca",
        )
    (other / record.NAME).write_text(json.dumps(found))
    (other / "vocab.txt").unlink()
    refusal(lambda: run(places, tmp_path / "run", *start), "has no vocabulary")
