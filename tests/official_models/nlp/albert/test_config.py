"""albert_config.json: read, and refused."""

import json

import pytest

from official_models.nlp.albert import config
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert.config import BertConfig
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


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"num_hidden_groups": 12}, ["num_hidden_groups", "12", "expected 1"]),
        ({"inner_group_num": 2}, ["inner_group_num", "2", "expected 1"]),
        ({"embedding_size": 0}, ["embedding_size", "0", "more than 0"]),
        ({"hidden_act": "relu"}, ["hidden_act", "'relu'", "gelu"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refusals(tmp_path, changes, parts):
    path = _write(tmp_path, **{**ALBERT, **changes})
    for read in (config.read_config, config.read_either):
        refusal(lambda read=read: read(path), path, *parts)
