"""Checkpoints of every kind: what is loaded, what is not, what is refused."""

import json

import keras
import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert import huggingface
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import FORMATS, export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import load, make
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.nlp.checkpoint import folders
from tests.official_models.nlp.text import pieces
from tests.official_models.scripts import refusal


def values(model):
    return {p: v.numpy() for p, v in weights.by_path(model).items()}


def same_values(one, other):
    one, other = values(one), values(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(other[path], array, err_msg=path)


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
