r"""Reads any checkpoint of BERT or ALBERT, and writes it for others to open.

    python -m official_models.nlp.checkpoint export --checkpoint runs/bert \
        --format huggingface --output_dir exported

`--checkpoint` is the folder of a training run, a `.keras` file, a TensorFlow
checkpoint of Google's or Model Garden's (with `bert_config.json` or
`albert_config.json` beside it, or `--config_file`), or a folder of Hugging
Face's (`config.json`, `model.safetensors`). The model keeps its head: an
encoder, masked tokens with sentence pairs, a classifier or a finder of answers.
"""

from absl import flags, logging

from official_models.common import errors
from official_models.nlp.checkpoint import export, models, opening, source

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    flags.DEFINE_string("checkpoint", None, f"It is {opening.EXPECTED}.")
    flags.DEFINE_enum(
        "format",
        "huggingface",
        list(export.FORMATS),
        "What is written: for transformers, for TensorFlow Serving, for Keras, "
        "or a checkpoint by name for TPUEstimator jobs.",
    )
    flags.DEFINE_string(
        "output_dir", None, "A new folder for the model and its tokenizer."
    )
    flags.DEFINE_string(
        "config_file",
        None,
        "The bert_config.json or albert_config.json of a TensorFlow "
        "checkpoint. Default: the one beside it.",
    )
    flags.DEFINE_string(
        "vocab_file",
        None,
        "A vocab.txt, or the SentencePiece .model of an ALBERT. Default: the "
        "tokenizer's files beside the checkpoint.",
    )
    flags.DEFINE_boolean(
        "lowercase",
        None,
        "Whether the vocabulary is uncased. Default: what the checkpoint's "
        "folder says, else yes.",
    )
    flags.mark_flags_as_required(["checkpoint", "output_dir"])


def main(_) -> None:
    """Reads, writes, and says what was loaded."""
    logging.set_verbosity(logging.WARNING)
    export.check_output(FLAGS.output_dir)
    opened = opening.open_source(
        FLAGS.checkpoint,
        config_file=FLAGS.config_file,
        vocab_file=FLAGS.vocab_file,
        lowercase=FLAGS.lowercase,
        flag="--checkpoint",
    )
    model, loaded = source.make(opened)
    # Other models may keep the labels of a classifier that they were part of.
    is_classifier = models.head_of_model(model) == "classifier"
    print(f"{model.name}, {model.count_params():,} parameters: {loaded}")
    names = export.export(
        model,
        FLAGS.output_dir,
        FLAGS.format,
        opened.tokenizer,
        leave_out=loaded.new,
        labels=opened.labels if is_classifier else (),
    )
    if not opened.tokenizer.files:
        print("No tokenizer: none lies beside the checkpoint; --vocab_file.")
    print(f"{FLAGS.output_dir}: {', '.join(names)}.")


if __name__ == "__main__":
    define_flags()
    errors.run(main, commands=("export",))
