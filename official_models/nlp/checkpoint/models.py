"""Which of our models a checkpoint is of, and that model."""

from __future__ import annotations

from collections.abc import Callable

import keras

from official_models.common import weights
from official_models.nlp.albert import heads as albert_heads
from official_models.nlp.albert import model as albert
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.albert.huggingface import ALBERT
from official_models.nlp.bert import heads as bert_heads
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.huggingface import BERT, Naming

# A variable that only a model with this head has.
MARKS = {
    "pretrainer": "cls/predictions/output_bias",
    "classifier": "output_weights",
    "span": "cls/squad/output_weights",
}
PAIR = "cls/seq_relationship/output_weights"
POOLER = "bert/pooler/dense/kernel"


def is_albert(config: BertConfig) -> bool:
    """Whether it is an ALBERT's."""
    return isinstance(config, AlbertConfig)


def naming_of(config: BertConfig) -> Naming:
    """Hugging Face's names of the model of a configuration."""
    return ALBERT if is_albert(config) else BERT


def encoder_of(model: keras.Model) -> keras.layers.Layer:
    """The `transformer.layers.Encoder` of a model of ours."""
    return model.get_layer("bert")


def config_of(model: keras.Model) -> BertConfig:
    """The configuration of a BERT or an ALBERT, with or without a head."""
    return encoder_of(model).config


def head_of(has: Callable[[str], bool]) -> str:
    """ "pretrainer", "classifier", "span", or "encoder" if there is none.

    Args:
        has: Whether there is a variable of this path.
    """
    found = [head for head, path in MARKS.items() if has(path)]
    return found[0] if found else "encoder"


def head_of_model(model: keras.Model) -> str:
    """As `head_of`, of a model of ours."""
    return head_of(weights.by_path(model).__contains__)


def make(
    config: BertConfig,
    head: str = "encoder",
    *,
    num_labels: int = 2,
    dropout: float = 0.1,
    seed: int = 0,
    dtype=None,
) -> keras.Model:
    """A BERT or an ALBERT with a head.

    Args:
        config: Sizes and rates; an `AlbertConfig` makes an ALBERT.
        head: As `head_of` gives it.
        num_labels: Labels of a classifier, 2 or more; 1 for a regression.
        dropout: Rate before a classifier, in [0, 1).
        seed: Of the initial weights and the dropouts.
        dtype: Keras dtype policy; None is the global one.

    Raises:
        ValueError: `num_labels` or `dropout` is out of range.
    """
    ours = is_albert(config)
    more = {"seed": seed, "dtype": dtype}
    if head == "classifier":
        make_classifier = (
            albert_heads.albert_classifier
            if ours
            else bert_heads.bert_classifier
        )
        return make_classifier(config, num_labels, dropout=dropout, **more)
    functions = {
        "encoder": (bert.bert_encoder, albert.albert_encoder),
        "pretrainer": (bert.bert_pretrainer, albert.albert_pretrainer),
        "span": (bert_heads.bert_span, albert_heads.albert_span),
    }
    return functions[head][ours](config, **more)
