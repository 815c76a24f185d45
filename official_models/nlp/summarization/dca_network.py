"""Deep communicating agents of the flags: network, losses, optimizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
from absl import flags
from tokenizers import Tokenizer

from official_models.common import backend, files, optimizers, weights
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.checkpoint import opening
from official_models.nlp.checkpoint.tokenizer import find
from official_models.nlp.summarization import (
    dca,
    dca_losses,
    dca_rl,
    losses,
    optimization,
    record,
)
from official_models.nlp.summarization.config import AgentsConfig
from official_models.nlp.summarization.inputs import Encoding
from official_models.nlp.text import vocabulary
from tf_lamb import check

FLAGS = flags.FLAGS
MODEL = "dca"
CROSS_ENTROPY = f"{dca.LOG_P}_cross_entropy"
_OF_CHECKPOINT = (
    *("agents", "contextual_layers", "caa", "communicate", "hidden_size"),
)
_OWN = (*_OF_CHECKPOINT, "cohesion", "rl")
_OF_RL = ("gamma", "reward")
_OF_BERTSUM = (
    *("size", "position", "num_layers", "num_heads"),
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
    boolean(
        "rl",
        False,
        "Whether to train by rewards, self-critically, a run of --model dca "
        "that has ended: that of --init_checkpoint (dca).",
    )
    flags.DEFINE_float(
        "gamma",
        dca_losses.GAMMA,
        "Weight of RL; the rest is that of MLE and cohesion (--rl).",
    )
    flags.DEFINE_enum(
        "reward",
        dca_rl.REWARDS[0],
        dca_rl.REWARDS,
        "Which F1 of ROUGE rewards a summary (--rl).",
    )


def is_chosen() -> bool:
    """Whether --model is dca."""
    return FLAGS.model == MODEL


def check_flags() -> None:
    """Refuses flags that the chosen --model does not read.

    Raises:
        InputError: There is one that was changed.
    """
    refused = {"not with --model dca": _OF_BERTSUM}
    if not is_chosen():
        refused = {"only for --model dca": (*_OWN, *_OF_RL)}
    elif FLAGS.rl:
        refused["not with --rl, which has that of --init_checkpoint"] = (
            *_OF_CHECKPOINT,
            "vocab_file",
        )
        refused["not with --rl, whose rewards are no part of XLA"] = (
            "jit_compile",
        )
    else:
        refused["not with --model dca, unless with --rl"] = ("init_checkpoint",)
        refused["only for --rl"] = _OF_RL
    refuse_changed(refused)
    if FLAGS.rl:
        _check_rl()


def refuse_changed(refused: Mapping[str, Iterable[str]]) -> None:
    """Refuses values that are not the defaults.

    Args:
        refused: {why not: flags}.

    Raises:
        InputError: A flag has another value.
    """
    for why, names in refused.items():
        for name in names:
            if FLAGS[name].value != FLAGS[name].default:
                raise InputError(f"--{name}: {why}")


def _check_rl() -> None:
    if not 0 <= FLAGS.gamma <= 1:
        raise InputError(
            f"--gamma {FLAGS.gamma:g}: expected a number from 0 to 1"
        )
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"--rl: for Keras' backend tensorflow, not "
            f"{keras.backend.backend()}; unset KERAS_BACKEND"
        )


def open_trained() -> keras.Model:
    """The agents of --init_checkpoint, that --rl begins with.

    --vocab_file, and --lowercase if it was not given, become those of the
    checkpoint.

    Raises:
        InputError: It is not the folder of a run of --model dca that has ended.
    """
    end = "expected the folder of a run of --model dca that has ended"
    if not FLAGS.init_checkpoint:
        raise InputError(f"--init_checkpoint is missing: with --rl {end}")
    folder = Path(FLAGS.init_checkpoint)
    where = f"--init_checkpoint {folder}"
    for name in (opening.KERAS, record.NAME):
        if not (folder / name).is_file():
            raise InputError(f"{where}: has no {name}; {end}")
    found = files.read_json(folder / record.NAME, end)
    if not isinstance(found, dict) or found.get("model") != MODEL:
        raise InputError(f"{where}: is no run of --model dca; {end}")
    trained = weights.read_keras(folder / opening.KERAS, where)
    if dca.AGENTS not in {layer.name for layer in trained.layers}:
        raise InputError(f"{where}: {opening.KERAS} has no agents; {end}")
    if not FLAGS["lowercase"].present:
        FLAGS.lowercase = found.get("lowercase")
    own = find(folder, lowercase=FLAGS.lowercase).vocabulary
    if own is None:
        raise InputError(f"{where}: has no vocabulary; {end}")
    FLAGS.vocab_file = str(own)
    return trained


def facts() -> dict[str, Any]:
    """What a run's identity has of its first weights: their file's digest."""
    if not (is_chosen() and FLAGS.rl):
        return {}
    with open(Path(FLAGS.init_checkpoint) / opening.KERAS, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"init_checkpoint_sha256": digest}


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


def make_model(
    encoding: Encoding, steps: int, trained: keras.Model | None = None
) -> keras.Model:
    """The compiled network of the flags, for MLE and semantic cohesion.

    Args:
        encoding: Of documents and summaries.
        steps: Updates of the run.
        trained: Of `open_trained`, with --rl: the model then trains by rewards,
            too.

    Raises:
        InputError: A flag is out of range.
    """
    with run_flags.naming_the_flag():
        factor = check.non_negative("cohesion", FLAGS.cohesion)
        model = _agents(encoding.tokenizer.get_vocab_size(), trained)
        optimizer = optimization.from_flags(
            steps, FLAGS.gradient_accumulation_steps, one_rate=True
        )
        optimization.build(optimizer, model.trainable_variables)
    if trained is not None:
        model = dca_rl.SelfCritical(
            model,
            encoding,
            gamma=FLAGS.gamma,
            reward=FLAGS.reward,
            seed=FLAGS.seed,
        )
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


def _agents(vocab_size: int, trained: keras.Model | None) -> keras.Model:
    """The network, new or with the sizes and weights of another one."""
    make = partial(dca.communicating_agents, seed=FLAGS.seed, dtype=FLAGS.dtype)
    if trained is not None:
        model = make(trained.get_layer(dca.AGENTS).config)
        model.set_weights(trained.get_weights())
        return model
    return make(
        AgentsConfig(
            vocab_size,
            hidden_size=FLAGS.hidden_size,
            embedding_size=FLAGS.hidden_size,
            agents=FLAGS.agents,
            contextual_layers=FLAGS.contextual_layers,
            caa=FLAGS.caa,
            communicate=FLAGS.communicate,
        )
    )


def agents_of(model: keras.Model) -> int:
    """M of a model of `make_model`."""
    return dca_rl.bare(model).get_layer(dca.AGENTS).config.agents


def metric_names() -> tuple[str, ...]:
    """Columns of metrics.csv."""
    names = ("loss", CROSS_ENTROPY)
    return (*names, dca_rl.SAMPLED, dca_rl.GREEDY) if FLAGS.rl else names
