"""BERT's configuration: sizes, bert_config.json, and what is refused."""

import json

import pytest

from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert.config import BertConfig
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.scripts import refusal

# As published beside BERT-base, uncased.
PUBLISHED = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def _write(folder, **changes):
    path = folder / "bert_config.json"
    found = {**PUBLISHED, **changes}
    path.write_text(
        json.dumps({n: v for n, v in found.items() if v is not None})
    )
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 33}, "hidden_size: got 33, .*multiple of num_heads"),
        ({"num_layers": 0}, "num_layers: expected a whole number >= 1, got 0"),
        (
            {"hidden_dropout": 1.0},
            r"hidden_dropout: expected a number in \[0, 1\), got 1.0",
        ),
        ({"attention_dropout": -0.1}, "attention_dropout: .*got -0.1"),
        ({"gelu": "relu"}, "gelu: expected one of 'tanh', 'erf', got 'relu'"),
    ],
)
def test_config_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        config_of(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "768"},
        {"hidden_size": 1e30},
        {"hidden_size": True},
        {"num_hidden_layers": 2.5},
        {"num_hidden_layers": (1, 0)},
        {"vocab_size": 2**63},
        {"vocab_size": 10**39},
        {"intermediate_size": 10**12},
        {"initializer_range": float("inf")},
        {"layer_norm_eps": float("nan")},
        {"hidden_dropout_prob": "0.1"},
        {"hidden_act": ["gelu"]},
    ],
    ids=str,
)
def test_a_value_of_another_kind_in_the_file(tmp_path, changes):
    path = _write(tmp_path, **changes)
    (name,) = changes
    name = bert_config.NAMES.get(name, name)
    refusal(lambda: bert_config.read_config(path), path, name, "got")


def test_whole_numbers_of_the_file_may_be_floats(tmp_path):
    config = bert_config.read_config(_write(tmp_path, hidden_size=768.0))
    assert config == BertConfig.of_size("base")
    assert type(config.hidden_size) is int


def test_sizes():
    base = BertConfig.of_size("base", hidden_dropout=0.0)
    assert (base.num_layers, base.hidden_size) == (12, 768)
    assert (base.num_heads, base.intermediate_size) == (12, 3072)
    assert (base.vocab_size, base.hidden_dropout) == (30522, 0.0)
    with pytest.raises(ValueError, match="size: got 'huge', .*tiny, mini"):
        BertConfig.of_size("huge")


def test_published(tmp_path):
    config = bert_config.read_config(_write(tmp_path, directionality="bidi"))
    assert config == BertConfig.of_size("base")


def test_defaults_and_erf(tmp_path):
    path = _write(
        tmp_path,
        hidden_act="gelu_erf",
        hidden_dropout_prob=0.0,
        type_vocab_size=None,
    )
    config = bert_config.read_config(path)
    expected = BertConfig.of_size("base", gelu="erf", hidden_dropout=0.0)
    assert config == expected


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("gelu", "erf"), ("gelu_new", "tanh"), ("gelu_pytorch_tanh", "tanh")],
)
def test_hugging_face_means_another_gelu(tmp_path, activation, expected):
    path = _write(
        tmp_path, hidden_act=activation, layer_norm_eps=1e-6, model_type="bert"
    )
    config = bert_config.read_config(path, gelu=bert_config.HUGGING_FACE_GELU)
    assert config == BertConfig.of_size(
        "base", gelu=expected, layer_norm_epsilon=1e-6
    )


def test_hugging_face_has_no_gelu_erf(tmp_path):
    path = _write(tmp_path, hidden_act="gelu_erf")
    options = {"gelu": bert_config.HUGGING_FACE_GELU}
    refusal(
        lambda: bert_config.read_config(path, **options),
        path,
        "hidden_act: got 'gelu_erf', expected one of gelu, gelu_new",
    )


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"hidden_size": None}, ["lacks hidden_size"]),
        ({"hidden_act": "relu"}, ["hidden_act", "'relu'", "gelu"]),
        ({"hidden_size": 770}, ["hidden_size", "770", "multiple"]),
        ({"vocab_size": "many"}, []),
        ({"embedding_size": 128}, ["ALBERT"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refusals(tmp_path, changes, parts):
    path = _write(tmp_path, **changes)
    refusal(lambda: bert_config.read_config(path), path, *parts)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_no_json_object(tmp_path, text):
    path = tmp_path / "bert_config.json"
    if text is not None:
        path.write_text(text)
    refusal(
        lambda: bert_config.read_config(str(path)), path, "bert_config.json"
    )
