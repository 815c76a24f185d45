"""albert_config.json: read, and refused."""

import json

import pytest

from official_models.nlp.albert import config
from official_models.nlp.albert.config import AlbertConfig, sharing
from official_models.nlp.bert.config import BertConfig, write_config
from tests.official_models.nlp.bert.test_config import PUBLISHED
from tests.official_models.scripts import refusal

# What the published ALBERT-base has beside a BERT's names.
ALBERT = {
    "attention_probs_dropout_prob": 0,
    "hidden_dropout_prob": 0,
    "embedding_size": 128,
    "num_hidden_groups": 1,
    "net_structure_type": 0,
    "gap_size": 0,
    "num_memory_blocks": 0,
    "inner_group_num": 1,
    "down_scale_factor": 1,
    "vocab_size": 30000,
}


def _write(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**PUBLISHED, **changes}))
    return str(path)


def test_published(tmp_path):
    path = _write(tmp_path, **ALBERT)
    expected = AlbertConfig.of_size(
        "base", hidden_dropout=0, attention_dropout=0
    )
    assert config.read_config(path) == config.read_either(path) == expected


def test_a_bert_s(tmp_path):
    path = _write(tmp_path)
    assert config.read_either(path) == BertConfig.of_size("base")
    expected = "lacks embedding_size; expected an albert_config.json"
    refusal(lambda: config.read_config(path), path, expected)


def test_groups_of_layers(tmp_path):
    path = _write(tmp_path, **{**ALBERT, "num_hidden_groups": 3})
    found = config.read_config(path)
    assert (found.num_hidden_groups, found.inner_group_num) == (3, 1)
    groups = [found.group_of(i) for i in range(found.num_layers)]
    assert groups == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("family", ["bert", "albert"])
@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_a_written_file_is_read_back(family, gelu, tmp_path):
    sizes = dict(hidden_dropout=0.2, layer_norm_epsilon=1e-6, gelu=gelu)
    expected = (
        AlbertConfig.of_size("large", 77, **sizes, **sharing("ffn", 24))
        if family == "albert"
        else BertConfig.of_size("mini", 77, **sizes)
    )
    path = tmp_path / "config.json"
    write_config(path, expected)
    assert config.read_either(path) == expected


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"net_structure_type": 1}, ["net_structure_type", "1", "expected 0"]),
        ({"num_hidden_groups": 13}, ["num_hidden_groups", "13", "at most"]),
        ({"inner_group_num": 0}, ["inner_group_num", "got 0", ">= 1"]),
        ({"shared_part": "all"}, ["shared_part", "'none'", "'attention'"]),
        ({"embedding_size": 0}, ["embedding_size", "got 0", ">= 1"]),
        ({"hidden_act": "relu"}, ["hidden_act", "'relu'", "gelu"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refusals(tmp_path, changes, parts):
    path = _write(tmp_path, **{**ALBERT, **changes})
    for read in (config.read_config, config.read_either):
        refusal(lambda read=read: read(path), path, *parts)
