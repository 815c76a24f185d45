"""Two phases in one command, killed at their boundary; what is refused."""

import json
import shutil
import signal

import pytest

from official_models.nlp.bert import pretrain
from tests.official_models.nlp.bert.pretrain_script import (
    refuses,
    run,
    script,
    write_corpus,
)
from tests.official_models.scripts import (
    flags_of,
    rows,
    same_weights,
    signal_once_there,
)

# The accumulation changes too.
PHASES = (
    *("--steps=12", "--save_every=2", "--phase2_steps=6"),
    *("--phase2_max_seq_length=80", "--phase2_max_predictions_per_seq=8"),
    "--phase2_gradient_accumulation_steps=2",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run of two phases that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with flags_of(pretrain):
        run(corpus, folder, *PHASES)
    return folder


@pytest.fixture(autouse=True)
def defined_flags(whole):
    with flags_of(pretrain):
        yield


def tables(folder):
    found = [rows(folder / f"{x}.csv") for x in ("metrics", "trust_ratio")]
    for row in found[0]:
        row.pop("tokens_per_second")
    return found


def test_killed_at_the_boundary_it_ends_with_the_same_weights(
    corpus, whole, tmp_path
):
    killed = script(corpus, tmp_path, *PHASES)
    saved = tmp_path / "checkpoints/ckpt-6.index"
    signal_once_there(killed, saved, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, "it ended before the kill"
    run(corpus, tmp_path, *PHASES)
    same_weights(whole, tmp_path, 12)
    assert tables(whole) == tables(tmp_path)


def test_resumed_within_the_second_phase(corpus, whole, tmp_path, capsys):
    folder = shutil.copytree(whole, tmp_path / "copy")
    for step in (10, 12):
        for path in (folder / "checkpoints").glob(f"ckpt-{step}.*"):
            path.unlink()
    run(corpus, folder, *PHASES)
    assert "resuming from step 8." in capsys.readouterr().out
    same_weights(whole, folder, 12)
    assert tables(whole) == tables(folder)


def test_each_phase_warms_up_and_is_measured(whole):
    metrics = rows(whole / "metrics.csv")
    assert [row["step"] for row in metrics] == [str(n) for n in range(2, 13, 2)]
    # Peaks after 10% of 6 steps, so after one: 0.02, and 0.02 / sqrt(2).
    rates = [float(row["learning_rate"]) for row in metrics]
    assert rates == pytest.approx(
        [0.016, 0.008, 0, *(x / 2**0.5 for x in (0.016, 0.008, 0))], abs=1e-7
    )
    assert json.loads((whole / "report.json").read_text())["steps"] == 12


def test_positions_reach_the_longer_sequences(whole):
    config = json.loads((whole / "bert_config.json").read_text())
    assert config["max_position_embeddings"] == 80


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--phase2_steps=4", "phase2_steps = 6, this one has 4"),
        ("--phase2_moments=reset", "phase2_moments = 'keep', this one has 'r"),
        ("--phase2_global_batch_size=2", "phase2_global_batch_size = 4, this"),
        ("--steps=14", "steps = 12, this one has 14"),
    ],
)
def test_another_boundary_is_another_run(corpus, whole, argument, message):
    refuses(message, corpus, whole, *PHASES, argument)
