"""`train.py --model dca` and `summarize.py` of it, whole and small."""

import io
import json

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.summarization import (
    record,
    train,
)
from tests.official_models import scripts
from tests.official_models.nlp.summarization.small_scripts import (
    make_places,
    summaries_by,
)
from tests.official_models.scripts import refusal

AGENTS = (
    "--model=dca --steps=2 --global_batch_size=4 --eval_batch_size=4 "
    "--log_every=1 --eval_every=2 --save_every=1 --max_tokens=32 "
    "--max_target=12 --sentences=1 --beam_size=2 --min_length=1 "
    "--max_length=6 --jobs=1 --warmup_steps=1 --hidden_size=8 --agents=2 "
    "--contextual_layers=1 --caa --test_limit=2 --validation_limit=2"
).split()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return make_places(tmp_path_factory.mktemp("agents"))


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_agents(places, folder, *arguments):
    with scripts.flags_of(train):
        scripts.run(
            train,
            *AGENTS,
            f"--data_dir={places['data']}",
            f"--vocab_file={places['bert'] / 'vocab.txt'}",
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
        (["--model=bertsum_abs"], ["--agents", "only for --model dca"]),
    ],
)
def test_flags_that_agents_refuse(places, tmp_path, arguments, parts):
    refusal(lambda: run_agents(places, tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run" / "run.json").exists()
