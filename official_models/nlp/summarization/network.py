"""The summarizer of the flags: its encoder, its weights, its optimizer."""

from __future__ import annotations

import dataclasses

import keras
from absl import flags
from tokenizers import Tokenizer

from official_models.common import backend, optimizers, weights
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.bert.config import SIZES, BertConfig
from official_models.nlp.checkpoint import initial, models
from official_models.nlp.checkpoint.source import (
    HEADS,
    OTHER_HEADS,
    Source,
    load,
)
from official_models.nlp.summarization import (
    dca_network,
    losses,
    optimization,
    positions,
)
from official_models.nlp.summarization.config import SummarizerConfig
from official_models.nlp.summarization.model import (
    DECODER,
    EXTRACTIVE,
    bertsum_abs,
    bertsum_ext,
)
from official_models.nlp.summarization.record import MODELS, OF_BEAMS
from official_models.nlp.text import vocabulary

FLAGS = flags.FLAGS
_OWN = (f"^{EXTRACTIVE}/", f"^{DECODER}/")
_OF_WRITERS = ("smoothing", "compare_speed")


def define_flags() -> None:
    """Defines the flags of the network."""
    flags.DEFINE_enum("model", MODELS[0], MODELS, "The summarizer.")
    initial.define_flags()
    flags.adopt_module_key_flags(initial)  # for --help
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string(
        "vocab_file",
        None,
        "A vocab.txt, or a SentencePiece .model. Default: the one beside the "
        "checkpoint.",
    )
    flags.DEFINE_boolean(
        "lowercase",
        None,
        "Whether the vocabulary is uncased. Default: what the checkpoint's "
        "folder says, else what the vocabulary says by its tokens.",
    )
    flags.DEFINE_enum(
        "size",
        "tiny",
        list(SIZES),
        "Size of an encoder that begins without a checkpoint (TransformerAbs, "
        "for --model bertsum_abs).",
    )
    flags.DEFINE_enum(
        "position",
        "code",
        positions.WAYS,
        "Positions that the checkpoint does not have: copies of its last one, "
        "as PreSumm's code has them, or drawn at random, as its paper says.",
    )
    integer(
        "num_layers",
        None,
        "Layers of the head (default: 2) or the decoder (6).",
        1,
    )
    integer("num_heads", 8, "Attention heads of these layers.", 1)
    integer("intermediate_size", 2048, "Their inner width.", 1)
    flags.DEFINE_float("dropout", 0.1, "Dropout of encoder, head and decoder.")
    flags.DEFINE_float(
        "smoothing", 0.1, "Label smoothing of an abstractive model."
    )
    run_flags.without_effect("vocab_file")  # encoded data are in the facts


def is_extractive() -> bool:
    """Whether --model chooses sentences."""
    return FLAGS.model == "bertsum_ext"


def check_flags() -> None:
    """Refuses flags that the chosen --model does not read.

    Raises:
        InputError: There is one that was changed.
    """
    dca_network.check_flags()
    refused: dict[str, tuple[str, ...]] = {}
    if is_extractive():
        refused["not with --model bertsum_ext, which writes no text"] = (
            *_OF_WRITERS,
            *OF_BEAMS,
        )
    if not dca_network.is_chosen():
        if FLAGS.init_checkpoint:
            refused["not with --init_checkpoint, which has a size"] = ("size",)
        else:
            refused["only for --init_checkpoint"] = ("position",)
    dca_network.refuse_changed(refused)


def open_checkpoint() -> tuple[Source | None, Tokenizer]:
    """The checkpoint of the flags, lengthened, and the tokenizer.

    --model dca has none, or that of `dca_network.open_trained`.

    Raises:
        InputError: It cannot be read, or is not what --model begins with.
    """
    if dca_network.is_chosen():
        return None, dca_network.load_tokenizer()
    source = initial.open_flagged()
    if source is None:
        if FLAGS.model == "bertsum_extabs":
            raise InputError(
                "--init_checkpoint is missing: --model bertsum_extabs begins "
                "with the encoder of a run of --model bertsum_ext"
            )
        if not FLAGS.vocab_file:
            raise InputError(
                "--init_checkpoint is missing; give a BERT or an ALBERT, or a "
                "--vocab_file to begin without one"
            )
        return None, vocabulary.load_tokenizer(
            FLAGS.vocab_file, FLAGS.lowercase
        )
    if source.config is None:
        raise InputError(
            f"{source.where}: no configuration beside it; put the model's "
            "bert_config.json or albert_config.json there"
        )
    has_head = any(name.startswith(f"{EXTRACTIVE}/") for name in source.names)
    if FLAGS.model == "bertsum_extabs" and not has_head:
        raise InputError(
            f"{source.where}: no sentence head; --model bertsum_extabs begins "
            "with the folder of a run of --model bertsum_ext that has ended"
        )
    tokenizer = _tokenizer_of(source)
    longer = positions.lengthened(
        source, FLAGS.max_tokens, FLAGS.position, FLAGS.seed
    )
    return longer, tokenizer


