"""Scripts of Keras 3, in the environment of TPUEstimator."""

import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "nlp.bert.pretrain",
        "nlp.bert.finetune_classifier",
        "nlp.bert.finetune_squad",
        "vision.resnet.train",
    ],
)
def test_a_script_says_which_keras_it_needs(name, capsys):
    script = importlib.import_module(f"official_models.{name}")
    with pytest.raises(SystemExit) as end:
        script.define_flags()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Keras 2.15") and "make .venv" in line
