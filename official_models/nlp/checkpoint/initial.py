"""`--init_checkpoint` of a training script: its weights, sizes, vocabulary."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from absl import flags

from official_models.common import files
from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.nlp.albert.config import sharing
from official_models.nlp.bert.config import BertConfig, write_config
from official_models.nlp.checkpoint import models, opening
from official_models.nlp.checkpoint.source import (
    RATES,
    Source,
    check_architecture,
)
from official_models.nlp.checkpoint.tokenizer import SENTENCE_PIECE, VOCABULARY
from official_models.nlp.text.vocabulary import is_sentence_piece

FLAGS = flags.FLAGS
# Flags of a training script, and names in a configuration.
SIZES = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
# Flags of an ALBERT, and what they decide.
_ALBERT = {
    "embedding_size": ("embedding_size",),
    "share_parameters": ("num_hidden_groups", "shared_part"),
}
_BLOCK = 1 << 20


def define_flags() -> None:
    """Defines --init_checkpoint; --vocab_file and --lowercase must be there."""
    flags.DEFINE_string(
        "init_checkpoint",
        None,
        f"A checkpoint whose weights are the first: {opening.EXPECTED}. The "
        "model has its sizes, and its vocabulary where none is named.",
    )
    without_effect("init_checkpoint")  # `facts` has its digest


def open_flagged() -> Source | None:
    """The checkpoint of --init_checkpoint; None without the flag.

    --vocab_file and --lowercase, if they were not given, become those of the
    checkpoint.

    Raises:
        InputError: As `open_source`; there is no vocabulary, or another one
            is given than the checkpoint's.
    """
    if not FLAGS.init_checkpoint:
        return None
    given = FLAGS.vocab_file
    source = opening.open_source(
        FLAGS.init_checkpoint, flag="--init_checkpoint"
    )
    own = source.tokenizer.vocabulary
    if not own and not given:
        raise InputError(
            f"{source.where}: no {VOCABULARY} and no {SENTENCE_PIECE} beside "
            "it; give the vocabulary that it was trained with by --vocab_file"
        )
    if own and given and not _are_same(own, given):
        raise InputError(
            f"--vocab_file {given}: is another vocabulary than the "
            f"checkpoint's {own}; leave the flag out"
        )
    if not given:
        FLAGS.vocab_file = str(own)
    if own and not FLAGS["lowercase"].present:
        FLAGS.lowercase = source.tokenizer.lowercase
    return source


def _are_same(*paths) -> bool:
    """Whether vocabularies have the same tokens."""
    found = []
    for path in paths:
        content = files.read_bytes(path, "expected a vocabulary")
        if not is_sentence_piece(path):
            content = content.replace(b"\r\n", b"\n").rstrip(b"\n")
        found.append(content)
    return found[0] == found[1]


def facts(source: Source | None) -> dict[str, Any]:
    """What a run's identity has of its first weights: their files' digest."""
    if source is None:
        return {}
    digest = hashlib.sha256()
    for path in source.files:
        _add(digest, path)
    return {"init_checkpoint_sha256": digest.hexdigest()}


def _add(digest, path: str) -> None:
    if files.is_remote(path):
        import tensorflow as tf

        opened = tf.io.gfile.GFile(path, "rb")
    else:
        opened = open(path, "rb")
    with opened as file:
        while block := file.read(_BLOCK):
            digest.update(block)


def adapt(
    source: Source | None, config: BertConfig, max_seq_length: int
) -> BertConfig:
    """The configuration of a model that begins with a checkpoint.

    Args:
        source: From `open_flagged`.
        config: Of the flags. Its rates are kept; all else is the checkpoint's,
            if that says what it is. Sizes that were given as flags must agree
            with it.
        max_seq_length: Of the longest sequences that it will see.

    Raises:
        InputError: The checkpoint is of another architecture than what was
            asked for, of another family or vocabulary, or of shorter
            sequences.
    """
    theirs = source.config if source else None
    if theirs is None:
        return config
    names = {*RATES, *_asked()}
    values = {name: getattr(config, name) for name in names}
    if type(theirs) is not type(config):
        check_architecture(source, config)
    if "shared_part" in names:
        # Of the checkpoint's layers: --num_layers need not be given.
        layers = values.get("num_layers", theirs.num_layers)
        values |= sharing(FLAGS.share_parameters, layers)
    padding = theirs.vocab_size - config.vocab_size
    if not (source.tokenizer.is_own and padding > 0):
        values["vocab_size"] = config.vocab_size
    if max_seq_length > theirs.max_position_embeddings:
        raise InputError(
            f"{source.where}: has {theirs.max_position_embeddings} positions; "
            f"expected at least --max_seq_length {max_seq_length}"
        )
    try:
        adapted = dataclasses.replace(theirs, **values)
    except ValueError as error:
        raise InputError(f"{source.where}: {error}") from error
    check_architecture(source, adapted)
    return adapted


def _asked() -> set[str]:
    """Of a configuration, what was given by flags."""
    given = {name for name in (*SIZES, "gelu") if FLAGS[name].present}
    for flag, names in _ALBERT.items():
        given |= set(names if FLAGS[flag].present else ())
    return given | set(SIZES if FLAGS["size"].present else ())


def describe(folder: Path, config: BertConfig, vocab_file: str | None) -> None:
    """Writes what an export of a run needs: configuration and vocabulary.

    Args:
        folder: Of the run.
        config: Of its model.
        vocab_file: Its vocabulary; None if that is in the folder already.
    """
    write_config(folder / opening.CONFIGS[models.is_albert(config)], config)
    if vocab_file:
        copy_vocabulary(folder, vocab_file)


def copy_vocabulary(folder: Path, vocab_file: str) -> None:
    """Copies a vocabulary into a folder, under the name that is looked for."""
    name = SENTENCE_PIECE if is_sentence_piece(vocab_file) else VOCABULARY
    content = files.read_bytes(vocab_file, "expected a vocabulary")
    files.write_bytes(folder / name, content)
