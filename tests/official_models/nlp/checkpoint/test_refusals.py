"""Checkpoints that are refused: each in one line, nothing half written."""

import json

import keras
import numpy as np
import pytest

from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import load, make
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.nlp.checkpoint import folders
from tests.official_models.nlp.checkpoint.folders import same_values, values
from tests.official_models.nlp.text import pieces
from tests.official_models.scripts import refusal


@pytest.fixture
def folder(tmp_path):
    return folders.write(tmp_path / "hf")


def test_another_architecture_names_three_differences(folder):
    model = models.make(
        config_of(hidden_size=16, num_layers=1, num_heads=4), "pretrainer"
    )
    before = values(model)
    message = refusal(
        lambda: load(open_source(folder), model),
        folder,
        "is of another architecture: hidden_size is 32, this model has 16; "
        "num_layers is 2, this model has 1; num_heads is 2, this model has 4; "
        "and 1 more",
    )
    assert "gelu" not in message
    for path, array in values(model).items():
        np.testing.assert_array_equal(array, before[path])
    # A difference that no shape shows.
    heads = models.make(config_of(gelu="erf", num_heads=4), "pretrainer")
    refusal(lambda: load(open_source(folder), heads), "num_heads is 2")
    sizes = dict(
        vocab_size=60,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
    )
    same = dict(max_position_embeddings=24, gelu="erf", embedding_size=8)
    albert = models.make(AlbertConfig(**sizes, **same), "encoder")
    refusal(
        lambda: load(open_source(folder), albert),
        "family is 'BERT', this model has 'ALBERT'",
        "embedding_size is None, this model has 8",
    )


def test_arrays_too_few_too_many_and_of_another_shape(tmp_path):
    state = folders.fixture("state")
    state["bert.extra"] = np.zeros(3, "float32")
    del state["bert.encoder.layer.0.output.dense.bias"]
    name = "bert.encoder.layer.0.output.dense.weight"
    state[name] = np.zeros((32, 3), "float32")
    folder = folders.write(tmp_path, state)
    refusal(
        lambda: make(open_source(folder)),
        folder,
        "lacks 'bert/encoder/layer_0/output/dense/bias'",
        "unknown 'bert.extra'",
        "of shape (3, 32), expected (64, 32)",
    )


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _changed(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**folders.CONFIG, **changes}))

    return change


def _vocabulary(words):
    def change(folder):
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")

    return change


def _index(folder):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"bert.none": "a.safetensors"}}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))


BAD = {
    "cut": (_cut, ["model.safetensors: damaged or cut short"]),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        ["has no config.json; expected a folder of Hugging Face's BERT"],
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        ["has no model.safetensors"],
    ),
    "pickle": (_pickled, ["pytorch_model.bin: is a pickle", "save_pretrained"]),
    "index": (_index, ["a.safetensors: lacks 'bert.none'"]),
    "kind": (_changed(model_type="roberta"), ["model_type: got 'roberta'"]),
    "relative": (
        _changed(position_embedding_type="relative_key"),
        ["position_embedding_type: got 'relative_key', expected 'absolute'"],
    ),
    "activation": (_changed(hidden_act="relu"), ["hidden_act: got 'relu'"]),
    "lacks": (
        lambda folder: (folder / "config.json").write_text("{}"),
        ["config.json: lacks vocab_size"],
    ),
    "words": (
        _vocabulary([*folders.WORDS, "more"]),
        ["vocab.txt: 61 tokens", "has 60; expected the vocabulary"],
    ),
    "settings": (
        lambda folder: (folder / "tokenizer_config.json").write_text("{"),
        ["tokenizer_config.json: not JSON"],
    ),
    "pipeline": (
        lambda folder: (
            (folder / "vocab.txt").unlink(),
            (folder / "tokenizer.json").write_text("{}"),
        ),
        ["tokenizer.json: cannot be read"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_that_are_refused(case, folder):
    change, parts = BAD[case]
    change(folder)
    refusal(lambda: open_source(folder), folder, *parts)


def test_vocabularies_of_another_size(folder, tmp_path):
    """Its own may be smaller, since some models are padded; no other may."""
    few = folders.WORDS[:-1]
    given = tmp_path / "few.txt"
    given.write_text("\n".join(few) + "\n")
    refusal(
        lambda: open_source(folder, vocab_file=str(given)),
        given,
        "59 tokens",
        "has 60",
    )
    refusal(
        lambda: open_source(folder, vocab_file=str(tmp_path / "none.txt")),
        "--vocab_file",
        "no such file",
    )
    _vocabulary(few)(folder)
    assert open_source(folder).tokenizer.size() == 59


def test_a_sentence_piece_model_of_another_size(folder, tmp_path):
    path = pieces.write(tmp_path / "a.model", ["word"], folders.V + 1)
    message = f"{folders.V + 1} tokens, {folder} has {folders.V}"
    refusal(lambda: open_source(folder, vocab_file=str(path)), path, message)


@pytest.mark.parametrize("part", ["attention", "ffn"])
def test_what_transformers_cannot_share_is_refused(part, tmp_path):
    """In one line, and nothing is written; Keras' format has it."""
    shared = {"num_hidden_groups": 2, "shared_part": part}
    config = AlbertConfig(60, 12, 2, 3, 24, embedding_size=8, **shared)
    model = models.make(config, "pretrainer", seed=4)
    refusal(
        lambda: export(model, tmp_path / "hf", "huggingface", TokenizerFiles()),
        *("--format huggingface", f"their {part} alone", "keras"),
    )
    assert not list(tmp_path.iterdir())
    for format in ("keras", "tensorflow"):
        export(model, tmp_path / format, format, TokenizerFiles())
        again, loaded = make(open_source(tmp_path / format))
        assert not loaded.new and not loaded.unused
        assert models.config_of(again) == config
        same_values(again, model)


def test_what_is_no_checkpoint(tmp_path):
    expected = "expected the folder of a training run, a .keras file"
    refusal(lambda: open_source(tmp_path), tmp_path, expected)
    refusal(lambda: open_source(tmp_path / "a/b"), "not there", expected)
    inputs = keras.Input((2,))
    other = keras.Model(inputs, keras.layers.Dense(1)(inputs), name="other")
    other.save(tmp_path / "other.keras")
    refusal(
        lambda: open_source(tmp_path / "other.keras"),
        "other is no BERT and no ALBERT of ours",
    )
    (tmp_path / "bad.keras").write_bytes(b"")
    refusal(lambda: open_source(tmp_path / "bad.keras"), "damaged")


def test_packages_that_are_missing(folder, tmp_path, monkeypatch):
    """As in an environment of torch, or without the extra `models`."""
    source = open_source(folder)
    model, _ = make(source)
    checkpoint = tmp_path / "tf"
    export(model, checkpoint, "tensorflow", source.tokenizer)
    before = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "out"

    def writes(format):
        return lambda: export(model, out, format, source.tokenizer)

    monkeypatch.setattr("keras.config.backend", lambda: "torch")
    refusal(writes("saved_model"), "backend is torch", "KERAS_BACKEND")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lacks = "which is not installed: pip install"
    refusal(lambda: open_source(checkpoint), checkpoint, f"{lacks} tensorflow")
    refusal(lambda: open_source(folder), folder, f"{lacks} safetensors")
    for format, package in (
        ("saved_model", "tensorflow"),
        ("tensorflow", "tensorflow"),
        ("huggingface", "safetensors"),
    ):
        expected = f"--format {format}: needs {package}, {lacks} {package}"
        refusal(writes(format), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
