"""figures.json: the numbers of heads.json that a table shows."""

import json

import pytest

from official_models.common.errors import InputError
from official_models.nlp.head_analysis import figures
from tests.official_models.nlp.head_analysis.test_report import L, N, heads_of


def _written(folder, **changes):
    folder.mkdir()
    found = heads_of(raw_model="raw", **changes)
    (folder / "heads.json").write_text(json.dumps(found))
    return found


def test_figures_of_two_analyses(tmp_path):
    found = _written(tmp_path / "a")
    _written(tmp_path / "b", task="MRPC")
    table = figures.write([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    first, second = json.loads((tmp_path / "out/figures.json").read_text())
    assert (first["task"], second["task"]) == (found["task"], "MRPC")
    assert (tmp_path / "out/figures.png").stat().st_size > 1000
    # Worth of each place: its accuracy less that with nothing off.
    off = found["switching_off"]
    for layer in range(L):
        for head in range(N):
            worth = [
                one[layer][head] - plain
                for one, plain in zip(
                    off["heads"]["report"], off["accuracy"]["report"]
                )
            ]
            expected = pytest.approx(sum(worth) / len(worth), abs=1e-6)
            assert first["head"]["map"][layer][head] == expected
    assert first["head"]["each_worse"] == 2
    assert first["head"]["each"]["mean"] == -0.125
    # The layer whose maps are least like those before comes first.
    means = [sum(row) / N for row in found["change"]["models"][0]]
    assert first["most_changed"][0][0] == means.index(min(means))
    assert "| -12.5 ± 0.0 | 0, 2 | 0.500 |" in table
    assert "| MRPC | layer |" in table


def test_what_is_not_measured_is_refused(tmp_path):
    _written(tmp_path / "a", change=None)
    with pytest.raises(InputError, match="change is null; .*--raw_model"):
        figures.write([tmp_path / "a"], tmp_path / "out")
    with pytest.raises(InputError, match="nothing"):
        figures.write([tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