def _tokenizer_of(source: Source) -> Tokenizer:
    """That of --vocab_file and --lowercase, which `summarize` reads with, too.

    Raises:
        InputError: The checkpoint's model has another number of tokens.
    """
    tokenizer = vocabulary.load_tokenizer(FLAGS.vocab_file, FLAGS.lowercase)
    size, expected = tokenizer.get_vocab_size(), source.config.vocab_size
    # One beside the checkpoint was compared with it when that was opened.
    if source.tokenizer.vocabulary is None and size != expected:
        raise InputError(
            f"--vocab_file {FLAGS.vocab_file}: {size} tokens, {source.where} "
            f"has {expected}; expected the vocabulary that the model was "
            "trained with"
        )
    return tokenizer


def encoder_config(source: Source | None, tokenizer: Tokenizer) -> BertConfig:
    """The configuration of the encoder, with the rates of the flags."""
    rates = {
        "hidden_dropout": FLAGS.dropout,
        "attention_dropout": FLAGS.dropout,
    }
    with run_flags.naming_the_flag():
        if source is not None:
            return dataclasses.replace(source.config, **rates)
        return BertConfig.of_size(
            FLAGS.size,
            tokenizer.get_vocab_size(),
            max_position_embeddings=max(FLAGS.max_tokens, 512),
            **rates,
        )


def make_model(
    encoder_config: BertConfig, max_sentences: int, steps: int
) -> keras.Model:
    """The compiled model of the flags.

    Args:
        encoder_config: Of the encoder.
        max_sentences: Of a document.
        steps: Updates of the run.

    Raises:
        InputError: A flag is out of range.
    """
    parts = FLAGS.gradient_accumulation_steps
    dtype = FLAGS.dtype
    with run_flags.naming_the_flag():
        config = SummarizerConfig(
            encoder_config.hidden_size,
            1 if is_extractive() else encoder_config.vocab_size,
            FLAGS.num_layers or (2 if is_extractive() else 6),
            FLAGS.num_heads,
            FLAGS.intermediate_size,
            max_sentences if is_extractive() else FLAGS.max_target,
            FLAGS.dropout,
            FLAGS.dropout,
        )
        bare = models.make(
            encoder_config, "encoder", seed=FLAGS.seed, dtype=dtype
        )
        encoder = models.encoder_of(bare)
        make = bertsum_ext if is_extractive() else bertsum_abs
        model = make(encoder, config, seed=FLAGS.seed, dtype=dtype)
        optimizer = optimization.from_flags(steps, parts)
        optimization.build(optimizer, model.trainable_variables)
        loss = (
            losses.SentenceCrossEntropy()
            if is_extractive()
            else losses.LabelSmoothing(FLAGS.smoothing)
        )
    model.compile(
        optimizers.scaled(optimizer),
        loss,
        weighted_metrics=[] if is_extractive() else [losses.perplexity_log()],
        jit_compile=backend.compiles_step(),
    )
    return model


def initialize(source: Source | None, model: keras.Model) -> None:
    """Gives a new model the checkpoint's weights, and says so.

    A decoder's embedding, if the checkpoint has none, begins as a copy of the
    encoder's, where that is as wide.
    """
    if source is None:
        return
    found = load(
        source,
        model,
        new=(*HEADS, *_OWN),
        unused=(*OTHER_HEADS, *_OWN),
    )
    print(found)
    own = f"{DECODER}/word_embeddings"
    if own not in found.new:
        return
    variables = weights.by_path(model)
    words = variables["bert/embeddings/word_embeddings"]
    if tuple(variables[own].shape) == tuple(words.shape):
        variables[own].assign(words)
