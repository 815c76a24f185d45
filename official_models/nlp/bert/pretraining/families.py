"""What `--model` decides of a pretraining: BERT's, or ALBERT's.

All else is common to both: the run, the data, the optimizer, the phases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
from absl import flags

from official_models.common.errors import InputError
from official_models.nlp.albert import config as albert_config
from official_models.nlp.albert import layouts as albert_layouts
from official_models.nlp.albert import model as albert
from official_models.nlp.bert import layouts as bert_layouts
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint.tokenizer import SENTENCE_PIECE, VOCABULARY
from official_models.nlp.text import sentence_piece, wordpiece

FLAGS = flags.FLAGS
_ALBERT_ONLY = ("embedding_size", "share_parameters")


class Family(NamedTuple):
    """One of the models that can be pretrained.

    Attributes:
        title: its name.
        config: class of its configuration.
        make_model: (config, seed=, dtype=) -> model with both heads.
        layouts: how its variables are split over a mesh.
        pair: output of the head of the sentence pair.
        vocabulary: file of a vocabulary that is trained here.
        defaults: {flag: value} that differ from the script's.
    """

    title: str
    config: type[BertConfig]
    make_model: Callable[..., keras.Model]
    layouts: Mapping[str, Any]
    pair: str
    vocabulary: str
    defaults: Mapping[str, Any]


FAMILIES = {
    "bert": Family(
        "BERT",
        BertConfig,
        bert.bert_pretrainer,
        bert_layouts.LAYOUTS,
        bert.PretrainingHeads.PAIR,
        VOCABULARY,
        {"sentence_order": False, "max_ngram": 1},
    ),
    # Lan et al. 2019, sections 3.1 and 4.1.
    "albert": Family(
        "ALBERT",
        albert_config.AlbertConfig,
        albert.albert_pretrainer,
        albert_layouts.LAYOUTS,
        albert.AlbertHeads.PAIR,
        SENTENCE_PIECE,
        {
            "sentence_order": True,
            "max_ngram": 3,
            "embedding_size": 128,
            "share_parameters": "all",
        },
    ),
}


def define_flags() -> None:
    """Defines --model, and the flags that only an ALBERT has."""
    flags.DEFINE_enum("model", "bert", list(FAMILIES), "What is pretrained.")
    flags.DEFINE_integer(
        "embedding_size",
        None,
        "Width E of ALBERT's embeddings. Default: 128.",
        1,
    )
    flags.DEFINE_enum(
        "share_parameters",
        None,
        list(albert_config.SHARING),
        "Weights that ALBERT's layers share: all, those of the attention or "
        "of the feed-forward block, or none. Default: all.",
    )


def apply() -> None:
    """Gives the flags that were left out the defaults of --model.

    Raises:
        InputError: a flag is of another model.
    """
    for name in _ALBERT_ONLY:
        if FLAGS.model != "albert" and FLAGS[name].present:
            raise InputError(f"--{name}: expected together with --model albert")
    for name, value in chosen().defaults.items():
        if FLAGS[name].value is None:
            FLAGS[name].value = value


def chosen() -> Family:
    """The family of --model."""
    return FAMILIES[FLAGS.model]


def make_config(vocab_size: int, **arguments: Any) -> BertConfig:
    """The configuration of the flags.

    Args:
        vocab_size: V.
        **arguments: of the configuration, in place of those of --size.

    Raises:
        ValueError: as that of the configuration.
    """
    if FLAGS.model == "albert":
        arguments["embedding_size"] = FLAGS.embedding_size
    config = chosen().config.of_size(FLAGS.size, vocab_size, **arguments)
    if FLAGS.model != "albert":
        return config
    mode = FLAGS.share_parameters
    shared = albert_config.sharing(mode, config.num_layers)
    return dataclasses.replace(config, **shared)


def train_tokenizer(documents: list[list[str]], path):
    """Trains a vocabulary of the kind that the family has.

    Raises:
        InputError: as of `wordpiece.train_tokenizer` and
            `sentence_piece.train_tokenizer`.
    """
    lowercase = FLAGS.lowercase is not False
    if chosen().vocabulary == SENTENCE_PIECE:
        return sentence_piece.train_tokenizer(
            documents, FLAGS.vocab_size, path, lowercase
        )
    return wordpiece.train_tokenizer(
        documents, FLAGS.vocab_size, path, lowercase
    )
