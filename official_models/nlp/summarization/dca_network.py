"""Deep communicating agents of the flags: network, losses, optimizer."""

from __future__ import annotations

import keras
from absl import flags
from tokenizers import Tokenizer

from official_models.common import backend, optimizers
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.summarization import (
    dca,
    dca_losses,
    losses,
    optimization,
)
from official_models.nlp.summarization.config import AgentsConfig
from official_models.nlp.text import vocabulary
from tf_lamb import check

FLAGS = flags.FLAGS
MODEL = "dca"
CROSS_ENTROPY = f"{dca.LOG_P}_cross_entropy"
_OWN = (
    *("agents", "contextual_layers", "caa", "communicate", "hidden_size"),
    "cohesion",
)
_OF_BERTSUM = (
    *("init_checkpoint", "size", "position", "num_layers", "num_heads"),
    *("intermediate_size", "dropout", "smoothing", "separate"),
    *("encoder_learning_rate", "encoder_warmup_steps", "compare_speed"),
)


def define_flags() -> None:
    """Defines the flags of --model dca."""
    integer, boolean = flags.DEFINE_integer, flags.DEFINE_boolean
    integer("agents", 3, "Parts of a document, each an agent's (dca).", 1)
    integer(
        "contextual_layers",
        2,
        "Layers in which agents send messages (dca).",
        0,
    )
    boolean(
        "caa",
        False,
        "Contextual agent attention: whether the next word knows the context "
        "of the one before, too (dca).",
    )
    boolean(
        "communicate",
        True,
        "Whether agents send messages; without, as many parameters (dca).",
    )
    integer("hidden_size", 128, "Width of the LSTMs and of words (dca).", 1)
    flags.DEFINE_float(
        "cohesion",
        dca_losses.LAMBDA,
        "Factor of the semantic cohesion loss (dca).",
    )


def is_chosen() -> bool:
    """Whether --model is dca."""
    return FLAGS.model == MODEL


def check_flags() -> None:
    """Refuses flags that the chosen --model does not read.

    Raises:
        InputError: There is one that was changed.
    """
    names, only = (
        (_OF_BERTSUM, "not with --model dca")
        if is_chosen()
        else (_OWN, "only for --model dca")
    )
    for name in names:
        if FLAGS[name].value != FLAGS[name].default:
            raise InputError(f"--{name}: {only}")


def load_tokenizer() -> Tokenizer:
    """The tokenizer of --vocab_file.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    if not FLAGS.vocab_file:
        raise InputError(
            "--vocab_file is missing: --model dca begins without a checkpoint"
        )
    return vocabulary.load_tokenizer(FLAGS.vocab_file, FLAGS.lowercase)


def make_model(tokenizer: Tokenizer, steps: int) -> keras.Model:
    """The compiled network of the flags, for MLE and semantic cohesion.

    Args:
        tokenizer: Of documents and summaries.
        steps: Updates of the run.

    Raises:
        InputError: A flag is out of range.
    """
    with run_flags.naming_the_flag():
        config = AgentsConfig(
            tokenizer.get_vocab_size(),
            hidden_size=FLAGS.hidden_size,
            embedding_size=FLAGS.hidden_size,
            agents=FLAGS.agents,
            contextual_layers=FLAGS.contextual_layers,
            caa=FLAGS.caa,
            communicate=FLAGS.communicate,
        )
        factor = check.non_negative("cohesion", FLAGS.cohesion)
        model = dca.communicating_agents(
            config, seed=FLAGS.seed, dtype=FLAGS.dtype
        )
        optimizer = optimization.from_flags(
            steps, FLAGS.gradient_accumulation_steps, one_rate=True
        )
        optimization.build(optimizer, model.trainable_variables)
    model.compile(
        optimizers.scaled(optimizer),
        {
            dca.LOG_P: dca_losses.ExtendedCrossEntropy(),
            dca.STATES: dca_losses.SemanticCohesion(),
        },
        loss_weights={dca.LOG_P: 1.0, dca.STATES: factor},
        weighted_metrics={dca.LOG_P: [losses.perplexity_log()]},
        jit_compile=backend.compiles_step(),
    )
    return model
