"""What a classifier is fine-tuned from: a checkpoint, a task, its files.

All of it as the flags say.
"""

from pathlib import Path
from typing import Any

from absl import flags

from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert import classifier_prediction as prediction
from official_models.nlp.bert import classifier_training as training
from official_models.nlp.bert.config import write_config
from official_models.nlp.checkpoint import initial, opening, tokenizer
from official_models.nlp.checkpoint.source import Source
from official_models.nlp.datasets import glue

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("task_name", None, f"One of {', '.join(glue.TASKS)}.")
    string("data_dir", None, "Folder of the task's TSV files.")
    initial.define_flags()
    flags.adopt_module_key_flags(initial)  # for --help
    string(
        "config_file",
        None,
        "The bert_config.json or albert_config.json of a TensorFlow "
        "checkpoint. Default: the one beside it.",
    )
    string(
        "vocab_file",
        None,
        "A vocab.txt. Default: the tokenizer's files beside the checkpoint.",
    )
    flags.DEFINE_boolean(
        "lowercase",
        None,
        "Whether the vocabulary is uncased. Default: what the checkpoint's "
        "folder says, else yes.",
    )
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a sequence.", 5)
    # The encoded data are in the run's facts.
    run_flags.without_effect("data_dir", "vocab_file")


def facts(
    checkpoint: Source, splits: dict[str, training.Encoded]
) -> dict[str, Any]:
    """What decides the weights beside flags."""
    digest = training.digest(splits)
    return {**initial.facts(checkpoint), "data_sha256": digest}


def open_checkpoint() -> Source:
    """The checkpoint of the flags, without the classifier that it may have.

    Raises:
        InputError: as `opening.open_source`; nothing says what its model is,
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
    head = {source.name_of(f"output_{name}") for name in ("weights", "bias")}
    return source._replace(names=set(source.names) - head)


def read_data(task: glue.Task, source: Source) -> dict[str, training.Encoded]:
    """The training split and the validation splits, as arrays.

    Raises:
        InputError: as `glue.read_split`; the tokenizer cannot be read.
    """
    splits = {}
    loaded = source.tokenizer.load(source.where)
    for split in ("train", *task.dev_splits):
        examples, broken = glue.read_split(FLAGS.data_dir, task, split)
        if broken:
            print(f"{split}: {len(broken)} lines are cut off: passed over.")
        splits[split] = training.encode(
            examples, task, loaded, FLAGS.max_seq_length
        )
    return splits


def describe(folder: Path, source: Source) -> None:
    """Writes what prediction and an export need beside the model."""
    length = source.config.max_position_embeddings
    tokenizer.write(source.tokenizer, folder, length)
    is_albert = isinstance(source.config, AlbertConfig)
    write_config(folder / opening.CONFIGS[is_albert], source.config)
    prediction.describe(folder, FLAGS.task_name, FLAGS.max_seq_length)
