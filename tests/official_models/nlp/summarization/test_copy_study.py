"""The study of the copy task, small; what it reached is in its results."""

import dataclasses
import json

import numpy as np
import pytest

from official_models.nlp.summarization import copy_study, copy_training
from tests.official_models import scripts
from tests.official_models.scripts import refusal

SMALL = (
    "--optimizers=lamb --updates=100 --global_batch_size=2 --hidden_size=2 "
    "--contextual_layers=1 --test_examples=50 --seeds=2 --nojit_compile"
).split()


def study(folder, *arguments):
    with scripts.flags_of(copy_study):
        scripts.run(copy_study, *SMALL, f"--output_dir={folder}", *arguments)


def test_the_study_is_resumed(tmp_path, capsys, monkeypatch):
    trained = []

    class Trainer:
        """Trains nothing."""

        def __init__(self, setting, by_xla):
            assert not by_xla

        def run(self, setting):
            trained.append(setting)
            right = 0.9 if setting.communicate else 0.3
            return {"accuracy": right, "parameters": 7, "curve": [[100, 1, 0]]}

    monkeypatch.setattr(copy_study, "Trainer", Trainer)
    study(tmp_path, "--seeds=1")
    assert [s.communicate for s in trained] == [True, False]
    assert trained[0].learning_rate == 0.03 and trained[0].hidden_size == 2
    found = json.loads((tmp_path / "copy.json").read_text())
    assert found["chance"] == 1 / 3 and found["runs_missing"] == 0
    assert [x["mean"] for x in found["summary"]] == [0.9, 0.3]
    assert (tmp_path / "copy.png").stat().st_size > 1000
    # The same command does nothing that was done.
    capsys.readouterr()
    study(tmp_path, "--seeds=1")
    assert len(trained) == 2
    assert "chance 33.3%" in capsys.readouterr().out
    # The time is up before what is new.
    study(tmp_path, "--hours=1e-9")
    assert len(trained) == 2
    assert "time is up before lamb-messages-2" in capsys.readouterr().out
    found = json.loads((tmp_path / "copy.json").read_text())
    assert len(found["runs"]) == 1 and found["runs_missing"] == 3
    refusal(lambda: study(tmp_path, "--updates=200"), "updates =")


def test_seeds_share_a_trainer_and_nothing_else():
    setting = copy_training.Setting(
        *(True, 5, "adam", 0.01, 100, 2, 2, 2, 2, 1, 0.4, 50),
    )
    trainer = copy_training.Trainer(setting, by_xla=False)
    first = trainer.run(setting)
    other = trainer.run(dataclasses.replace(setting, seed=6))
    assert first == trainer.run(setting)
    assert first["curve"] != other["curve"]
    ((update, loss, share),) = first["curve"]
    assert update == 100 and 0 < loss < 20 and 0 <= share <= 1
    assert 0 <= first["accuracy"] <= 1
    with pytest.raises(ValueError, match="expected"):
        trainer.run(dataclasses.replace(setting, communicate=False))
    without = dataclasses.replace(setting, communicate=False)
    alone = copy_training.Trainer(without, by_xla=False)
    assert alone.parameters == trainer.parameters == first["parameters"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--updates=150"], ["--updates 150", "multiple of 100"]),
        (["--keys=2"], ["--keys 2", "--pairs 3"]),
        (["--optimizers=sgd"], ["--optimizers sgd", "lamb, adam"]),
        (["--optimizers="], ["--optimizers"]),
        (["--learning_rate=-1"], ["--learning_rate -1"]),
        (["--initializer_range=0"], ["--initializer_range 0"]),
        (["--hours=0"], ["--hours 0"]),
    ],
)
def test_flags_that_are_refused(tmp_path, arguments, parts):
    refusal(lambda: study(tmp_path / "run", *arguments), *parts)


def test_the_rate_rises_and_falls():
    rate = copy_training.Rise(2.0, 100)
    found = [float(rate(t)) for t in (0, 4, 5, 52, 100)]
    np.testing.assert_allclose(found, [0.4, 2, 2, 2 * 48 / 95, 0], atol=1e-6)
    again = copy_training.Rise.from_config(rate.get_config())
    assert float(again(52)) == found[3]
