"""Checkpoints of every kind: what is loaded, what is not, what is refused."""

import json

import numpy as np
import pytest

from official_models.nlp.bert import huggingface
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import FORMATS, export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import load, make
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.nlp.checkpoint import folders
from tests.official_models.nlp.checkpoint.folders import same_values, values
from tests.official_models.nlp.text import pieces
from tests.official_models.scripts import refusal


@pytest.fixture
def folder(tmp_path):
    return folders.write(tmp_path / "hf")


def test_a_folder_of_hugging_face_s(folder):
    """The fixture's weights, and what they compute there."""
    model, loaded = make(open_source(folder))
    assert not loaded.new and not loaded.unused
    assert set(loaded.loaded) == set(values(model))
    assert models.config_of(model) == config_of(gelu="erf")
    outputs = model(folders.fixture("inputs"))
    expected = folders.fixture("erf")
    for name in ("masked_lm", "next_sentence"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_back_to_the_bit(format, folder, tmp_path):
    source = open_source(folder)
    model, _ = make(source)
    out = tmp_path / "out" / format
    names = export(model, out, format, source.tokenizer)
    assert {"vocab.txt", "tokenizer.json"} <= set(names)
    assert sorted(path.name for path in out.iterdir()) == names
    if format != "saved_model":
        again, loaded = make(open_source(out))
        assert not loaded.new and not loaded.unused
        same_values(again, model)
        assert models.config_of(again) == models.config_of(model)
        return
    import tensorflow as tf

    inputs = folders.fixture("inputs")
    loaded = tf.saved_model.load(str(out))
    served = loaded.serve({n: tf.constant(x) for n, x in inputs.items()})
    for name, expected in model(inputs).items():
        np.testing.assert_allclose(served[name], expected, atol=1e-5)


def test_an_encoder_under_new_heads(folder):
    """What is new keeps its values; what is not used is named."""
    model = models.make(config_of(gelu="erf"), "classifier", num_labels=3)
    before = values(model)
    loaded = load(open_source(folder), model)
    assert loaded.new == ["output_weights", "output_bias"]
    assert "cls.seq_relationship.weight" in loaded.unused
    assert all(name.startswith("cls.") for name in loaded.unused)
    for path in loaded.new:
        np.testing.assert_array_equal(values(model)[path], before[path])
    state = folders.fixture("state")
    path = "bert/encoder/layer_1/output/dense/kernel"
    np.testing.assert_array_equal(
        values(model)[path], state["bert.encoder.layer.1.output.dense.weight"].T
    )
    lines = str(loaded).splitlines()
    assert lines[0] == f"{len(before) - 2} variables loaded"
    assert "output_weights, output_bias" in lines[1]
    assert "cls.predictions.bias" in lines[2]


def test_second_names_of_tied_arrays(folder, tmp_path):
    state = folders.fixture("state")
    name, alias = (
        "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.weight",
    )
    only_alias = {n: x for n, x in state.items() if n != name}
    one = make(open_source(folders.write(tmp_path / "one", only_alias)))[0]
    same_values(one, make(open_source(folder))[0])
    other = folders.write(tmp_path / "b", {**state, alias: state[alias] + 1})
    refusal(lambda: open_source(other), other, alias, name, "one tied array")


@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_narrow_arrays_are_widened(narrow, tmp_path):
    import ml_dtypes

    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[narrow]
    state = {n: x.astype(dtype) for n, x in folders.fixture("state").items()}
    model, _ = make(open_source(folders.write(tmp_path, state)))
    array = values(model)["bert/pooler/dense/kernel"]
    expected = state["bert.pooler.dense.weight"].T.astype("float32")
    np.testing.assert_array_equal(array, expected)


def test_a_sentence_piece_model_is_passed_on(folder, tmp_path):
    path = pieces.write(tmp_path / "30k-clean.model", ["word"], folders.V)
    source = open_source(folder, vocab_file=str(path))
    model, _ = make(source)
    names = export(model, tmp_path / "out", "huggingface", source.tokenizer)
    assert names == [
        *("config.json", "model.safetensors", "spiece.model"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    assert (tmp_path / "out/spiece.model").read_bytes() == path.read_bytes()


def test_an_export_leaves_nothing_half_written(folder, tmp_path, monkeypatch):
    source = open_source(folder)
    model, _ = make(source)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "a").write_text("mine")
    refusal(
        lambda: export(model, taken, "keras", source.tokenizer),
        f"--output_dir {taken}: is there and not empty",
    )
    assert [path.name for path in taken.iterdir()] == ["a"]
    refusal(
        lambda: export(model, "gs://a/b", "keras", source.tokenizer),
        "name a local folder",
    )
    refusal(
        lambda: export(model, taken / "a/b", "keras", source.tokenizer),
        "name a folder that can be written",
    )
    with pytest.raises(ValueError, match="format: got 'onnx'"):
        export(model, tmp_path / "out", "onnx", source.tokenizer)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("official_models.nlp.checkpoint.tokenizer.write", full)
    refusal(
        lambda: export(model, tmp_path / "out", "keras", source.tokenizer),
        "No space left on device",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_has_the_names_of_from_hf_state_dict(folder):
    """Both ways to read a folder give one model."""
    model, _ = make(open_source(folder))
    other = models.make(models.config_of(model), "pretrainer", seed=3)
    huggingface.from_hf_state_dict(folders.fixture("state"), other)
    same_values(model, other)
    with pytest.raises(ValueError, match="num_labels: got 0"):
        models.make(BertConfig(60, 32, 1, 2, 64), "classifier", num_labels=0)


@pytest.mark.parametrize("format", ["huggingface", "keras", "tensorflow"])
def test_labels_keep_their_names(format, folder, tmp_path):
    model = models.make(config_of(), "classifier", num_labels=3)
    source = open_source(folder)
    assert source.labels == ()
    labels = ("no", "sì", "perhaps")
    out = tmp_path / "out"
    export(model, out, format, source.tokenizer, labels=labels)
    assert open_source(out).labels == labels
    if format == "huggingface":
        written = json.loads((out / "config.json").read_text())
        assert written["id2label"] == dict(zip("012", labels, strict=True))
        assert written["label2id"] == {n: i for i, n in enumerate(labels)}
    for wrong in (labels[:2], ("no", "no", "yes")):
        refusal(
            lambda wrong=wrong: export(
                *(model, tmp_path / "other", format, source.tokenizer),
                labels=wrong,
            ),
            "bert_classifier has 3",
        )
    assert not (tmp_path / "other").exists()


def test_labels_without_names_of_their_own(folder, tmp_path):
    model = models.make(config_of(), "classifier", num_labels=3)
    out = tmp_path / "out"
    export(model, out, "huggingface", open_source(folder).tokenizer)
    written = json.loads((out / "config.json").read_text())
    assert written["id2label"]["2"] == "LABEL_2"
    assert open_source(out).labels == ()
    out = tmp_path / "keras"
    export(model, out, "keras", open_source(folder).tokenizer)
    (out / "labels.json").write_text("{}")
    refusal(lambda: open_source(out), out / "labels.json", "expected a list")
