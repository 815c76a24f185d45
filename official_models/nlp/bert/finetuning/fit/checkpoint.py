"""The checkpoint that fine-tuning begins with, as the flags say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from official_models.common import files
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert.config import write_config
from official_models.nlp.bert.finetuning.fit import prediction
from official_models.nlp.checkpoint import initial, opening, tokenizer
from official_models.nlp.checkpoint.source import Source

FLAGS = flags.FLAGS


def define_flags(max_seq_length: int) -> None:
    """Defines the flags.

    Args:
        max_seq_length: Default of the flag.
    """
    initial.define_flags()
    flags.adopt_module_key_flags(initial)  # for --help
    flags.DEFINE_string(
        "config_file",
        None,
        "The bert_config.json or albert_config.json of a TensorFlow "
        "checkpoint. Default: the one beside it.",
    )
    flags.DEFINE_string(
        "vocab_file",
        None,
        "A vocab.txt, or a SentencePiece .model. Default: the tokenizer's "
        "files beside the checkpoint.",
    )
    flags.DEFINE_boolean(
        "lowercase",
        None,
        "Whether the vocabulary is uncased. Default: what the checkpoint's "
        "folder says, else what the vocabulary says by its tokens.",
    )
    flags.DEFINE_integer(
        "max_seq_length", max_seq_length, "Tokens of a sequence.", 5
    )
    # The encoded data are in the run's facts.
    run_flags.without_effect("vocab_file")


def open_flagged() -> Source:
    """The checkpoint of the flags.

    Raises:
        InputError: As `opening.open_source`; nothing says what its model is,
            or --max_seq_length is too long for it.
    """
    source = opening.open_source(
        FLAGS.init_checkpoint,
        config_file=FLAGS.config_file,
        vocab_file=FLAGS.vocab_file,
        lowercase=FLAGS.lowercase,
        flag="--init_checkpoint",
    )
    if source.config is None:
        raise InputError(
            f"{source.where}: no configuration beside it; give the model's "
            "bert_config.json or albert_config.json by --config_file"
        )
    positions = source.config.max_position_embeddings
    if FLAGS.max_seq_length > positions:
        raise InputError(
            f"--max_seq_length {FLAGS.max_seq_length}: {source.where} has "
            f"{positions} positions; expected no more"
        )
    return source


def without_classifier(source: Source) -> Source:
    """The same checkpoint without the classifier that it may end in."""
    head = {source.name_of(f"output_{name}") for name in ("weights", "bias")}
    return source._replace(names=set(source.names) - head)


def describe(
    folder: Path,
    source: Source,
    record: Mapping[str, Any],
    labels: Sequence[str],
) -> None:
    """Writes what prediction and an export need beside the model.

    Args:
        folder: Of the run.
        source: The checkpoint it began with.
        record: What the model is fine-tuned for.
        labels: Names of a classifier's labels, or none.
    """
    length = source.config.max_position_embeddings
    tokenizer.write(source.tokenizer, folder, length)
    is_albert = isinstance(source.config, AlbertConfig)
    write_config(folder / opening.CONFIGS[is_albert], source.config)
    if labels:
        opening.write_labels(folder, labels)
    files.write_json(folder / prediction.RECORD, record)
