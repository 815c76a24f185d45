"""A tokenizer that is told to lower-case otherwise than its files say."""

import json
import shutil

import pytest
from tokenizers import Tokenizer

from official_models.nlp.checkpoint import __main__ as script
from official_models.nlp.checkpoint import tokenizer
from tests.official_models import scripts
from tests.official_models.nlp.checkpoint import folders

WORDS = [*folders.WORDS[:-1], "anna"]
CASED = {True: "anna", False: "[UNK]"}


@pytest.fixture
def folder(tmp_path):
    """Hugging Face's, uncased by all of its files."""
    made = folders.write(tmp_path / "hf", words=WORDS)
    files = tokenizer.TokenizerFiles({"vocab.txt": made / "vocab.txt"}, True)
    tokenizer.write(files, tmp_path, 24)
    for name in (tokenizer.PIPELINE, tokenizer.SETTINGS):
        shutil.move(tmp_path / name, made / name)
    return made


def tokens(pipeline):
    return pipeline.encode("Anna", add_special_tokens=False).tokens


@pytest.mark.parametrize("lowercase", [True, False])
def test_what_is_written_does_as_what_was_used(lowercase, folder, tmp_path):
    found = tokenizer.find(folder, lowercase=lowercase)
    assert tokens(found.load("")) == [CASED[lowercase]]
    out = tmp_path / "out"
    out.mkdir()
    tokenizer.write(found, out, 24)
    pipeline = Tokenizer.from_file(str(out / tokenizer.PIPELINE))
    assert tokens(pipeline) == [CASED[lowercase]]
    settings = json.loads((out / tokenizer.SETTINGS).read_text())
    assert settings["do_lower_case"] is lowercase
    # Found again, the files agree and are kept.
    again = tokenizer.find(out, lowercase=lowercase)
    assert tokens(again.load("")) == [CASED[lowercase]]
    assert tokenizer.PIPELINE in again.files


def test_a_pipeline_alone_cannot_do_otherwise(folder):
    (folder / "vocab.txt").unlink()
    (folder / tokenizer.SETTINGS).unlink()
    assert tokens(tokenizer.find(folder, lowercase=True).load("")) == ["anna"]
    scripts.refusal(
        lambda: tokenizer.find(folder, lowercase=False),
        *("--lowercase false: ", "tokenizer.json has it otherwise"),
        "give the vocabulary by --vocab_file",
    )


def test_other_models_are_exported_without_labels_of_a_classifier(
    tmp_path, capsys
):
    folder = folders.write(tmp_path / "hf", id2label={"0": "bad", "1": "good"})
    with scripts.flags_of(script):
        scripts.run(
            script,
            *(f"--checkpoint={folder}", f"--output_dir={tmp_path / 'out'}"),
        )
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["BertForPreTraining"]
    assert "id2label" not in config
    assert "bert_pretrainer" in capsys.readouterr().out
