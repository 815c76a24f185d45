"""Two phases that share a time, killed and resumed; `make run` has a time."""

import json
import os
from pathlib import Path

import pytest

from official_models.common import hours
from official_models.nlp.bert import pretrain
from tests import warm
from tests.official_models.nlp.bert.pretrain_script import (
    refuses,
    run,
    write_corpus,
)
from tests.official_models.scripts import flags_of, rows

# As many tokens in each phase. 32 seconds, of which phase 1 has 8 steps of two
# seconds, phase 2 then 4 steps of four.
PHASES = (
    *("--steps=40", "--phase2_steps=20", "--save_every=2"),
    *("--phase2_max_seq_length=32", f"--hours={32 / 3600}"),
    "--jit_compile=false",
)


class Killed(Exception):
    """What ends the run in its middle."""


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Moves with the steps; the eleventh one kills the first start."""
    clock = {"now": 0.0, "killed_at": 11}
    whole = hours.Timing.on_train_batch_end

    def tick(self, batch, logs=None):
        clock["now"] += 4 if self.run.begin_step else 2
        if self.step + 1 == clock["killed_at"]:
            raise Killed
        whole(self, batch, logs)

    monkeypatch.setattr(hours, "_now", lambda: clock["now"])
    monkeypatch.setattr(hours.Timing, "on_train_batch_end", tick)
    with flags_of(pretrain):
        yield clock


def test_both_phases_end_on_time(tmp_path, clock, capsys):
    corpus = write_corpus(tmp_path)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        run(corpus, folder, *PHASES)
    said = capsys.readouterr().out
    assert "about 8 of 20 steps fit" in said
    assert "about 4 of 20 steps fit" in said
    record = json.loads((folder / hours.RECORD).read_text())
    assert record["seconds"] == 24
    assert [phase["end"] for phase in record["phases"]] == [8, None]
    # Step 11 took four seconds that nobody has recorded.
    clock["killed_at"] = None
    run(corpus, folder, *PHASES)
    said = capsys.readouterr().out
    assert "resuming from step 10." in said
    assert "0.0067 of 0.0089 hours are used" in said
    metrics = rows(folder / "metrics.csv")
    assert [row["step"] for row in metrics] == [str(n) for n in range(2, 13, 2)]
    rates = [float(row["learning_rate"]) for row in metrics]
    # Phase 1 warms up in 2 of its 20 steps, and then goes three times as fast.
    assert rates[:4] == pytest.approx([0.02 * n for n in (1, 2 / 3, 1 / 3, 0)])
    assert rates[4] > 0 and rates[5] == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["steps"] == 12
    assert report["phases_ended_after_steps"] == [8, 12]
    assert report["hours"] == pytest.approx(32 / 3600, abs=1e-4)
    refuses("hours = 0.00888", corpus, folder, *PHASES, "--hours=2")


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], "pretrain --hours 0.15"),
        (["HOURS=", "ARGS=--seed=2"], "pretrain --seed=2"),
        (["STEPS=20"], "pretrain --steps 20 --output_dir runs/bert-20"),
    ],
)
def test_the_main_command_ends_within_ten_minutes(words, expected):
    root = Path(__file__).parents[4]
    # The tests themselves run under a make, which says where it is.
    env = {k: v for k, v in os.environ.items() if "MAKE" not in k}
    make = ["make", "--dry-run", "run", *words]
    found = warm.run(make, cwd=root, env=env, capture_output=True, text=True)
    last = " ".join(found.stdout.splitlines()[-1].split())
    assert last.endswith(expected)
