"""Lottery tickets as a command: both controls, resuming, what is refused."""

import json
import sys

import keras
import numpy as np
import pytest

import tf_lamb
from tests import warm
from tests.diagnostics.saved_models import classifier, refused, run
from tf_lamb.diagnostics import tickets

FLAGS = "--batch_size 16 --steps 6 --rounds 2 --seeds 2 --share 0.5".split()


def read(folder, name="prune.json"):
    return json.loads((folder / "out" / name).read_text())


def test_prune_resumes_to_the_same(tmp_path, capsys):
    classifier(tmp_path)
    flags = [*FLAGS, "--rewind_step", "2"]
    assert run(tmp_path, "prune", *flags) == 0
    first = read(tmp_path)
    assert "0/0/ticket: step 6/6" in capsys.readouterr().out
    rows = {(r["kind"], r["round"]): r for r in first["rows"]}
    assert len(rows) == 1 + 2 * len(tickets.KINDS)
    # Kernels of 48 and 16 weights, halved.
    for kind in tickets.KINDS:
        assert rows[kind, 2]["sparsity"] == pytest.approx(0.75)
        assert rows[kind, 2]["seeds"] == 2 and not rows[kind, 2]["diverged"]
    scores = [c["score"] for c in first["cells"].values()]
    assert len(set(scores)) == len(scores) == 14
    row = rows["ticket", 1]
    both = [first["cells"][f"{i}/1/ticket"]["score"] for i in range(2)]
    assert row["mean"] == pytest.approx(np.mean(both))
    assert row["deviation"] == pytest.approx(np.std(both, ddof=1))
    assert (row["low"], row["high"]) == (min(both), max(both))
    assert (tmp_path / "out" / "prune.png").stat().st_size > 1000
    kept = read(tmp_path, "progress.json")
    names = list(kept["found"])
    for name in names[names.index("1/1/random_mask") :]:
        del kept["found"][name]  # as if it had been killed there
    (tmp_path / "out" / "progress.json").write_text(json.dumps(kept))
    assert run(tmp_path, "prune", *flags) == 0
    shown = capsys.readouterr().out
    assert "1/2/ticket: step 6" in shown and "1/1/ticket: step" not in shown
    assert read(tmp_path)["cells"] == first["cells"]


def test_a_ticket_without_pruning_is_the_whole_network(tmp_path):
    """Rewinding and nothing else; the metric that the model has."""
    model, _, _ = classifier(tmp_path)
    model.compile("sgd", model.loss, metrics=["accuracy"])
    model.save(tmp_path / "model.keras")
    flags = "--steps 5 --rounds 1 --seeds 1 --share 1e-9 --rewind_step 2"
    assert run(tmp_path, "prune", *flags.split(), "--batch_size", "16") == 0
    found = read(tmp_path)
    assert found["metric"] == "accuracy"
    cells = found["cells"]
    assert cells["0/0/ticket"]["score"] == cells["0/1/ticket"]["score"]
    assert 0 <= cells["0/0/ticket"]["score"] <= 1


def test_a_process_of_its_own_reads_a_model_with_lamb(tmp_path):
    """Nothing but the command has imported our optimizers there."""
    model, _, _ = classifier(tmp_path)
    model.compile(tf_lamb.LAMB(0.01), model.loss)
    model.save(tmp_path / "model.keras")
    keras.backend.clear_session()
    command = [sys.executable, "-m", "tf_lamb.diagnostics", "prune"]
    files = [str(tmp_path / n) for n in ("model.keras", "data.npz", "out")]
    files.insert(2, "--output_dir")
    flags = "--batch_size 16 --steps 2 --rounds 1 --seeds 1".split()
    warm.run([*command, *files, *flags], check=True)
    assert len(read(tmp_path)["rows"]) == 4


def test_a_score_that_is_not_finite_is_counted():
    cell = dict(kind="ticket", round=1, sparsity=0.5)
    rows = tickets.summary([{**cell, "score": s} for s in (1.0, None, 3.0)])
    assert rows == [tickets.Row("ticket", 1, 0.5, 2.0, 2**0.5, 1.0, 3.0, 3, 1)]


def test_bad_input_is_one_line(tmp_path, capsys):
    classifier(tmp_path)
    for flags, expected in (
        ("--rewind_step 6", "below --steps 6"),
        ("--share 1", "below 1"),
        ("--metric f1", "expected one of loss"),
        ("--batch_size 100", "at least 100"),
        ("--held_out none.npz", "no such file"),
    ):
        line = refused(capsys, tmp_path, "prune", *FLAGS, *flags.split())
        assert expected in line
    assert not (tmp_path / "out" / "prune.json").exists()
