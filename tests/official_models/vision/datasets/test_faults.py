"""Files damaged at random: none crashes a loader or passes unseen."""

import json
import os
from collections import Counter

import numpy as np
import pytest

from official_models.common.errors import InputError
from tests.official_models.vision.datasets import faults


@pytest.mark.parametrize("name", faults.FORMATS)
def test_random_damage(name):
    counts, defects = faults.count_outcomes(name, files=50, seed=1)
    assert not defects
    total = sum(counts.values(), Counter())
    assert sum(total.values()) == 50
    cut = counts["cut short"]
    assert cut == {"refused": 10}


def test_faults_are_counted_as_what_they_are(tmp_path, monkeypatch, capfd):
    """The counting itself: a loader that does everything wrong."""
    raised = [
        None,  # the sound sample
        KeyError("a crash"),
        InputError("names nothing"),
        None,
    ]

    def careless(folder):
        path = folder / "file"
        path.write_bytes(bytes(100))

        def load():
            error = raised.pop(0)
            if error:
                raise error
            return [np.frombuffer(path.read_bytes(), np.uint8)]

        return faults.Sample([path], load)

    monkeypatch.setitem(faults.FORMATS, "careless", careless)
    output = tmp_path / "faults.json"
    arguments = ["--files=3", "--format=careless", f"--output={output}"]
    assert faults.main(arguments) == 1
    result = json.loads(output.read_text())
    total = sum(map(Counter, result["counts"]["careless"].values()), Counter())
    assert total == {"crashed": 1, "unclear": 1, "changed": 1}
    assert len(result["defects"]) == 3
    assert "a crash" in capfd.readouterr().out
    assert os.listdir(tmp_path) == ["faults.json"]
