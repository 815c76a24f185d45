"""The benchmark of torch's update, on small shapes; where torch is Keras'."""

import json

import keras
import pytest

from benchmarks import torch_update

if keras.config.backend() != "torch":
    pytest.skip("a benchmark of torch", allow_module_level=True)


def test_every_row_is_timed(tmp_path, capsys):
    path = tmp_path / "out.json"
    torch_update.main(
        ["--models", "small", "tiny", "--rounds", "2", f"--output={path}"]
    )
    found = json.loads(path.read_text())["models"]["small"]
    assert {one["seconds"]["n"] for one in found.values()} == {2}
    assert found[torch_update.BASE]["ratio"]["median"] == 1
    assert "| tf_lamb.LARS, one by one |" in capsys.readouterr().out


def test_no_rounds_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        torch_update.main(["--rounds", "0"])
    assert ended.value.code == 2
    assert "--rounds 0" in capsys.readouterr().err
